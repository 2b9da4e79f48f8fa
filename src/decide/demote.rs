//! Ceasing to lead: at once when the lease is gone, by releasing the key when Postgres cannot serve.

use std::time::Duration;

use super::ledgers::GivenAway;
use super::stop;
use super::turn::Turn;
use crate::model::{Action, ClusterStatus, FailoverKey, Job, JobKind, Reason, Term, WaitingOn};

/// Stops a Postgres that may accept writes without a lease. Also in pause: pause never allows two.
pub(super) fn now(turn: &mut Turn<'_>, because: Reason) -> Reason {
    stop_now(turn);
    because
}

/// Stops Postgres at once, and cancels whatever long action is in the way.
pub(super) fn stop_now(turn: &mut Turn<'_>) {
    turn.memory.demoted = true;
    turn.memory.hand_over = None;
    match turn.seen.job.as_ref().map(|running| running.job.kind()) {
        Some(JobKind::Stop) => {}
        Some(_) => {
            turn.act(Action::CancelJob);
            turn.wake_in(Duration::from_millis(50), WaitingOn::Job);
        }
        None => stop::before_fence(turn),
    }
}

/// I tried to give the key of `term` away. Until a renewal shows what came of it nothing else is done; if it failed, or
/// nobody knows, the key is made mine in a new term first, so that nothing sent in the old one can still arrive.
pub(super) fn giving_away(turn: &mut Turn<'_>, term: Term) -> Reason {
    if turn.seen.writing.is_none() {
        match turn.memory.given_away.as_ref().is_some_and(|given| given.reclaim) {
            true => turn.start(Job::ReclaimLeadership { term }),
            false => turn.act(Action::RenewLease),
        }
    }
    turn.wake_in(Duration::from_millis(100), WaitingOn::Lease);
    Reason::GivingAway
}

/// Gives the leader key away because this Postgres cannot serve, and lets the others go first for one TTL.
pub(super) fn release(turn: &mut Turn<'_>, term: Term, because: Reason) -> Reason {
    if turn.seen.postgres.may_be_primary() {
        // The key is given away only when nothing here can write any more.
        stop::before_fence(turn);
        return because;
    }
    turn.memory.yield_until = Some(turn.now + turn.seen.settings.ttl);
    let asked = turn.cluster().and_then(|cluster| cluster.failover.clone());
    if let Some(FailoverKey { mod_revision, .. }) =
        asked.filter(|key| key.request.candidate.as_ref() == Some(&turn.seen.me.name))
    {
        // Who was asked to lead cannot: the others do not wait for it any longer.
        turn.act(Action::ClearFailover { mod_revision });
    }
    if turn.seen.writing.is_none() && !turn.waits(JobKind::ReleaseLeadership) {
        turn.memory.given_away = Some(GivenAway { term, reclaim: false });
        // With a write, an etcd that takes none refuses it as a whole: nobody could take the key. Who ends releases it
        // in any case.
        let status = (!turn.ends()).then(|| told(turn));
        turn.act(Action::Start(Job::ReleaseLeadership { term, status }));
    }
    because
}

/// What etcd was last told of the cluster.
fn told(turn: &Turn<'_>) -> ClusterStatus {
    let mine = turn.memory.status.as_ref().map(|(status, _)| status.clone());
    mine.or_else(|| turn.cluster()?.status.clone()).unwrap_or_default()
}
