//! Ceasing to lead: at once when the lease is gone, by releasing the key when Postgres cannot serve.

use std::time::Duration;

use super::ledgers::ReleasedTerm;
use super::stop;
use super::tick::Tick;
use crate::model::{Action, ClusterStatus, FailoverKey, Job, JobKind, Reason, Term, WaitingOn};

/// Stops a Postgres that may accept writes without a lease. Also in pause: pause never allows two.
pub(super) fn now(tick: &mut Tick<'_>, because: Reason) -> Reason {
    stop_now(tick);
    because
}

/// Stops Postgres at once, and cancels whatever long action is in the way.
pub(super) fn stop_now(tick: &mut Tick<'_>) {
    tick.memory.demoted = true;
    tick.memory.hand_over = None;
    match tick.seen.job.as_ref().map(|running| running.job.kind()) {
        Some(JobKind::Stop) => {}
        Some(_) => {
            tick.act(Action::CancelJob);
            tick.wake_in(Duration::from_millis(50), WaitingOn::Job);
        }
        None => stop::before_fence(tick),
    }
}

/// I tried to give the key of `term` away. Until a renewal shows what came of it nothing else is done; if it failed, or
/// nobody knows, the key is made mine in a new term first, so that nothing sent in the old one can still arrive.
pub(super) fn giving_away(tick: &mut Tick<'_>, term: Term) -> Reason {
    if tick.seen.writing.is_none() {
        match tick.memory.released_term.as_ref().is_some_and(|given| given.reclaim) {
            true => tick.start(Job::ReclaimLeadership { term }),
            false => tick.act(Action::RenewLease),
        }
    }
    tick.wake_in(Duration::from_millis(100), WaitingOn::Lease);
    Reason::GivingAway
}

/// Gives the leader key away because this Postgres cannot serve, and lets the others go first for one TTL.
pub(super) fn release(tick: &mut Tick<'_>, term: Term, because: Reason) -> Reason {
    if tick.seen.postgres.may_be_primary() {
        // The key is given away only when nothing here can write any more.
        stop::before_fence(tick);
        return because;
    }
    tick.memory.yield_until = Some(tick.now + tick.seen.settings.ttl);
    let asked = tick.cluster().and_then(|cluster| cluster.failover.clone());
    if let Some(FailoverKey { mod_revision, .. }) =
        asked.filter(|key| key.request.candidate.as_ref() == Some(&tick.seen.me.name))
    {
        // Who was asked to lead cannot: the others do not wait for it any longer.
        tick.act(Action::ClearFailover { mod_revision });
    }
    if tick.seen.writing.is_none() && !tick.waits(JobKind::ReleaseLeadership) {
        tick.memory.released_term = Some(ReleasedTerm { term, reclaim: false });
        // With a write, an etcd that takes none refuses it as a whole: nobody could take the key. Who ends releases it
        // in any case.
        let status = (!tick.ends()).then(|| told(tick));
        tick.act(Action::Start(Job::ReleaseLeadership { term, status }));
    }
    because
}

/// What etcd was last told of the cluster.
fn told(tick: &Tick<'_>) -> ClusterStatus {
    let mine = tick.memory.status.as_ref().map(|(status, _)| status.clone());
    mine.or_else(|| tick.cluster()?.status.clone()).unwrap_or_default()
}
