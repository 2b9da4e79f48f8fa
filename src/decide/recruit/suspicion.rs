//! The suspicion that the leader is dead: no heartbeat arrives, and no WAL.

use std::time::Duration;

use super::super::leadership::Leadership;
use super::super::ledgers::Silence;
use super::super::tick::Tick;
use crate::model::{LeaderHearing, LeaderKey, RecruitKey, RecruitPromise, SqlFacts, Term, WaitingOn};

/// For this long a silent leader's WAL must not advance.
const STILL_FOR: Duration = Duration::from_millis(100);

/// Records what is heard of the leader, and which promise holds.
pub(in crate::decide) fn observe(tick: &mut Tick<'_>, leadership: &Leadership) {
    let leader = leadership.other();
    // A store that went back says nothing about an attempt.
    if tick.memory.store.change.is_none() {
        recall_promise(tick, leader);
        end_promise(tick, leader);
    }
    let term = leader.map(|leader| leader.term);
    if term != tick.memory.recruit.of_term {
        let recruit = &mut tick.memory.recruit;
        (recruit.of_term, recruit.failures, recruit.not_before) = (term, 0, None);
    }
    let is_silent = matches!(tick.seen.hearing, LeaderHearing::Silent { term: of, .. } if Some(of) == term);
    let silence = term.filter(|_| is_silent).map(|term| silence(tick, term));
    tick.memory.recruit.silence = silence;
    tick.memory.recruit.suspects = silence.and_then(|silence| suspects(tick, silence));
}

/// The predecessor of this supervisor may have promised what the first view shows. That view is a linearizable read: an
/// attempt that it does not show never succeeds.
fn recall_promise(tick: &mut Tick<'_>, leader: Option<&LeaderKey>) {
    if tick.memory.recruit.has_looked || tick.cluster().is_none() {
        return;
    }
    let attempt = leader.and_then(|leader| super::attempt_of(tick, leader)).cloned();
    let recruit = &mut tick.memory.recruit;
    recruit.has_looked = true;
    recruit.promise =
        attempt.map(|RecruitKey { candidate, term, attempt }| RecruitPromise { attempt, term, candidate });
}

/// A promise ends with its attempt. Mine has failed if the leader still leads.
fn end_promise(tick: &mut Tick<'_>, leader: Option<&LeaderKey>) {
    if tick.cluster().is_none() || tick.bound_by().is_some() {
        return;
    }
    tick.memory.recruit.promised_at = None;
    let Some(promise) = tick.memory.recruit.promise.take() else { return };
    let still_leads = leader.is_some_and(|leader| leader.term == promise.term);
    if still_leads && promise.candidate == tick.seen.me.name {
        super::pause(tick, promise.attempt);
    }
}

/// The silence, from the moment on at which WAL arrived last.
fn silence(tick: &Tick<'_>, term: Term) -> Silence {
    let received = tick.seen.postgres.answering().map(SqlFacts::lsn).unwrap_or_default();
    let before = tick.memory.recruit.silence.filter(|it| (it.term, it.received) == (term, received));
    before.unwrap_or(Silence { term, since: tick.now, received })
}

fn suspects(tick: &mut Tick<'_>, silence: Silence) -> Option<Term> {
    let at = silence.since + STILL_FOR;
    if tick.now < at {
        tick.wake_at(at, WaitingOn::Leader);
        return None;
    }
    Some(silence.term)
}
