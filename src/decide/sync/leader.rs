//! I lead and serve: one step at a time towards what is wanted.

use std::time::Duration;

use super::super::turn::Turn;
use super::memory::SyncWrite;
use super::state::Step;
use super::{priority, quorum};
use crate::model::{Action, SqlFacts, SyncMode, SyncOwner, SyncRecord, Term, WaitingOn};

/// A write that etcd does not show by then, and names that Postgres does not show, are sent again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How soon to look at names that were just set.
const LOOK_SOON: Duration = Duration::from_millis(20);
/// How soon at the latest to look whether a standby is gone: commits wait for it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The same, while a commit waits.
const LOOK_AT_WAITS: Duration = Duration::from_millis(250);

/// Takes the next step.
pub(in crate::decide) fn on_leader(turn: &mut Turn<'_>, term: Term, sql: &SqlFacts) {
    if is_writing(turn, term) {
        return;
    }
    let mode = turn.seen.settings.sync.mode;
    let owner = &turn.seen.postgres.sync_owner;
    if mode == SyncMode::Off {
        if turn.cluster().is_some_and(|cluster| cluster.sync.is_some()) {
            write(turn, term, None);
        } else if *owner != SyncOwner::Operator {
            name(turn, None);
        }
        return;
    }
    turn.wake_in(if sql.sync.waiting.is_empty() { LOOK_AGAIN } else { LOOK_AT_WAITS }, WaitingOn::Standbys);
    let state = turn.sync_state(sql);
    let vouches = state.record.is_in_force() && !state.record.voters.is_empty();
    if vouches && (!state.record.is_leader(&state.me) || !state.may_name(&state.names)) {
        // Somebody else led, or set the names: what it vouches for is not known.
        return write(turn, term, Some(SyncRecord { leader: Some(state.me), ..SyncRecord::default() }));
    }
    match owner {
        // The reload is on its way.
        SyncOwner::Supervisor(said) if *said != sql.sync.names => return name(turn, Some(said.clone())),
        SyncOwner::Supervisor(_) | SyncOwner::Operator => {}
        // A former supervisor may have died between writing the file and the reload.
        SyncOwner::Undecided => return name(turn, Some(sql.sync.names.clone())),
    }
    if state.record.is_leader(&state.me) && turn.memory.sync.owned != Some(turn.sync_revision()) {
        // A write of mine in a former life may still arrive; after this one it cannot.
        return write(turn, term, Some(state.record));
    }
    let step = match mode {
        SyncMode::Quorum => quorum::steps(&state).into_iter().next(),
        SyncMode::On | SyncMode::Off => priority::step(&state),
    };
    let Some(step) = step else { return };
    match state.permit(step) {
        Some(Step::Promise(record)) => write(turn, term, Some(record)),
        Some(Step::Name(names)) => name(turn, Some(names.to_string())),
        Some(Step::LookAgain) | None => {
            // Standbys confirm as soon as they have caught up, which may take long.
            let since = turn.memory.sync.in_effect.as_ref().map_or(turn.now, |names| names.seen_at);
            let span = (turn.now.since(since) / 4).clamp(LOOK_SOON, LOOK_AGAIN);
            turn.wake_in(span, WaitingOn::Standbys);
        }
    }
}

/// True while a write to the key is under way: whether it was done is seen in the view, and an answer that was lost is
/// no answer.
pub(super) fn is_writing(turn: &mut Turn<'_>, term: Term) -> bool {
    let Some(write) = turn.memory.sync.writing.clone() else { return false };
    if write.sent_at + AGAIN_AFTER <= turn.now {
        send(turn, term, write.record);
    }
    turn.wake_in(AGAIN_AFTER, WaitingOn::Standbys);
    true
}

pub(super) fn write(turn: &mut Turn<'_>, term: Term, record: Option<SyncRecord>) {
    send(turn, term, record);
    turn.wake_in(AGAIN_AFTER, WaitingOn::Standbys);
}

fn send(turn: &mut Turn<'_>, term: Term, record: Option<SyncRecord>) {
    let over = turn.sync_revision();
    turn.memory.sync.writing = Some(SyncWrite { record: record.clone(), over, sent_at: turn.now });
    turn.act(Action::PublishSync { term, record, mod_revision: over });
}

/// Tells Postgres, and once more when it does not seem to have heard.
pub(super) fn name(turn: &mut Turn<'_>, names: Option<String>) {
    let said = names.clone().map_or(SyncOwner::Operator, SyncOwner::Supervisor);
    let again = turn.seen.postgres.sync_owner == said;
    if !again || turn.memory.sync.named_at.is_none_or(|at| at + AGAIN_AFTER <= turn.now) {
        turn.memory.sync.named_at = Some(turn.now);
        turn.act(Action::SetSyncNames(names));
    }
    turn.wake_in(LOOK_SOON, WaitingOn::Postgres);
}
