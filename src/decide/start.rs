//! Getting a stopped Postgres up, always as a standby; being primary is a permission that comes after.

use std::time::Duration;

use super::race::Candidates;
use super::turn::Turn;
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
pub(super) fn lead(turn: &mut Turn<'_>, term: Term, control: &ControlFile) -> Reason {
    if turn.memory.hand_over.is_some() {
        return handover::go_on(turn, term, Some(control));
    }
    if let Some(reason) = liveness::give_away(turn, term) {
        return reason;
    }
    let planned = turn.memory.restart.is_some() && turn.memory.failures.starts < FAILURES_MAX;
    if let Some(because) = why_another(turn, planned)
        && let Some(reason) = leave_to_another(turn, term, because)
    {
        return reason;
    }
    start(turn, control);
    if planned { Reason::Restarting } else { Reason::CrashedLeader }
}

/// Why another member should lead instead of waiting for this PostgreSQL to come up again.
fn why_another(turn: &mut Turn<'_>, planned: bool) -> Option<Reason> {
    let hopeless = hopeless(turn);
    if planned {
        return None;
    }
    if hopeless {
        return Some(Reason::CrashBudgetSpent);
    }
    // Nothing acknowledged is lost with a member that the key vouches for, and it is back sooner.
    let crashed = !turn.memory.failures.crashes.is_empty() && turn.sync_record().is_some();
    crashed.then_some(Reason::Sync(SyncReason::CrashedWithSuccessor))
}

/// Gives the key away if another member can lead; `None` where none can: going on is all there is then, as the key
/// would come back here for ever.
fn leave_to_another(turn: &mut Turn<'_>, term: Term, because: Reason) -> Option<Reason> {
    match race::candidates(turn) {
        Candidates::Asking => Some(Reason::AskingMembers),
        Candidates::Some => Some(demote::release(turn, term, because)),
        Candidates::None => None,
    }
}

/// I lead and my Postgres runs as a standby: make it a primary.
pub(super) fn promote(turn: &mut Turn<'_>, term: Term, sql: &SqlFacts) -> Reason {
    if let Some(reason) = store::denied(turn, term) {
        return reason;
    }
    if let Some(reason) = leave_rather_than_promote(turn, term) {
        return reason;
    }
    if turn.memory.failures.retry_at.get(&JobKind::Promote).is_none_or(|at| *at <= turn.now) {
        slots::while_promoting(turn);
    }
    if let Some(reason) = sync::prepare_promotion(turn, term, sql) {
        return reason;
    }
    if !race::loss_is_known(turn, term, sql) {
        return Reason::TakingLoss;
    }
    begin_promotion(turn, term)
}

/// This PostgreSQL was found not to do its work, or promotions fail again and again.
fn leave_rather_than_promote(turn: &mut Turn<'_>, term: Term) -> Option<Reason> {
    if let Some(because) = turn.memory.condemned.clone() {
        return Some(demote::release(turn, term, Reason::Unfit(because)));
    }
    let failing = FAILURES_MAX <= turn.memory.failures.starts;
    failing.then(|| leave_to_another(turn, term, Reason::CrashBudgetSpent)).flatten()
}

fn begin_promotion(turn: &mut Turn<'_>, term: Term) -> Reason {
    let above = newest_timeline(turn);
    turn.start(Job::Promote { term, above });
    match turn.writes_refused() {
        // No other history can be kept from the number of a timeline that etcd was not told of.
        Some(_) => Reason::WritesRefused,
        None => Reason::Promoting,
    }
}

/// The newest timeline in any record: two members that promote from one place, one after the other, must not give
/// their histories one number.
fn newest_timeline(turn: &Turn<'_>) -> Timeline {
    let recorded = turn.others().filter_map(|(_, key)| key.record.timeline);
    let told = turn.peers.values().filter_map(|answer| answer.timeline);
    let known = turn.cluster().and_then(|cluster| cluster.timeline());
    let mine = turn.seen.postgres.answering().and_then(|sql| sql.timeline);
    let remembered = turn.memory.store.keys.timeline;
    let newest = recorded.chain(told).chain(known).chain(mine).chain(remembered).max();
    let newest = newest.unwrap_or(Timeline::FIRST);
    match turn.cluster().and_then(|cluster| cluster.unsettled()) {
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
pub(super) fn silent(turn: &mut Turn<'_>, term: Term) -> Reason {
    if let Some(running) = &turn.memory.hand_over {
        turn.wake_at(running.give_up_at, WaitingOn::Job);
        return handover::go_on(turn, term, None);
    }
    let started_at = turn.started_at();
    let give_up_at = started_at + turn.seen.settings.primary_start_timeout;
    let half = turn.seen.settings.ttl / 2;
    let turned_away = turn.seen.postgres.turned_away_since.filter(|since| *since + half <= turn.now);
    let because = match turned_away {
        Some(_) => Some(Reason::Unfit(Unfit::TurnsAway)),
        None => (give_up_at <= turn.now).then_some(Reason::StartTooSlow),
    };
    let never_answered = turn.seen.postgres.sql.is_none();
    if let Some(because) = because.filter(|_| never_answered)
        && race::candidates(turn) == Candidates::Some
    {
        turn.memory.failures.starts = FAILURES_MAX;
        stop::immediately(turn);
        return because;
    }
    turn.wake_at(give_up_at.max(turn.now + Duration::from_secs(1)), WaitingOn::Postgres);
    turn.wake_in(Duration::from_millis(100), WaitingOn::Postgres);
    Reason::PostgresSilent
}

/// Nobody leads and my Postgres is down: start it, so that it can stand as a candidate with all it has. Where etcd
/// knows no cluster a standby serves readers and shows how far it is, but for a copy that was never consistent: more
/// WAL may lie in its archive than it was restored for.
pub(super) fn without_leader(turn: &mut Turn<'_>, control: &ControlFile) -> Reason {
    if turn.cluster().is_some_and(|cluster| !bootstrap::may_rebuild(turn, cluster)) {
        if control.is_of_primary() {
            turn.memory.rebuilds = true;
        } else if control.is_unfinished_copy() {
            return Reason::ReplicaMustNotRebuild { me: turn.seen.me.name.clone() };
        }
    }
    start(turn, control);
    Reason::StartingToCompete
}

fn start(turn: &mut Turn<'_>, control: &ControlFile) {
    sync::close_gate(turn, control);
    let within = turn.seen.settings.primary_start_timeout.max(Duration::from_secs(10));
    attach::to_nobody(turn);
    turn.start(Job::StartStandby { follow: None, within });
}

/// Another member should rather lead: failing over at once was asked for, or I crash or fail again and again.
fn hopeless(turn: &mut Turn<'_>) -> bool {
    let horizon = turn.now - CRASH_WINDOW;
    turn.memory.failures.crashes.retain(|at| horizon < *at);
    let at_once =
        turn.seen.settings.primary_start_timeout.is_zero() && !turn.memory.failures.crashes.is_empty();
    at_once || CRASHES_MAX < turn.memory.failures.crashes.len() || FAILURES_MAX <= turn.memory.failures.starts
}
