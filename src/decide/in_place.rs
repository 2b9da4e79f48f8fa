//! The start of a leader's PostgreSQL as the primary that it was, without a promotion: every timeline costs archives,
//! backups and logical readers something.
//!
//! **Invariant.** Only where nobody else can have written WAL since mine ended: I have led in one term, without a doubt
//! about the lease, since this PostgreSQL served on this very timeline. Or I have just made the cluster, and nobody has
//! led it. In all other cases a start is a standby's.

use std::time::Duration;

use super::memory::{Memory, Served};
use super::tick::Tick;
use super::{attach, demote, failsafe, race, store, sync, take, unfenced};
use crate::model::{ControlFile, ControlState, Job, Moment, Observation, Reason, SqlFacts, Term, Timeline};

/// I lead, and my PostgreSQL is down: starts it as the primary that it was; false where that is not certain. After a
/// failed start it is a standby first.
pub(super) fn start(tick: &mut Tick<'_>, term: Term, control: &ControlFile) -> bool {
    let mine = |served: &Served| served.term == term && served.timeline == control.checkpoint_timeline;
    let starts = tick.memory.served.as_ref().is_some_and(mine) && may_start(tick, term, control);
    if starts {
        as_primary(tick, term, control, false);
    }
    starts
}

/// Whether a restart of this leader would begin as a standby now. Not where this member does not lead a primary.
pub fn restart_begins_as_standby(memory: &Memory, seen: &Observation, now: Moment) -> bool {
    let is_primary = seen.postgres.answering().is_some_and(SqlFacts::is_primary);
    let (Some(term), true, Some(control)) = (seen.lease.leading_at(now), is_primary, seen.postgres.control())
    else {
        return false;
    };
    let serves = memory.served.as_ref().is_some_and(|served| served.term == term);
    !serves || !may_start(&mut Tick::new(memory, seen, now), term, control)
}

/// I lead the cluster that I have made: its first start begins no timeline, either. `None`: it is a start like any
/// other.
pub(super) fn first_start(tick: &mut Tick<'_>, term: Term, control: &ControlFile) -> Option<Reason> {
    let as_made = control.state == ControlState::ShutDown && control.checkpoint_timeline == Timeline::FIRST;
    if !tick.memory.is_new_cluster || !as_made || !may_start(tick, term, control) {
        return None;
    }
    let unprepared = sync::prepare_first_start(tick, term);
    if unprepared.is_none() {
        as_primary(tick, term, control, true);
    }
    unprepared.or(Some(Reason::StartingFirstPrimary))
}

fn may_start(tick: &mut Tick<'_>, term: Term, control: &ControlFile) -> bool {
    let is_certain = !tick.is_unsettled() && store::heard_before(tick, term).is_none();
    is_certain
        && tick.seen.lease.allows_promotion(term, tick.now)
        && control.is_of_primary()
        && !control.is_unfinished_copy()
        && tick.memory.failures.starts == 0
        && failsafe::delays_promotion(tick, term).is_none()
}

fn as_primary(tick: &mut Tick<'_>, term: Term, control: &ControlFile, first: bool) {
    sync::lock_clients_out_until_named(tick, control);
    attach::to_nobody(tick);
    let within = timeout(tick);
    tick.start(Job::StartPrimary { term, within, first });
}

/// How long a start of the leader may take.
pub(super) fn timeout(tick: &Tick<'_>) -> Duration {
    tick.seen.settings.primary_start_timeout.max(Duration::from_secs(10))
}

/// No member leads, and I have made the cluster: nobody else has any data to compare with. `None` where that is not
/// certain, or anything bars it: then it is a race like any other.
pub(super) fn lead_new_cluster(tick: &mut Tick<'_>) -> Option<Reason> {
    let cluster = tick.cluster().filter(|_| tick.memory.is_new_cluster)?;
    let led = cluster.status.is_some() || cluster.history.is_some() || cluster.timeline().is_some();
    if led || cluster.failover.is_some() || tick.is_unsettled() || tick.in_standby_cluster() {
        return None;
    }
    if let Some(reason) = race::not_begun(tick) {
        return Some(reason);
    }
    let held_back = tick.seen.own_fault().is_some() || race::held_back(tick).is_some();
    if held_back || unfenced::bars(tick, None).is_some() || failsafe::bars(tick).is_some() {
        return None;
    }
    Some(take::take(tick, Reason::MadeCluster))
}

/// The leader key vanished under a running primary, which takes it back. One that has never answered has shown nothing
/// that could be compared, and may become read-write by itself: it is stopped, after its start was cancelled.
pub(super) fn retake(tick: &mut Tick<'_>, sql: Option<&SqlFacts>) -> Reason {
    if sql.is_some() || tick.seen.postgres.sql.is_some() {
        return race::retake(tick, sql);
    }
    if tick.seen.job.is_none() {
        demote::stop_now(tick);
    }
    Reason::LeaseExpiring
}
