//! Recruiting: a leader that no member hears is replaced before its lease ends, in the synchronous modes.
//!
//! ```text
//!  no heartbeat, no WAL ─► suspicion ─► ask all members ─► key `recruit` (an attempt) ─► promises ─► deposal
//!                                                                   └─► withdrawn: all follow the leader again
//! ```
//!
//! **Invariants.** The key `sync` makes a promise: among any `quorum + 1` of its members at least one has every
//! acknowledged commit ([`super::sync`]). So as many standbys that receive nothing more hold everything that was ever
//! acknowledged, and nothing more can be, whatever the old leader, its clock and its guard do. A standby that has
//! promised receives nothing from the old leader for as long as the attempt may succeed, through any restart: a
//! supervisor that starts takes an attempt that etcd shows for one that it has promised, and an attempt that is not in
//! the key any more never succeeds. The deposal compares the leader key, the attempt, and the revision of `sync` by
//! which the promises were counted.
//!
//! Wherever one of these is not certain, nothing is done and the lease decides, as without recruiting.

mod attempt;
mod seclusion;
mod suspicion;

use std::time::Duration;

pub(super) use self::suspicion::observe;
use super::tick::Tick;
use super::{attach, peers};
use crate::model::{
    Action, FailoverBy, LeaderHearing, LeaderKey, MemberName, Reason, RecruitKey, RecruitPromise,
    RecruitReason, RecruitWrite, SqlFacts, SyncRecord, WaitingOn,
};

/// An attempt that lasts longer is withdrawn by any member that has promised, because its candidate may be frozen.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(3);
/// Half the pause after the first attempt that failed; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// PostgreSQL leaves its source within about this time.
const LOOK_SOON: Duration = Duration::from_millis(10);
/// A write to the key that etcd does not show by then is repeated.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Another member leads, and my Postgres is its standby. `None`: it follows, as without recruiting.
pub(super) fn under_leader(tick: &mut Tick<'_>, leader: &LeaderKey, sql: &SqlFacts) -> Option<Reason> {
    if let Some(promise) = tick.bound_by().cloned() {
        return Some(bound(tick, leader, sql, &promise));
    }
    let attempt = attempt_of(tick, leader);
    let suspects = tick.memory.recruit.suspects == Some(leader.term);
    let Some(record) = record(tick, leader).filter(|_| suspects && is_allowed(tick)) else {
        withdraw_mine(tick, attempt);
        return None;
    };
    match attempt {
        Some(key) if record.is_voter(&tick.seen.me.name) => Some(promise(tick, leader, key)),
        Some(_) => None,
        None => attempt::begin(tick, leader, record, sql),
    }
}

/// I lead, and my Postgres serves. `Some`: clients are locked out.
pub(super) fn on_leader(tick: &mut Tick<'_>, sql: &SqlFacts) -> Option<Reason> {
    object(tick);
    seclusion::watch(tick, sql)
}

/// Withdraws an attempt that no third member has witnessed: it may be its candidate that is cut off, and etcd reaches
/// me.
fn object(tick: &mut Tick<'_>) {
    let key = tick.cluster().and_then(|cluster| attempt_of(tick, cluster.leader.as_ref()?));
    let alone = key.filter(|key| !has_witness(tick, [&tick.seen.me.name, &key.candidate]));
    if let Some(attempt) = alone.map(|key| key.attempt) {
        write(tick, RecruitWrite::Withdraw { attempt });
    }
}

/// Whether there is a member besides leader and candidate.
fn has_witness(tick: &Tick<'_>, besides: [&MemberName; 2]) -> bool {
    tick.others().any(|(name, _)| !besides.contains(&name))
}

/// Whether members recruit here, and this one can take part.
fn is_allowed(tick: &Tick<'_>) -> bool {
    is_wanted(tick) && !tick.in_standby_cluster() && !is_busy(tick)
}

/// Whether members recruit here.
fn is_wanted(tick: &Tick<'_>) -> bool {
    let settings = &tick.seen.settings;
    settings.failover == FailoverBy::Recruit && !settings.pause
}

/// A member that is busy takes no part, nor does one that has promised the leader to let it lead.
fn is_busy(tick: &Tick<'_>) -> bool {
    let memory = &tick.memory;
    let request = tick.cluster().and_then(|cluster| cluster.failover.as_ref()).map(|key| &key.request);
    [
        memory.restart.is_some(),
        memory.reinitialize.is_some(),
        memory.failsafe.standing(tick.now).is_some(),
        tick.seen.writing.is_some(),
        tick.ends(),
        // An operator has asked for another leader: the leader hands over, or its lease ends.
        request.is_some_and(|request| request.scheduled_at.is_none()),
    ]
    .contains(&true)
}

/// The key `sync` of this leader, by which promises count.
fn record<'a>(tick: &Tick<'a>, leader: &LeaderKey) -> Option<&'a SyncRecord> {
    super::sync::vouching(tick).filter(|record| record.is_leader(&leader.name) && !record.voters.is_empty())
}

/// The attempt to replace this very leader.
fn attempt_of<'a>(tick: &Tick<'a>, leader: &LeaderKey) -> Option<&'a RecruitKey> {
    tick.cluster().and_then(|cluster| cluster.recruit.as_ref()).filter(|key| key.term == leader.term)
}

/// Promises to receive nothing more from the leader while the attempt may succeed.
fn promise(tick: &mut Tick<'_>, leader: &LeaderKey, key: &RecruitKey) -> Reason {
    let RecruitKey { candidate, term, attempt } = key.clone();
    let promise = RecruitPromise { attempt, term, candidate: candidate.clone() };
    let recruit = &mut tick.memory.recruit;
    (recruit.promise, recruit.promised_at) = (Some(promise), Some(tick.now));
    recruit.deposal_failed = false;
    attach::let_go(tick);
    // PostgreSQL announces nothing when it has left.
    tick.wake_in(LOOK_SOON, WaitingOn::Postgres);
    Reason::Recruit(RecruitReason::Promised { leader: leader.name.clone(), candidate })
}

/// I have promised.
fn bound(tick: &mut Tick<'_>, leader: &LeaderKey, sql: &SqlFacts, promise: &RecruitPromise) -> Reason {
    // The names that my promotion needs: it may come next.
    super::sync::keep_names(tick);
    attach::let_go(tick);
    if is_over(tick, leader) {
        return withdraw(tick, leader, promise.attempt);
    }
    let candidate = promise.candidate.clone();
    match candidate == tick.seen.me.name {
        true => attempt::gather(tick, leader, sql, promise),
        false => Reason::Recruit(RecruitReason::Promised { leader: leader.name.clone(), candidate }),
    }
}

/// Whether the attempt has failed, as far as I can tell. A deposal that is under way decides by itself.
fn is_over(tick: &mut Tick<'_>, leader: &LeaderKey) -> bool {
    if tick.seen.writing.is_some() {
        return false;
    }
    let until = *tick.memory.recruit.promised_at.get_or_insert(tick.now) + ATTEMPT_WITHIN;
    tick.wake_at(until, WaitingOn::Members);
    let is_heard = tick.seen.hearing == LeaderHearing::Heard { term: leader.term };
    [until <= tick.now, is_heard, tick.memory.recruit.deposal_failed, !is_allowed(tick)].contains(&true)
}

/// Ends the attempt, so that all follow the leader again. It may have succeeded meanwhile: etcd decides.
fn withdraw(tick: &mut Tick<'_>, leader: &LeaderKey, attempt: i64) -> Reason {
    write(tick, RecruitWrite::Withdraw { attempt });
    pause(tick, attempt);
    Reason::Recruit(RecruitReason::Withdraws { leader: leader.name.clone() })
}

/// Never acts twice on one suspicion without a pause, which is longer each time.
fn pause(tick: &mut Tick<'_>, attempt: i64) {
    let recruit = &mut tick.memory.recruit;
    if recruit.failed_attempt == Some(attempt) {
        return;
    }
    recruit.failures += 1;
    recruit.failed_attempt = Some(attempt);
    let longest = FIRST_PAUSE * 2u32.pow(recruit.failures.min(5));
    recruit.not_before = Some(tick.now + peers::varied(longest, &tick.seen.me.name, recruit.failures));
}

/// An attempt of mine that I do not pursue any more, or whose beginning came late.
fn withdraw_mine(tick: &mut Tick<'_>, attempt: Option<&RecruitKey>) {
    if let Some(key) = attempt.filter(|key| key.candidate == tick.seen.me.name) {
        write(tick, RecruitWrite::Withdraw { attempt: key.attempt });
    }
}

fn write(tick: &mut Tick<'_>, write: RecruitWrite) {
    let due = tick
        .memory
        .recruit
        .written
        .as_ref()
        .is_none_or(|(last, at)| *last != write || *at + AGAIN_AFTER <= tick.now);
    if due {
        tick.memory.recruit.written = Some((write.clone(), tick.now));
        tick.act(Action::WriteRecruit(write));
    }
    tick.wake_in(AGAIN_AFTER, WaitingOn::Retry);
}
