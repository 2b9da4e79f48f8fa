//! Getting a stopped Postgres up, always as a standby; being primary is a permission that comes after.

use std::time::Duration;

use super::race::Candidates;
use super::tick::Tick;
use super::{attach, bootstrap, demote, handover, liveness, race, slots, stop, store, sync};
use crate::model::{
    ControlFile, Job, JobKind, Reason, SqlFacts, SyncReason, Term, Timeline, Unfit, WaitingOn,
};

/// More unexpected ends of the postmaster than this within [`CRASH_WINDOW`], and another member is to lead.
const CRASHES_MAX: usize = 2;
/// See [`CRASHES_MAX`].
const CRASH_WINDOW: Duration = Duration::from_secs(300);
/// Failed starts or promotions in a row before another member is to lead.
const FAILURES_MAX: u32 = 3;

/// A store that went back in time does not know all timelines that were begun, and a member that does may be silent: so
/// many are passed over at least, and as many are left for what its leaders begin.
const UNKNOWN_TIMELINES: u32 = 64;
/// By the generation up to so many times as many: two stores that went back to one point do not lead to one number.
const UNKNOWN_TIMELINES_VARY: u32 = 1024;

/// I lead and my Postgres is down.
pub(super) fn lead(tick: &mut Tick<'_>, term: Term, control: &ControlFile) -> Reason {
    if tick.memory.hand_over.is_some() {
        return handover::advance(tick, term, Some(control));
    }
    if let Some(reason) = liveness::give_away(tick, term) {
        return reason;
    }
    let planned = tick.memory.restart.is_some() && tick.memory.failures.starts < FAILURES_MAX;
    if let Some(because) = why_another(tick, planned)
        && let Some(reason) = leave_to_another(tick, term, because)
    {
        return reason;
    }
    start(tick, control);
    if planned { Reason::Restarting } else { Reason::CrashedLeader }
}

/// Why another member should lead instead of waiting for this PostgreSQL to come up again.
fn why_another(tick: &mut Tick<'_>, planned: bool) -> Option<Reason> {
    let is_permanent = is_permanent(tick);
    if planned {
        return None;
    }
    if is_permanent {
        return Some(Reason::CrashBudgetSpent);
    }
    // Nothing acknowledged is lost with a member that the key vouches for, and it is back sooner.
    let crashed = !tick.memory.failures.crashes.is_empty() && tick.sync_record().is_some();
    crashed.then_some(Reason::Sync(SyncReason::CrashedWithSuccessor))
}

/// Gives the key away if another member can lead; `None` where none can: going on is all there is then, as the key
/// would come back here for ever.
fn leave_to_another(tick: &mut Tick<'_>, term: Term, because: Reason) -> Option<Reason> {
    match race::candidates(tick) {
        Candidates::Asking => Some(Reason::AskingMembers),
        Candidates::Some => Some(demote::release(tick, term, because)),
        Candidates::None => None,
    }
}

/// I lead and my Postgres runs as a standby: make it a primary.
pub(super) fn promote(tick: &mut Tick<'_>, term: Term, sql: &SqlFacts) -> Reason {
    if let Some(reason) = store::denied(tick, term) {
        return reason;
    }
    if let Some(reason) = leave_rather_than_promote(tick, term) {
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
    begin_promotion(tick, term)
}

/// This PostgreSQL was found not to do its work, or promotions fail again and again.
fn leave_rather_than_promote(tick: &mut Tick<'_>, term: Term) -> Option<Reason> {
    if let Some(because) = tick.memory.unhealthy.clone() {
        return Some(demote::release(tick, term, Reason::Unfit(because)));
    }
    let failing = FAILURES_MAX <= tick.memory.failures.starts;
    failing.then(|| leave_to_another(tick, term, Reason::CrashBudgetSpent)).flatten()
}

fn begin_promotion(tick: &mut Tick<'_>, term: Term) -> Reason {
    let above = newest_timeline(tick);
    tick.start(Job::Promote { term, above });
    match tick.writes_refused() {
        // No other history can be kept from the number of a timeline that etcd was not told of.
        Some(_) => Reason::WritesRefused,
        None => Reason::Promoting,
    }
}

/// The newest timeline in any record: two members that promote from one place, one after the other, must not give
/// their histories one number.
fn newest_timeline(tick: &Tick<'_>) -> Timeline {
    let recorded = tick.others().filter_map(|(_, key)| key.record.timeline);
    let told = tick.peers.values().filter_map(|answer| answer.timeline);
    let known = tick.cluster().and_then(|cluster| cluster.timeline());
    let mine = tick.seen.postgres.answering().and_then(|sql| sql.timeline);
    let remembered = tick.memory.store.keys.timeline;
    let newest = recorded.chain(told).chain(known).chain(mine).chain(remembered).max();
    let newest = newest.unwrap_or(Timeline::FIRST);
    match tick.cluster().and_then(|cluster| cluster.unsettled()) {
        Some(key) => {
            let id = key.record.ids.last().map(String::as_str).unwrap_or_default();
            let number = id.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
            let times = 1 + number % UNKNOWN_TIMELINES_VARY;
            Timeline(newest.0.saturating_add(UNKNOWN_TIMELINES * times))
        }
        None => newest,
    }
}

/// I lead and my Postgres does not answer: it recovers, or hangs, or turns everybody away. Recovery may take as long as
/// it is allowed to; a server that turns everybody away for half a TTL will not begin to answer.
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

/// Nobody leads and my Postgres is down: start it, so that it can stand as a candidate with all it has. Where etcd
/// knows no cluster a standby serves readers and shows how far it is, but for a copy that was never consistent: more
/// WAL may lie in its archive than it was restored for.
pub(super) fn without_leader(tick: &mut Tick<'_>, control: &ControlFile) -> Reason {
    if tick.cluster().is_some_and(|cluster| !bootstrap::may_rebuild(tick, cluster)) {
        if control.is_of_primary() {
            tick.memory.rebuilds = true;
        } else if control.is_unfinished_copy() {
            return Reason::ReplicaMustNotRebuild { me: tick.seen.me.name.clone() };
        }
    }
    start(tick, control);
    Reason::StartingToCompete
}

fn start(tick: &mut Tick<'_>, control: &ControlFile) {
    sync::lock_clients_out(tick, control);
    let within = tick.seen.settings.primary_start_timeout.max(Duration::from_secs(10));
    attach::to_nobody(tick);
    tick.start(Job::StartStandby { follow: None, within });
}

/// Another member should rather lead: failing over at once was asked for, or I crash or fail again and again.
fn is_permanent(tick: &mut Tick<'_>) -> bool {
    let horizon = tick.now - CRASH_WINDOW;
    tick.memory.failures.crashes.retain(|at| horizon < *at);
    let at_once =
        tick.seen.settings.primary_start_timeout.is_zero() && !tick.memory.failures.crashes.is_empty();
    at_once || CRASHES_MAX < tick.memory.failures.crashes.len() || FAILURES_MAX <= tick.memory.failures.starts
}
