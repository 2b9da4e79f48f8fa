//! Failover of an unhealthy primary, and of a promotion that makes no progress.

use std::time::Duration;

use super::demote;
use super::ledgers::PromotionSeen;
use super::race::{self, Candidates};
use super::tick::Tick;
use crate::model::{Action, Death, PeerAnswer, Reason, Standby, Term, Unfit, WaitingOn};

/// How soon to look again at a Postgres that is dead and goes on because nobody else can lead.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How soon to look again at a promotion.
const LOOK_AT_PROMOTION: Duration = Duration::from_millis(500);

/// What becomes of a Postgres that is dead.
pub(super) enum HealthVerdict {
    /// It is being stopped, or this is not known yet.
    Because(Reason),
    /// It goes on: nobody else can lead, and a restart would not mend it.
    KeptServing {
        /// In which I lead.
        term: Term,
        /// Why, if nothing else is to be said.
        because: Reason,
    },
}

/// Stops a dead Postgres to the last process; what comes after that is [`give_away`]'s. Never is the key given away
/// before none is left.
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

/// Who could lead in my place. Where a restart mends nothing, also members that are registered in etcd and do not
/// answer me: they may be well, and the network between us is not.
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

/// The lease may be renewed all the same, for as long as this loop says so.
fn keep_serving(tick: &mut Tick<'_>, death: &Death, term: Term) -> HealthVerdict {
    tick.memory.kept_serving = true;
    tick.act(Action::SuspendLivenessCheck { until: tick.now + tick.seen.settings.ttl / 2 });
    tick.wake_in(LOOK_AGAIN.min(tick.seen.settings.ttl / 4), WaitingOn::Postgres);
    HealthVerdict::KeptServing { term, because: Reason::Unfit(Unfit::DeadAndAlone(death.clone())) }
}

/// A PostgreSQL that was stopped as unhealthy is down: the key goes to whoever can lead; `None` when nobody can, and it
/// is started again.
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

/// A promotion is under way. Replay that goes on may take as long as it takes; where nothing was replayed for one TTL
/// (a `restore_command` that hangs, a replay that waits) and another member can lead, the promotion is given up.
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

/// How far replay has come, and since when; `None` once it is over.
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
