//! Takes the leader key: a vacant one, or that of a leader which can acknowledge nothing more.

use super::tick::Tick;
use super::{failsafe, store};
use crate::model::{Deposal, Job, Reason, TakeLeadershipPreconditions};

/// Takes the vacant leader key.
pub(super) fn take(tick: &mut Tick<'_>, because: Reason) -> Reason {
    take_key(tick, tick.memory.vacant_at(), None, because)
}

/// Takes the leader key from a leader that can acknowledge nothing more, as enough standbys have promised.
pub(super) fn depose(tick: &mut Tick<'_>, deposes: Deposal, because: Reason) -> Reason {
    take_key(tick, deposes.attempt, Some(deposes), because)
}

fn take_key(tick: &mut Tick<'_>, unlocked: i64, deposes: Option<Deposal>, because: Reason) -> Reason {
    store::hear(tick, unlocked);
    let unfenced = tick.cluster().and_then(|cluster| cluster.unfenced.as_ref());
    let by = TakeLeadershipPreconditions {
        sync: tick.sync_revision(),
        unfenced: unfenced.map_or(0, |key| key.mod_revision),
        failsafe: failsafe::revision(tick),
        unlocked,
        deposes,
    };
    tick.memory.failsafe.may_have_taken = true;
    tick.start(Job::TakeLeadership { by });
    match tick.writes_refused() {
        Some(_) => Reason::WritesRefused,
        None => because,
    }
}
