//! The end of leadership: at once when the lease is lost, by a release of the key when Postgres cannot serve.

use std::time::Duration;

use super::ledgers::ReleasedTerm;
use super::stop;
use super::tick::Tick;
use crate::model::{Action, ClusterStatus, FailoverKey, Job, JobKind, Reason, Term, WaitingOn};

/// Stops a Postgres that may accept writes without a lease. In pause, too: two primaries are never allowed.
pub(super) fn now(tick: &mut Tick<'_>, because: Reason) -> Reason {
    stop_now(tick);
    because
}

/// Stops Postgres at once, and cancels any other long action first.
pub(super) fn stop_now(tick: &mut Tick<'_>) {
    stop_instead(tick, stop::before_fence);
}

/// Postgres leads no more: `stop` starts once no other long action runs.
pub(super) fn stop_instead(tick: &mut Tick<'_>, stop: impl FnOnce(&mut Tick<'_>)) {
    (tick.memory.demoted, tick.memory.served) = (true, None);
    tick.memory.hand_over = None;
    match tick.seen.job.as_ref().map(|running| running.job.kind()) {
        Some(JobKind::Stop) => {}
        Some(_) => {
            tick.act(Action::CancelJob);
            tick.wake_in(Duration::from_millis(50), WaitingOn::Job);
        }
        None => stop(tick),
    }
}

/// I tried to give the key of `term` away. Nothing else happens until a renewal shows the result. If the attempt failed
/// or its result is unknown, the key is first made mine in a new term, so that no write of the old term can still
/// succeed.
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

/// Gives the leader key away because this Postgres cannot serve, and yields to the other members for one TTL.
pub(super) fn release(tick: &mut Tick<'_>, term: Term, because: Reason) -> Reason {
    if tick.seen.postgres.may_be_primary() {
        // The key is given away only after no process here can write any more.
        stop::before_fence(tick);
        return because;
    }
    tick.memory.yield_until = Some(tick.now + tick.seen.settings.ttl);
    let asked = tick.cluster().and_then(|cluster| cluster.failover.clone());
    if let Some(FailoverKey { mod_revision, .. }) =
        asked.filter(|key| key.request.candidate.as_ref() == Some(&tick.seen.me.name))
    {
        // The requested candidate cannot lead: the other members need not wait for it.
        tick.act(Action::ClearFailover { mod_revision });
    }
    if tick.seen.writing.is_none() && !tick.waits(JobKind::ReleaseLeadership) {
        tick.memory.released_term = Some(ReleasedTerm { term, reclaim: false });
        // With a status in the transaction, an etcd that refuses writes refuses the whole of it, and no other member
        // could take the key. A supervisor that ends releases the key in any case.
        let status = (!tick.ends()).then(|| last_status(tick));
        tick.act(Action::Start(Job::ReleaseLeadership { term, status }));
    }
    because
}

/// The status that etcd has last.
pub(super) fn last_status(tick: &Tick<'_>) -> ClusterStatus {
    let mine = tick.memory.status.as_ref().map(|(status, _)| status.clone());
    mine.or_else(|| tick.cluster()?.status.clone()).unwrap_or_default()
}
