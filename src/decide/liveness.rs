//! Failover of an unhealthy primary, and of a promotion that makes no progress.

use std::time::Duration;

use super::demote;
use super::ledgers::PromotionSeen;
use super::race::{self, Candidates};
use super::tick::Tick;
use crate::model::{Action, Death, PeerAnswer, Reason, Standby, Term, Unfit, WaitingOn};

/// The interval between checks of a dead Postgres that keeps serving because no other member can lead.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The interval between checks of a promotion.
const LOOK_AT_PROMOTION: Duration = Duration::from_millis(500);

/// The decision about a dead Postgres.
pub(super) enum HealthVerdict {
    /// It is being stopped, or the decision is not made yet.
    Because(Reason),
    /// It keeps serving: no other member can lead, and a restart would not repair it.
    KeptServing {
        /// The term in which I lead.
        term: Term,
        /// The reason, where the tick has no other.
        because: Reason,
    },
}

/// Stops all processes of a dead Postgres; [`give_away`] does the rest. The key is never given away before the last
/// process is gone.
pub(super) fn fail_over_unhealthy(tick: &mut Tick<'_>, death: &Death, leads: Option<Term>) -> HealthVerdict {
    let because = Unfit::Dead(death.clone());
    if let Some(term) = leads {
        let candidates = successors(tick, death);
        if !death.may_be_mended_by_a_restart() {
            match candidates {
                Candidates::Asking if !tick.memory.kept_serving => {
                    return HealthVerdict::Because(Reason::AskingMembers);
                }
                Candidates::Asking | Candidates::None => return keep_serving(tick, death, term),
                Candidates::Some => {}
            }
        }
        tick.memory.unhealthy = Some(because.clone());
    }
    demote::stop_now(tick);
    HealthVerdict::Because(Reason::Unfit(because))
}

/// The members that could lead in my place. Where a restart repairs nothing, registered members that do not answer me
/// count, too: they may be healthy, and only the network between us may be down.
fn successors(tick: &mut Tick<'_>, death: &Death) -> Candidates {
    let candidates = race::candidates(tick);
    let may_be_silent = candidates == Candidates::None
        && tick.writes_refused().is_none()
        && !death.may_be_mended_by_a_restart();
    if may_be_silent && has_silent_member(tick) { Candidates::Some } else { candidates }
}

fn has_silent_member(tick: &Tick<'_>) -> bool {
    let away = |answer: &PeerAnswer| !answer.reachable;
    let mut registered = tick.others().filter(|(_, key)| !key.record.tags.nofailover());
    registered.any(|(name, _)| tick.peers.get(name).is_some_and(away))
}

/// Allows renewals of the lease all the same, for as long as this loop repeats it.
fn keep_serving(tick: &mut Tick<'_>, death: &Death, term: Term) -> HealthVerdict {
    tick.memory.kept_serving = true;
    tick.act(Action::SuspendLivenessCheck { until: tick.now + tick.seen.settings.ttl / 2 });
    tick.wake_in(LOOK_AGAIN.min(tick.seen.settings.ttl / 4), WaitingOn::Postgres);
    HealthVerdict::KeptServing { term, because: Reason::Unfit(Unfit::DeadAndAlone(death.clone())) }
}

/// A PostgreSQL that was stopped as unhealthy is down: the key goes to a member that can lead. `None` when there is
/// none; then this PostgreSQL is started again.
pub(super) fn give_away(tick: &mut Tick<'_>, term: Term) -> Option<Reason> {
    let because = tick.memory.unhealthy.clone()?;
    match candidates_after(tick, &because) {
        Candidates::Asking => Some(Reason::AskingMembers),
        Candidates::Some => Some(demote::release(tick, term, Reason::Unfit(because))),
        Candidates::None => {
            tick.memory.unhealthy = None;
            None
        }
    }
}

fn candidates_after(tick: &mut Tick<'_>, unfit: &Unfit) -> Candidates {
    match unfit {
        Unfit::Dead(death) | Unfit::DeadAndAlone(death) => successors(tick, death),
        Unfit::TurnsAway | Unfit::PromotionStuck => race::candidates(tick),
    }
}

/// Watches a promotion. Replay that advances may take any time. If replay stands still for one TTL (a `restore_command`
/// that hangs, a replay that waits) and another member can lead, the promotion is cancelled.
pub(super) fn watch_promotion(tick: &mut Tick<'_>) -> Option<Reason> {
    let seen = replay_seen(tick)?;
    tick.memory.promotion = Some(seen);
    tick.wake_in(LOOK_AT_PROMOTION, WaitingOn::Postgres);
    if tick.now < seen.since + tick.seen.settings.ttl || race::candidates(tick) != Candidates::Some {
        return None;
    }
    tick.memory.unhealthy = Some(Unfit::PromotionStuck);
    tick.act(Action::CancelJob);
    Some(Reason::Unfit(Unfit::PromotionStuck))
}

/// The replayed position, and since when it stands still; `None` once replay is over.
fn replay_seen(tick: &Tick<'_>) -> Option<PromotionSeen> {
    let before = tick.memory.promotion;
    let replayed = match tick.seen.postgres.answering().map(|sql| &sql.standby) {
        Some(Standby::Yes { replayed, .. }) => *replayed,
        Some(Standby::No) => return None,
        None => before.map(|seen| seen.replayed).unwrap_or_default(),
    };
    let stands_still = before.filter(|seen| replayed <= seen.replayed);
    Some(stands_still.unwrap_or(PromotionSeen { replayed, since: tick.now }))
}
