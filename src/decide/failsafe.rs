//! Failsafe mode: a leader that etcd does not answer goes on while all members that could take the leader key promise
//! not to.
//!
//! **Invariants.** Only the members in the key `failsafe` take the leader key, and another member only when all of
//! those are standbys. The leader is one of them, asks at least the others, and adds none to the key while it goes on
//! by promises that a new one was not asked for. Who has promised neither takes the leader key nor is promoted before
//! the promise ends. A promise is in memory only, so a supervisor that was just started keeps those that its
//! predecessor may have made.

use std::time::Duration;

use super::leadership::Leadership;
use super::ledgers::FailsafeWritten;
use super::peers;
use super::tick::Tick;
use crate::model::{
    Action, ClusterView, FailsafeMembers, FailsafePlan, FailsafeQuestion, FailsafeRefusal, MemberName,
    Moment, Promise, Reason, Reply, Term, WaitingOn,
};

/// A write to the key that etcd does not show by then is repeated.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// No lease lasts longer.
const LONGEST_TTL: Duration = Duration::from_secs(24 * 3600);

/// Answers a leader that etcd does not answer.
pub(super) fn reply(tick: &mut Tick<'_>, leadership: &Leadership, question: &FailsafeQuestion) -> Reply {
    if let Some(why) = refusal(tick, leadership, question) {
        return Reply::NotPromised(why);
    }
    let asked = question.ttl_ms.map_or(Duration::ZERO, Duration::from_millis).min(LONGEST_TTL);
    let until = tick.now + asked.max(tick.seen.settings.ttl);
    let longest = tick.memory.failsafe.promise.as_ref().map_or(until, |before| before.until.max(until));
    let FailsafeQuestion { leader, conn_url, slots, .. } = question.clone();
    let since = standing(tick).map_or(tick.now, |before| before.since);
    tick.memory.failsafe.promise = Some(Promise { leader, since, conn_url, until: longest, slots });
    Reply::Promised
}

fn refusal(
    tick: &Tick<'_>,
    leadership: &Leadership,
    FailsafeQuestion { leader, asked, .. }: &FailsafeQuestion,
) -> Option<FailsafeRefusal> {
    let me = &tick.seen.me;
    if let Some((scope, member)) =
        asked.clone().filter(|(scope, member)| (scope, member) != (&me.scope, &me.name))
    {
        return Some(FailsafeRefusal::NotAsked { scope, member });
    }
    if !tick.seen.settings.failsafe_mode {
        return Some(FailsafeRefusal::Off);
    }
    if tick.seen.postgres.may_be_primary() {
        return Some(FailsafeRefusal::Leads);
    }
    if tick.seen.writing.is_some() {
        return Some(FailsafeRefusal::TakesLeadership);
    }
    let another = match leadership {
        Leadership::Mine(_) | Leadership::Expiring(_) | Leadership::Unconfirmed => {
            return Some(FailsafeRefusal::Leads);
        }
        Leadership::Other(key) => Some(&key.name).filter(|name| *name != leader),
        Leadership::FormerSelf(_) | Leadership::Nobody | Leadership::Unknown => None,
    };
    if let Some(leader) = another {
        return Some(FailsafeRefusal::AnotherLeads { leader: leader.clone() });
    }
    let promised = standing(tick).filter(|promise| promise.leader != *leader);
    promised.map(|promise| FailsafeRefusal::PromisedToAnother { leader: promise.leader.clone() })
}

/// The promise that has not ended.
pub(super) fn standing<'t>(tick: &'t Tick<'_>) -> Option<&'t Promise> {
    tick.memory.failsafe.standing(tick.now)
}

/// Whether a promise of mine, or of this supervisor's predecessor, may stand.
pub(super) fn may_last(tick: &Tick<'_>) -> bool {
    let failsafe = &tick.memory.failsafe;
    let ends = |began_at| predecessor_ends(tick, began_at) <= tick.now;
    let is_free = failsafe.is_free || failsafe.began_at.is_some_and(ends);
    tick.seen.settings.failsafe_mode && (standing(tick).is_some() || !is_free)
}

/// When the last promise of a predecessor ends.
fn predecessor_ends(tick: &Tick<'_>, began_at: Moment) -> Moment {
    began_at + tick.seen.settings.ttl.max(tick.memory.store.keys.ttl)
}

/// Why I must not take the leader key, or not yet.
pub(super) fn bars(tick: &mut Tick<'_>) -> Option<Reason> {
    if !may_lead(tick, &tick.seen.me.name) && !named_are_standbys(tick) {
        return Some(Reason::NotInFailsafe);
    }
    let elsewhere = tick.peers.iter().find(|(_, answer)| answer.promised && tick.is_answer_of_now(answer));
    let elsewhere = elsewhere.map(|(name, _)| Reason::PromisedElsewhere { member: name.clone() });
    keeps_promise(tick)
        .or_else(|| elsewhere.inspect(|_| tick.wake_in(Duration::from_secs(1), WaitingOn::Members)))
}

/// Whether the key allows this member to take the leader key.
pub(super) fn may_lead(tick: &Tick<'_>, name: &MemberName) -> bool {
    named(tick).is_none_or(|members| members.contains_key(name))
}

/// The members that the key names; `None` where any member may lead.
fn named<'a>(tick: &Tick<'a>) -> Option<&'a FailsafeMembers> {
    let key = tick.cluster().and_then(|cluster| cluster.failsafe.as_ref());
    key.map(|key| &key.members).filter(|members| !members.is_empty())
}

fn keeps_promise(tick: &mut Tick<'_>) -> Option<Reason> {
    let promise = standing(tick)?;
    let (until, reason) = (promise.until, Reason::Promised { leader: promise.leader.clone() });
    tick.wake_at(until, WaitingOn::Members);
    Some(reason)
}

/// Why I must not be promoted yet, although the leader key is mine: it may have become mine after a promise, by a write
/// that was long under way. A leader that hands over has stopped its PostgreSQL, and needs no promise.
pub(super) fn delays_promotion(tick: &mut Tick<'_>, term: Term) -> Option<Reason> {
    let Some(cluster) = view_of(tick, term) else { return Some(Reason::Confirming) };
    let is_older = cluster.leader_created.is_some_and(|created| created < term.0);
    let is_handed_over = is_older && !tick.memory.failsafe.may_have_taken;
    if is_handed_over { None } else { keeps_promise(tick).or_else(|| may_have_promised(tick)) }
}

/// The view, unless it is older than the term.
fn view_of<'a>(tick: &Tick<'a>, term: Term) -> Option<&'a ClusterView> {
    tick.cluster().filter(|cluster| term.0 <= cluster.revision)
}

/// A promise of this supervisor's predecessor may stand. None does after a TTL, or when all members to which it may
/// have been made have answered that they are standbys.
pub(super) fn may_have_promised(tick: &mut Tick<'_>) -> Option<Reason> {
    let began_at = *tick.memory.failsafe.began_at.get_or_insert(tick.now);
    let until = predecessor_ends(tick, began_at);
    if tick.memory.failsafe.is_free || until <= tick.now || named_are_standbys(tick) {
        tick.memory.failsafe.is_free = true;
        return None;
    }
    tick.wake_at(until, WaitingOn::Members);
    Some(Reason::MayHavePromised)
}

/// Whether all other members that the key names have answered that they are standbys: a leader that goes on without
/// etcd would be one of them, and without the key there is none. Asks them otherwise.
fn named_are_standbys(tick: &mut Tick<'_>) -> bool {
    let others = named(tick).into_iter().flatten().filter(|(name, _)| **name != tick.seen.me.name);
    let others: Vec<(MemberName, String)> = others.map(|(name, url)| (name.clone(), url.clone())).collect();
    // The very name: an answer of another member must not allow me to lead.
    let is_standby = |(name, _): &(MemberName, String)| {
        let answer = tick.peers.get(name).filter(|answer| tick.is_answer_of_now(answer));
        answer.is_some_and(|answer| answer.reachable && answer.in_recovery)
    };
    let all = others.iter().all(is_standby);
    if !all {
        peers::ask_again(tick, others, false);
    }
    all
}

/// Keeps the key true while I lead, and the question to its members.
pub(super) fn advance(tick: &mut Tick<'_>, leadership: &Leadership) {
    tick.memory.failsafe.began_at.get_or_insert(tick.now);
    tick.memory.failsafe.promise.take_if(|promise| promise.until <= tick.now);
    forget_written(tick);
    let plan = leadership.held_term().map(|term| plan(tick, term)).unwrap_or_default();
    let is_in_force = tick.memory.failsafe.plan.members == plan.members;
    if tick.memory.failsafe.plan != plan {
        tick.memory.failsafe.plan = plan.clone();
        tick.act(Action::PlanFailsafe(plan));
    }
    if let Some(term) = leadership.mine().filter(|term| view_of(tick, *term).is_some()) {
        publish(tick, term, is_in_force);
    }
}

/// A write over an earlier state of the key can do nothing any more.
fn forget_written(tick: &mut Tick<'_>) {
    let revision = revision(tick);
    tick.memory.failsafe.written.take_if(|written| written.over != revision);
}

/// The key's revision; zero: it is absent.
pub(super) fn revision(tick: &Tick<'_>) -> i64 {
    tick.cluster().and_then(|cluster| cluster.failsafe.as_ref()).map_or(0, |key| key.mod_revision)
}

/// Promises count only where the key, as etcd showed it in this term, names me, and no write can delete it any more.
/// Asked is whoever may be in it by now.
fn plan(tick: &Tick<'_>, term: Term) -> FailsafePlan {
    let me = &tick.seen.me.name;
    let is_on = tick.seen.settings.failsafe_mode && view_of(tick, term).is_some();
    let named = named(tick).filter(|members| is_on && members.contains_key(me));
    let written = tick.memory.failsafe.written.as_ref();
    let Some(named) = named.filter(|_| written.is_none_or(|written| !written.deletes)) else {
        return FailsafePlan::default();
    };
    let mut members = named.clone();
    members.extend(written.iter().flat_map(|written| written.members.clone()));
    members.extend(wanted(tick));
    members.remove(me);
    let slots = tick.memory.status.as_ref().and_then(|(status, _)| status.slots.clone()).unwrap_or_default();
    FailsafePlan { members: Some(members), slots }
}

/// The value of the key: all members that can be asked. Without the mode it is absent.
fn wanted(tick: &Tick<'_>) -> FailsafeMembers {
    if !tick.seen.settings.failsafe_mode {
        return FailsafeMembers::new();
    }
    let me = &tick.seen.me;
    let others = tick.others().filter_map(|(name, key)| Some((name.clone(), key.record.api_url.clone()?)));
    others.chain([(me.name.clone(), me.api_url.clone())]).collect()
}

/// Writes the key where etcd shows another value, or where an earlier write may still bring one. A member that is added
/// may take the leader key from then on, so it is among those that are asked before, and no promise stands that it was
/// not asked for.
fn publish(tick: &mut Tick<'_>, term: Term, is_in_force: bool) {
    let wanted = wanted(tick);
    let written = tick.memory.failsafe.written.clone();
    let shown = named(tick).cloned().unwrap_or_default();
    if shown == wanted && (written.is_none() || wanted.is_empty()) {
        return;
    }
    let again_at = written.as_ref().map(|written| written.at + AGAIN_AFTER);
    let earliest = again_at.max(tick.seen.lease.promised_until).filter(|at| tick.now < *at);
    if let Some(at) = earliest {
        tick.wake_at(at, WaitingOn::Retry);
        return;
    }
    if !is_in_force {
        tick.wake_at(tick.now, WaitingOn::Retry);
        return;
    }
    let before = written.unwrap_or_default();
    let over = revision(tick);
    tick.memory.failsafe.written = Some(FailsafeWritten {
        over,
        deletes: before.deletes || wanted.is_empty(),
        members: before.members.into_iter().chain(wanted.clone()).collect(),
        at: tick.now,
    });
    tick.act(Action::PublishFailsafe { term, members: wanted, mod_revision: over });
}
