//! This member leads and serves: one step at a time towards the wanted state.

use std::time::Duration;

use super::super::tick::Tick;
use super::memory::SyncWrite;
use super::state::{QuorumState, SyncStep};
use super::{priority, quorum};
use crate::model::{Action, SqlFacts, SyncMode, SyncOwner, SyncRecord, Term, WaitingOn};

/// The pause before a write that etcd does not show, or a value that Postgres does not show, is repeated.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The interval between checks of a value that was just set.
const LOOK_SOON: Duration = Duration::from_millis(20);
/// The interval between checks for a lost standby: commits wait for it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The interval while a commit waits.
const LOOK_AT_WAITS: Duration = Duration::from_millis(250);

/// Takes the next step.
pub(in crate::decide) fn on_leader(tick: &mut Tick<'_>, term: Term, sql: &SqlFacts) {
    if is_writing(tick, term) {
        return;
    }
    if tick.seen.settings.sync.mode == SyncMode::Off {
        return switched_off(tick, term);
    }
    tick.wake_in(if sql.sync.waiting.is_empty() { LOOK_AGAIN } else { LOOK_AT_WAITS }, WaitingOn::Standbys);
    let state = tick.sync_state(sql);
    if !settles_leftovers(tick, term, sql, &state) {
        step(tick, term, &state);
    }
}

/// No commit waits for a standby, and the key promises nothing.
fn switched_off(tick: &mut Tick<'_>, term: Term) {
    if tick.cluster().is_some_and(|cluster| cluster.sync.is_some()) {
        write(tick, term, None);
    } else if tick.seen.postgres.sync_owner != SyncOwner::Operator {
        name(tick, None);
    }
}

/// Settles first what a former leader, or a former supervisor of this member, left behind. True while that continues.
fn settles_leftovers(tick: &mut Tick<'_>, term: Term, sql: &SqlFacts, state: &QuorumState) -> bool {
    if is_promise_unknown(state) {
        let record = SyncRecord { leader: Some(state.me.clone()), ..SyncRecord::default() };
        write(tick, term, Some(record));
        return true;
    }
    if let Some(names) = unsettled_names(&tick.seen.postgres.sync_owner, sql) {
        name(tick, Some(names));
        return true;
    }
    // A write from a previous incarnation of mine may still arrive. After this write it cannot succeed.
    let from_previous_incarnation =
        state.record.is_leader(&state.me) && tick.memory.sync.owned != Some(tick.sync_revision());
    if from_previous_incarnation {
        write(tick, term, Some(state.record.clone()));
    }
    from_previous_incarnation
}

/// Another member led, or set the names: the present promise is not known to hold.
fn is_promise_unknown(state: &QuorumState) -> bool {
    let promises = state.record.is_in_force() && !state.record.voters.is_empty();
    promises && (!state.record.is_leader(&state.me) || !state.may_name(&state.names))
}

/// The names that Postgres has to have before others are chosen.
fn unsettled_names(owner: &SyncOwner, sql: &SqlFacts) -> Option<String> {
    match owner {
        // The reload is under way.
        SyncOwner::Supervisor(said) => (*said != sql.sync.names).then(|| said.clone()),
        SyncOwner::Operator => None,
        // A former supervisor may have died between writing the file and the reload.
        SyncOwner::Undecided => Some(sql.sync.names.clone()),
    }
}

/// One step towards the wanted state.
fn step(tick: &mut Tick<'_>, term: Term, state: &QuorumState) {
    let step = match tick.seen.settings.sync.mode {
        SyncMode::Quorum => quorum::steps(state).into_iter().next(),
        SyncMode::On | SyncMode::Off => priority::step(state),
    };
    let Some(step) = step else { return };
    match state.permit(step) {
        Some(SyncStep::Promise(record)) => write(tick, term, Some(record)),
        Some(SyncStep::Name(names)) => name(tick, Some(names.to_string())),
        Some(SyncStep::LookAgain) | None => {
            // Standbys confirm as soon as they have caught up, which may take long.
            let since = tick.memory.sync.in_effect.as_ref().map_or(tick.now, |names| names.seen_at);
            let span = (tick.now.since(since) / 4).clamp(LOOK_SOON, LOOK_AGAIN);
            tick.wake_in(span, WaitingOn::Standbys);
        }
    }
}

/// Whether a write to the key is under way. The view shows whether it succeeded; a lost answer tells nothing.
pub(super) fn is_writing(tick: &mut Tick<'_>, term: Term) -> bool {
    let Some(write) = tick.memory.sync.writing.clone() else { return false };
    if write.sent_at + AGAIN_AFTER <= tick.now {
        send(tick, term, write.record);
    }
    tick.wake_in(AGAIN_AFTER, WaitingOn::Standbys);
    true
}

pub(super) fn write(tick: &mut Tick<'_>, term: Term, record: Option<SyncRecord>) {
    send(tick, term, record);
    tick.wake_in(AGAIN_AFTER, WaitingOn::Standbys);
}

fn send(tick: &mut Tick<'_>, term: Term, record: Option<SyncRecord>) {
    let over = tick.sync_revision();
    tick.memory.sync.writing = Some(SyncWrite { record: record.clone(), over, sent_at: tick.now });
    tick.act(Action::PublishSync { term, record, mod_revision: over });
}

/// Sets the names in Postgres, again if Postgres does not show them.
pub(super) fn name(tick: &mut Tick<'_>, names: Option<String>) {
    let said = names.clone().map_or(SyncOwner::Operator, SyncOwner::Supervisor);
    // A write that failed leaves it undecided.
    let again = [said, SyncOwner::Undecided].contains(&tick.seen.postgres.sync_owner);
    if !again || tick.memory.sync.named_at.is_none_or(|at| at + AGAIN_AFTER <= tick.now) {
        tick.memory.sync.named_at = Some(tick.now);
        tick.act(Action::SetSyncNames(names));
    }
    tick.wake_in(LOOK_SOON, WaitingOn::Postgres);
}
