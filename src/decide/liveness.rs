//! Failover of an unhealthy primary, and of a promotion that makes no progress.

use std::time::Duration;

use super::demote;
use super::ledgers::PromotionSeen;
use super::race::{self, Candidates};
use super::turn::Turn;
use crate::model::{Action, Death, PeerAnswer, Reason, Standby, Term, Unfit, WaitingOn};

/// How soon to look again at a Postgres that is dead and goes on because nobody else can lead.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How soon to look again at a promotion.
const LOOK_AT_PROMOTION: Duration = Duration::from_millis(500);

/// What becomes of a Postgres that is dead.
pub(super) enum Sentence {
    /// It is being stopped, or this is not known yet.
    Because(Reason),
    /// It goes on: nobody else can lead, and a restart would not mend it.
    Spared {
        /// In which I lead.
        term: Term,
        /// Why, if nothing else is to be said.
        because: Reason,
    },
}

/// Stops a dead Postgres to the last process; what comes after that is [`give_away`]'s. Never is the key given away
/// before none is left.
pub(super) fn condemn(turn: &mut Turn<'_>, death: &Death, leads: Option<Term>) -> Sentence {
    let because = Unfit::Dead(death.clone());
    if let Some(term) = leads {
        let candidates = successors(turn, death);
        if !death.may_be_mended_by_a_restart() {
            match candidates {
                Candidates::Asking if !turn.memory.spared => return Sentence::Because(Reason::AskingMembers),
                Candidates::Asking | Candidates::None => return spare(turn, death, term),
                Candidates::Some => {}
            }
        }
        turn.memory.condemned = Some(because.clone());
    }
    demote::stop_now(turn);
    Sentence::Because(Reason::Unfit(because))
}

/// Who could lead in my place. Where a restart mends nothing, also members that are registered in etcd and do not
/// answer me: they may be well, and the network between us is not.
fn successors(turn: &mut Turn<'_>, death: &Death) -> Candidates {
    let candidates = race::candidates(turn);
    let may_be_silent = candidates == Candidates::None
        && turn.writes_refused().is_none()
        && !death.may_be_mended_by_a_restart();
    if may_be_silent && has_silent_member(turn) { Candidates::Some } else { candidates }
}

fn has_silent_member(turn: &Turn<'_>) -> bool {
    let away = |answer: &PeerAnswer| !answer.reachable;
    let mut registered = turn.others().filter(|(_, key)| !key.record.tags.nofailover());
    registered.any(|(name, _)| turn.peers.get(name).is_some_and(away))
}

/// The lease may be renewed all the same, for as long as this loop says so.
fn spare(turn: &mut Turn<'_>, death: &Death, term: Term) -> Sentence {
    turn.memory.spared = true;
    turn.act(Action::PardonPostgres { until: turn.now + turn.seen.settings.ttl / 2 });
    turn.wake_in(LOOK_AGAIN.min(turn.seen.settings.ttl / 4), WaitingOn::Postgres);
    Sentence::Spared { term, because: Reason::Unfit(Unfit::DeadAndAlone(death.clone())) }
}

/// A condemned Postgres is down: the key goes to whoever can lead; `None` when nobody can, and it is started again.
pub(super) fn give_away(turn: &mut Turn<'_>, term: Term) -> Option<Reason> {
    let because = turn.memory.condemned.clone()?;
    match candidates_after(turn, &because) {
        Candidates::Asking => Some(Reason::AskingMembers),
        Candidates::Some => Some(demote::release(turn, term, Reason::Unfit(because))),
        Candidates::None => {
            turn.memory.condemned = None;
            None
        }
    }
}

fn candidates_after(turn: &mut Turn<'_>, unfit: &Unfit) -> Candidates {
    match unfit {
        Unfit::Dead(death) | Unfit::DeadAndAlone(death) => successors(turn, death),
        Unfit::TurnsAway | Unfit::PromotionStuck => race::candidates(turn),
    }
}

/// A promotion is under way. Replay that goes on may take as long as it takes; where nothing was replayed for one TTL
/// (a `restore_command` that hangs, a replay that waits) and another member can lead, the promotion is given up.
pub(super) fn watch_promotion(turn: &mut Turn<'_>) -> Option<Reason> {
    let seen = replay_seen(turn)?;
    turn.memory.promotion = Some(seen);
    turn.wake_in(LOOK_AT_PROMOTION, WaitingOn::Postgres);
    if turn.now < seen.since + turn.seen.settings.ttl || race::candidates(turn) != Candidates::Some {
        return None;
    }
    turn.memory.condemned = Some(Unfit::PromotionStuck);
    turn.act(Action::CancelJob);
    Some(Reason::Unfit(Unfit::PromotionStuck))
}

/// How far replay has come, and since when; `None` once it is over.
fn replay_seen(turn: &Turn<'_>) -> Option<PromotionSeen> {
    let before = turn.memory.promotion;
    let replayed = match turn.seen.postgres.answering().map(|sql| &sql.standby) {
        Some(Standby::Yes { replayed, .. }) => *replayed,
        Some(Standby::No) => return None,
        None => before.map(|seen| seen.replayed).unwrap_or_default(),
    };
    let stands_still = before.filter(|seen| replayed <= seen.replayed);
    Some(stands_still.unwrap_or(PromotionSeen { replayed, since: turn.now }))
}
