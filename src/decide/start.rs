//! The start of a stopped Postgres: as a standby, and a promotion is a separate, later step. The exceptions are in
//! [`in_place`].

use std::time::Duration;

use super::ledgers::PrePromote;
use super::race::Candidates;
use super::tick::Tick;
use super::{
    attach, bootstrap, demote, failsafe, handover, in_place, liveness, publish, race, slots, stop, store,
    sync,
};
use crate::model::{
    ControlFile, Job, JobKind, Moment, Reason, SqlFacts, SyncReason, Term, Timeline, Unfit, WaitingOn,
};

/// With more unexpected ends of the postmaster than this within [`CRASH_WINDOW`], another member is to lead.
const CRASHES_MAX: usize = 2;
/// See [`CRASHES_MAX`].
const CRASH_WINDOW: Duration = Duration::from_secs(300);
/// A start after a crash that takes longer than this takes longer than a promotion elsewhere.
const SLOW_START: Duration = Duration::from_secs(1);
/// Failed starts or promotions in a row before another member is to lead.
const FAILURES_MAX: u32 = 3;

/// A restored store does not know all timelines that were begun, and a member that does may be silent; nor does the
/// etcd of a standby cluster know those of the remote one. At least this many numbers are skipped, and as many are left
/// for timelines of its leaders.
const UNKNOWN_TIMELINES: u32 = 64;
/// The generation's identifier multiplies that by up to this, so that two stores restored to one point do not give one
/// number.
const UNKNOWN_TIMELINES_VARY: u32 = 1024;

/// I lead and my Postgres is down.
pub(super) fn lead(tick: &mut Tick<'_>, term: Term, control: &ControlFile) -> Reason {
    if let Some(reason) = instead(tick, term, control) {
        return reason;
    }
    if let Some(reason) = in_place::first_start(tick, term, control) {
        return reason;
    }
    if !in_place::start(tick, term, control) {
        sync::lock_clients_out(tick, control);
        as_standby(tick, true);
    }
    if is_planned(tick) { Reason::Restarting } else { Reason::CrashedLeader }
}

/// The reason to do something else than to start the leader's PostgreSQL again: a hand-over continues, or another
/// member is to lead.
pub(super) fn instead(tick: &mut Tick<'_>, term: Term, control: &ControlFile) -> Option<Reason> {
    if tick.memory.hand_over.is_some() {
        return Some(handover::advance(tick, term, Some(control)));
    }
    if let Some(reason) = liveness::give_away(tick, term) {
        return Some(reason);
    }
    let planned = is_planned(tick);
    let because = why_another(tick, planned)?;
    leave_to_another(tick, term, because)
}

fn is_planned(tick: &Tick<'_>) -> bool {
    tick.memory.restart.is_some() && tick.memory.failures.starts < FAILURES_MAX
}

/// Why another member should lead rather than wait for this PostgreSQL to start again.
fn why_another(tick: &mut Tick<'_>, planned: bool) -> Option<Reason> {
    let is_permanent = is_permanent(tick);
    if planned {
        return None;
    }
    if is_permanent {
        return Some(Reason::CrashBudgetSpent);
    }
    has_crashed(tick).then_some(Reason::Sync(SyncReason::CrashedWithSuccessor))
}

/// It has, and commits wait for standbys: a synchronous one loses no acknowledged commit, and serves sooner.
fn has_crashed(tick: &Tick<'_>) -> bool {
    !tick.memory.failures.crashes.is_empty() && tick.sync_record().is_some()
}

/// The start of a crashed leader's PostgreSQL takes long (much WAL to replay, a disk or a log that hangs), and by now a
/// synchronous standby can lead.
pub(super) fn is_too_slow(tick: &mut Tick<'_>, since: Moment) -> bool {
    if is_planned(tick) || !has_crashed(tick) || tick.ends() {
        return false;
    }
    let slow_at = since + SLOW_START;
    tick.wake_at(slow_at.max(tick.now + Duration::from_millis(200)), WaitingOn::Postgres);
    slow_at <= tick.now && race::candidates(tick) == Candidates::Some
}

/// Gives the key away if another member can lead. `None` where no member can: then this member goes on, as the key
/// would only come back.
fn leave_to_another(tick: &mut Tick<'_>, term: Term, because: Reason) -> Option<Reason> {
    match race::candidates(tick) {
        Candidates::Asking => Some(Reason::AskingMembers),
        Candidates::Some => Some(demote::release(tick, term, because)),
        Candidates::None => None,
    }
}

/// I lead, and my Postgres runs as a standby: promote it.
pub(super) fn promote(tick: &mut Tick<'_>, term: Term, sql: &SqlFacts) -> Reason {
    if let Some(reason) = store::denied(tick, term).or_else(|| leave_rather_than_promote(tick, term)) {
        return reason;
    }
    if tick.memory.failures.retry_at.get(&JobKind::Promote).is_none_or(|at| *at <= tick.now) {
        slots::while_promoting(tick);
    }
    if let Some(reason) = sync::prepare_promotion(tick, term, sql) {
        return reason;
    }
    if !race::loss_is_known(tick, term, sql) {
        return Reason::TakingLoss;
    }
    if let Some(reason) = failsafe::delays_promotion(tick, term) {
        return reason;
    }
    run_pre_promote(tick, term).unwrap_or_else(|| begin_promotion(tick, term))
}

/// Runs the operator's script once in a term; `None` if it has passed, or there is none.
fn run_pre_promote(tick: &mut Tick<'_>, term: Term) -> Option<Reason> {
    if !tick.seen.me.scripts.pre_promote || tick.memory.pre_promote == Some(PrePromote::Passed(term)) {
        return None;
    }
    tick.memory.pre_promote = Some(PrePromote::Begun(term));
    tick.start(Job::PrePromote { term });
    Some(Reason::PrePromote)
}

/// This PostgreSQL was unhealthy, the operator's script forbids the promotion, or promotions fail again and again.
fn leave_rather_than_promote(tick: &mut Tick<'_>, term: Term) -> Option<Reason> {
    if let Some(because) = tick.memory.unhealthy.clone() {
        return Some(demote::release(tick, term, Reason::Unfit(because)));
    }
    if tick.memory.pre_promote == Some(PrePromote::Failed(term)) {
        return Some(demote::release(tick, term, Reason::PrePromoteFailed));
    }
    let failing = FAILURES_MAX <= tick.memory.failures.starts;
    failing.then(|| leave_to_another(tick, term, Reason::CrashBudgetSpent)).flatten()
}

fn begin_promotion(tick: &mut Tick<'_>, term: Term) -> Reason {
    let above = newest_timeline(tick);
    tick.start(Job::Promote { term, above });
    match tick.writes_refused() {
        // etcd refuses writes, so the number of the new timeline cannot be recorded and another member may use it as
        // well.
        Some(_) => Reason::WritesRefused,
        None => Reason::Promoting,
    }
}

/// The newest timeline in any record: two members that are promoted from one position, one after the other, must not
/// give their timelines the same number.
fn newest_timeline(tick: &Tick<'_>) -> Timeline {
    let recorded = tick.others().filter_map(|(_, key)| key.record.timeline);
    let told = tick.peers.values().filter_map(|answer| answer.timeline);
    let known = tick.cluster().and_then(|cluster| cluster.timeline());
    let mine = tick.seen.postgres.answering().and_then(|sql| sql.timeline);
    let remembered = tick.memory.store.keys.timeline;
    let newest = recorded.chain(told).chain(known).chain(mine).chain(remembered).max();
    let newest = newest.unwrap_or(Timeline::FIRST);
    let unsettled = tick.cluster().and_then(|cluster| cluster.unsettled());
    let unknown = unsettled.map(|key| key.record.ids.last().cloned().unwrap_or_default());
    // The cluster of the former remote primary counts its timelines in an etcd of its own.
    let apart = || publish::leads_standby_cluster(tick).then(|| etcd_of(tick));
    match unknown.or_else(apart) {
        Some(id) => {
            let number = id.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
            let times = 1 + number % UNKNOWN_TIMELINES_VARY;
            Timeline(newest.0.saturating_add(UNKNOWN_TIMELINES * times))
        }
        None => newest,
    }
}

/// What tells this cluster's etcd from another's.
fn etcd_of(tick: &Tick<'_>) -> String {
    let cluster_id = tick.cluster().map_or(0, |cluster| cluster.cluster_id);
    format!("{} {cluster_id}", tick.seen.me.scope)
}

/// I lead, and my Postgres does not answer: it recovers, hangs, or rejects every connection. Recovery may take its full
/// time. A server that rejects every connection for half a TTL will not recover by itself.
pub(super) fn silent(tick: &mut Tick<'_>, term: Term) -> Reason {
    if let Some(running) = &tick.memory.hand_over {
        tick.wake_at(running.give_up_at, WaitingOn::Job);
        return handover::advance(tick, term, None);
    }
    let started_at = tick.started_at();
    let give_up_at = started_at + tick.seen.settings.primary_start_timeout;
    let half = tick.seen.settings.ttl / 2;
    let turned_away = tick.seen.postgres.turned_away_since.filter(|since| *since + half <= tick.now);
    let because = match turned_away {
        Some(_) => Some(Reason::Unfit(Unfit::TurnsAway)),
        None if is_too_slow(tick, started_at) => Some(Reason::StartTooSlow),
        None => (give_up_at <= tick.now).then_some(Reason::StartTooSlow),
    };
    let never_answered = tick.seen.postgres.sql.is_none();
    if let Some(because) = because.filter(|_| never_answered)
        && race::candidates(tick) == Candidates::Some
    {
        tick.memory.failures.starts = FAILURES_MAX;
        stop::immediately(tick);
        return because;
    }
    tick.wake_at(give_up_at.max(tick.now + Duration::from_secs(1)), WaitingOn::Postgres);
    tick.wake_in(Duration::from_millis(100), WaitingOn::Postgres);
    Reason::PostgresSilent
}

/// No member leads, and my Postgres is down: start it, so that it can compete with all its WAL. Where etcd knows no
/// cluster, a standby serves readers and shows its position. A copy that was never consistent is not started, since its
/// archive may have more WAL than the restore asked for.
pub(super) fn without_leader(tick: &mut Tick<'_>, control: &ControlFile) -> Reason {
    if tick.cluster().is_some_and(|cluster| !bootstrap::may_rebuild(tick, cluster)) {
        if control.is_of_primary() {
            tick.memory.rebuilds = true;
        } else if control.is_unfinished_copy() {
            return Reason::ReplicaMustNotRebuild { me: tick.seen.me.name.clone() };
        }
    }
    if let Some(reason) = in_place::lead_new_cluster(tick) {
        return reason;
    }
    sync::lock_clients_out(tick, control);
    as_standby(tick, true);
    Reason::StartingToCompete
}

/// Starts it without a source. `lowers`: the leader is promoted next.
pub(super) fn as_standby(tick: &mut Tick<'_>, lowers: bool) {
    let within = in_place::timeout(tick);
    attach::to_nobody(tick);
    tick.start(Job::StartStandby { follow: None, within, lowers });
}

/// Whether another member should lead: immediate failover is configured, or Postgres crashes or fails repeatedly.
fn is_permanent(tick: &mut Tick<'_>) -> bool {
    let horizon = tick.now - CRASH_WINDOW;
    tick.memory.failures.crashes.retain(|at| horizon < *at);
    let at_once =
        tick.seen.settings.primary_start_timeout.is_zero() && !tick.memory.failures.crashes.is_empty();
    at_once || CRASHES_MAX < tick.memory.failures.crashes.len() || FAILURES_MAX <= tick.memory.failures.starts
}
