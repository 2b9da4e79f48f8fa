//! Failsafe mode: a leader that etcd does not answer goes on while all members that could take the leader key promise
//! not to.
//!
//! **Invariants.** Only the members in the key `failsafe` take the leader key. The leader asks at least those, and adds
//! none to the key while it goes on by promises that a new one was not asked for. Who has promised neither takes the
//! leader key nor is promoted before the promise ends. A promise is in memory only, so a supervisor that was just
//! started keeps those that its predecessor may have made.

use std::time::Duration;

use super::leadership::Leadership;
use super::tick::Tick;
use crate::model::{
    Action, FailsafeMembers, FailsafePlan, FailsafeQuestion, FailsafeRefusal, MemberName, Promise, Reason,
    Reply, Term, WaitingOn,
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
    let slots = question.slots.clone();
    tick.memory.failsafe.promise = Some(Promise { leader: question.leader.clone(), until: longest, slots });
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
    tick.memory.failsafe.promise.as_ref().filter(|promise| tick.now < promise.until)
}

/// Why I must not take the leader key, or not yet.
pub(super) fn bars(tick: &mut Tick<'_>) -> Option<Reason> {
    let key = tick.cluster().and_then(|cluster| cluster.failsafe.as_ref());
    if key.is_some_and(|key| !key.members.is_empty() && !key.members.contains_key(&tick.seen.me.name)) {
        return Some(Reason::NotInFailsafe);
    }
    keeps_promise(tick)
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
    let created = tick.cluster().and_then(|cluster| cluster.leader_created);
    let is_handed_over = created.is_some_and(|created| created < term.0);
    if is_handed_over { None } else { keeps_promise(tick).or_else(|| may_have_promised(tick)) }
}

/// A promise of this supervisor's predecessor may stand. None does after a TTL, or when all members to which it may
/// have been made have answered that they are standbys.
pub(super) fn may_have_promised(tick: &mut Tick<'_>) -> Option<Reason> {
    let began_at = *tick.memory.failsafe.began_at.get_or_insert(tick.now);
    let key = tick.cluster()?.failsafe.as_ref();
    // Without the key no leader counts on promises.
    let Some(key) = key.filter(|key| !key.members.is_empty()) else {
        tick.memory.failsafe.is_free = true;
        return None;
    };
    let until = began_at + tick.seen.settings.ttl.max(tick.memory.store.keys.ttl);
    let mut others = key.members.keys().filter(|name| **name != tick.seen.me.name);
    let is_standby =
        |name: &MemberName| tick.answer_of(name).is_some_and(|answer| answer.reachable && answer.in_recovery);
    if tick.memory.failsafe.is_free || until <= tick.now || others.all(is_standby) {
        tick.memory.failsafe.is_free = true;
        return None;
    }
    tick.wake_at(until, WaitingOn::Members);
    Some(Reason::MayHavePromised)
}

/// Keeps the key true while I lead, and the question to its members.
pub(super) fn advance(tick: &mut Tick<'_>, leadership: &Leadership) {
    tick.memory.failsafe.began_at.get_or_insert(tick.now);
    tick.memory.failsafe.promise.take_if(|promise| promise.until <= tick.now);
    let plan = leadership.held_term().map(|_| plan(tick)).unwrap_or_default();
    let is_in_force = tick.memory.failsafe.plan == plan;
    if !is_in_force {
        tick.memory.failsafe.plan = plan.clone();
        tick.act(Action::PlanFailsafe(plan));
    }
    if let Some(term) = leadership.mine() {
        publish(tick, term, is_in_force);
    }
}

/// Promises count only where the key, as etcd showed it, names me. Asked is whoever may be in it by now.
fn plan(tick: &Tick<'_>) -> FailsafePlan {
    let me = &tick.seen.me.name;
    let key = tick.cluster().and_then(|cluster| cluster.failsafe.as_ref());
    let Some(key) = key.filter(|key| tick.seen.settings.failsafe_mode && key.members.contains_key(me)) else {
        return FailsafePlan::default();
    };
    let mut members = key.members.clone();
    members.extend(tick.memory.failsafe.written.iter().flat_map(|(written, _)| written.clone()));
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

/// Writes the key where etcd shows another value. A member that is added may take the leader key from then on, so it is
/// among those that are asked before, and no promise stands that it was not asked for.
fn publish(tick: &mut Tick<'_>, term: Term, is_in_force: bool) {
    let wanted = wanted(tick);
    let shown = tick.cluster().and_then(|cluster| cluster.failsafe.as_ref()).map(|key| &key.members);
    if shown.cloned().unwrap_or_default() == wanted {
        tick.memory.failsafe.written = None;
        return;
    }
    let again_at = tick.memory.failsafe.written.as_ref().map(|(_, at)| *at + AGAIN_AFTER);
    let earliest = again_at.max(tick.seen.lease.promised_until).filter(|at| tick.now < *at);
    if let Some(at) = earliest {
        tick.wake_at(at, WaitingOn::Retry);
        return;
    }
    if !is_in_force {
        tick.wake_at(tick.now, WaitingOn::Retry);
        return;
    }
    tick.memory.failsafe.written = Some((wanted.clone(), tick.now));
    tick.act(Action::PublishFailsafe { term, members: wanted });
}
