//! The candidate's side: begin an attempt, gather promises, depose the leader.

use std::time::Duration;

use super::super::position::{Position, comparable};
use super::super::tick::Tick;
use super::super::{failsafe, peers, take, unfenced};
use super::write;
use crate::model::{
    Deposal, LeaderKey, MemberName, PeerAnswer, Reason, RecruitPromise, RecruitReason, RecruitWrite,
    SqlFacts, Suspicion, SyncRecord, WaitingOn,
};

/// The pause between questions while promises are gathered.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// A suspicion that has led to nothing for this long is asked about seldom.
const EAGER_FOR: Duration = Duration::from_secs(2);
/// A leader that works answers within this time, and so does a member that hears it.
const ANSWERS_WITHIN: Duration = Duration::from_millis(250);
/// The pause between questions about such a suspicion.
const ASK_SELDOM: Duration = Duration::from_secs(2);

/// Begins an attempt, if no member hears the leader and I am the one to replace it. `None`: not, or not yet.
pub(super) fn begin(
    tick: &mut Tick<'_>,
    leader: &LeaderKey,
    record: &SyncRecord,
    sql: &SqlFacts,
) -> Option<Reason> {
    if !is_fit(tick, record) {
        return None;
    }
    ask(tick);
    if !is_unheard(tick, leader, record) || is_behind(tick, record, (sql.timeline, sql.lsn())) {
        return None;
    }
    let (sync, term) = (tick.sync_revision(), leader.term);
    let over = tick.cluster().and_then(|cluster| cluster.recruit.as_ref()).map_or(0, |key| key.attempt);
    write(tick, RecruitWrite::Begin { term, sync, over });
    Some(Reason::Recruit(RecruitReason::Begins { leader: leader.name.clone() }))
}

fn is_fit(tick: &mut Tick<'_>, record: &SyncRecord) -> bool {
    if let Some(at) = tick.memory.recruit.not_before.filter(|at| tick.now < *at) {
        tick.wake_at(at, WaitingOn::Retry);
        return false;
    }
    let is_hindered = [
        tick.seen.own_fault().is_some(),
        tick.writes_refused().is_some(),
        tick.memory.yields(tick.now),
        !record.is_voter(&tick.seen.me.name),
    ]
    .contains(&true);
    !is_hindered && tick.has_lease() && may_take(tick)
}

/// What bars me from the leader key bars me from recruiting.
fn may_take(tick: &mut Tick<'_>) -> bool {
    unfenced::bars(tick, None).is_none()
        && failsafe::bars(tick).is_none()
        && failsafe::may_have_promised(tick).is_none()
}

/// Asks all other members, the leader among them: it may be alive, and only its heartbeats be lost.
fn ask(tick: &mut Tick<'_>) {
    let since = tick.memory.recruit.silence.as_ref().map_or(tick.now, |silence| silence.since);
    let pause = if tick.now < since + EAGER_FOR { ASK_EVERY } else { ASK_SELDOM };
    let others = tick.others().filter_map(|(name, key)| Some((name.clone(), key.record.api_url.clone()?)));
    let others: Vec<(MemberName, String)> = others.collect();
    peers::ask_every(tick, others, pause);
}

/// Whether enough voters suspect the leader as I do, and another member where there is one. No member hears it or is
/// it: all have answered, or had the time to.
fn is_unheard(tick: &Tick<'_>, leader: &LeaderKey, record: &SyncRecord) -> bool {
    let Some(silence) = tick.memory.recruit.silence else { return false };
    let answered = |name: &MemberName| tick.answer_of(name).filter(|answer| silence.since <= answer.asked_at);
    let all_answered = tick.others().all(|(name, _)| answered(name).is_some());
    if is_heard(tick, leader) || !(all_answered || silence.since + ANSWERS_WITHIN <= tick.now) {
        return false;
    }
    let suspects = |name: &&MemberName| {
        let said = answered(name).filter(|answer| answer.reachable).map(|answer| answer.suspicion);
        said == Some(Suspicion::Suspects(leader.term))
    };
    let mut others = tick.others().map(|(name, _)| name).filter(|name| **name != leader.name);
    let voters = other_voters(tick, record).filter(suspects).count();
    record.quorum <= voters && (is_alone(tick, leader) || others.any(|name| suspects(&name)))
}

/// Whether nobody else can say which of us two is cut off.
fn is_alone(tick: &Tick<'_>, leader: &LeaderKey) -> bool {
    !super::has_witness(tick, [&tick.seen.me.name, &leader.name])
}

/// Whether a member says so that hears the leader, or that is the leader.
fn is_heard(tick: &Tick<'_>, leader: &LeaderKey) -> bool {
    let Some(silence) = tick.memory.recruit.silence else { return false };
    let present = |(_, answer): &(_, &PeerAnswer)| answer.reachable && silence.since <= answer.asked_at;
    let hears = |(name, answer): (&MemberName, &PeerAnswer)| {
        *name == leader.name || answer.suspicion == Suspicion::Hears(leader.term)
    };
    tick.peers.iter().filter(present).any(hears)
}

/// The voters besides me, each once however its name is spelled.
fn other_voters<'a>(tick: &'a Tick<'_>, record: &'a SyncRecord) -> impl Iterator<Item = &'a MemberName> {
    record.voters.iter().filter(|name| !name.is_same(&tick.seen.me.name))
}

/// Whether a voter goes first: it is ahead, or as far as I am and has priority. One that is ahead and may not lead
/// keeps me from replacing the leader: its promise would not count for me.
fn is_behind(tick: &Tick<'_>, record: &SyncRecord, mine: Position) -> bool {
    let priority = tick.seen.me.tags.failover_priority();
    let goes_first = |answer: &PeerAnswer| {
        let theirs = comparable((answer.timeline, answer.lsn));
        let may_lead = answer.eligible_standby().is_ok() && !answer.yields;
        let has_priority = may_lead && priority < answer.tags.failover_priority();
        comparable(mine) < theirs || (comparable(mine) == theirs && has_priority)
    };
    let answers = other_voters(tick, record).filter_map(|name| tick.answer_of(name));
    answers.filter(|answer| answer.reachable).any(goes_first)
}

/// The attempt is mine: deposes the leader when enough standbys have promised.
pub(super) fn gather(
    tick: &mut Tick<'_>,
    leader: &LeaderKey,
    sql: &SqlFacts,
    promise: &RecruitPromise,
) -> Reason {
    let name = leader.name.clone();
    if tick.seen.writing.is_some() {
        return Reason::Recruit(RecruitReason::Deposes { leader: name });
    }
    ask(tick);
    if is_heard(tick, leader) {
        return super::withdraw(tick, leader, promise.attempt);
    }
    let enough = sql.is_detached && sql.is_exact() && has_enough(tick, leader, sql, promise.attempt);
    if !enough || may_object(tick, leader) || !tick.has_lease() || !may_take(tick) {
        return Reason::Recruit(RecruitReason::Gathers { leader: name });
    }
    let deposes = Deposal { term: leader.term, attempt: promise.attempt };
    take::depose(tick, deposes, Reason::Recruit(RecruitReason::Deposes { leader: name }))
}

/// A leader that etcd reaches withdraws the attempt of the only other member, and has the time for it.
fn may_object(tick: &mut Tick<'_>, leader: &LeaderKey) -> bool {
    let until = tick.memory.recruit.promised_at.unwrap_or(tick.now) + ANSWERS_WITHIN;
    let waits = is_alone(tick, leader) && tick.now < until;
    if waits {
        tick.wake_at(until, WaitingOn::Leader);
    }
    waits
}

/// Whether I and the standbys that have promised include one with every acknowledged commit, and none of them is ahead
/// of me.
fn has_enough(tick: &Tick<'_>, leader: &LeaderKey, sql: &SqlFacts, attempt: i64) -> bool {
    let Some(record) = super::record(tick, leader) else { return false };
    let mine = comparable((sql.timeline, sql.lsn()));
    let promised = |answer: &&PeerAnswer| answer.reachable && answer.recruited == Some(attempt);
    let is_still = |answer: &&PeerAnswer| answer.exact && !answer.receives && answer.lsn.is_known();
    let no_further =
        |answer: &&PeerAnswer| answer.timeline.is_some() && comparable((answer.timeline, answer.lsn)) <= mine;
    let answers = other_voters(tick, record).filter_map(|name| tick.answer_of(name));
    let others = answers.filter(promised).filter(is_still).filter(no_further).count();
    record.is_voter(&tick.seen.me.name) && record.quorum <= others
}
