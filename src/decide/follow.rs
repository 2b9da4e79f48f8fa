//! Another member leads and my Postgres runs as a standby.

use std::time::Duration;

use super::attach::{self, CONSISTENT_WITHIN, Source};
use super::clone::{is_to_be_cloned, leader_is_primary};
use super::leadership::Leadership;
use super::memory::Following;
use super::turn::Turn;
use super::{clone, history, removed_wal, requests, stop, sync};
use crate::model::{
    Action, Branch, ControlFile, Divergence, LeaderKey, Moment, Reason, Running, SqlFacts, Standby, WaitingOn,
};

/// A standby that does not stream for this long is examined.
const PATIENCE: Duration = Duration::from_secs(1);
/// One that must not have the leader's WAL may replay for this long what lies here, before it is cloned anew.
const CONSISTENT_ALONE_WITHIN: Duration = Duration::from_secs(30);
/// Keeps the standby behind its leader.
pub(super) fn leader(turn: &mut Turn<'_>, leader: &LeaderKey, sql: &SqlFacts) -> Reason {
    sync::keep_names(turn);
    sync::open_gate(turn);
    if is_to_be_cloned(turn, leader) {
        return stop_to_clone(turn, leader);
    }
    // Not before: one stop at a time.
    requests::go_on(turn);
    if turn.memory.restart.is_some() {
        return Reason::Restarting;
    }
    let Standby::Yes { receiver, paused, .. } = &sql.standby else { return Reason::ClusterUnknown };
    resume_replay(turn, *paused);
    attach::doubt(turn, receiver.is_some());
    aim(turn, leader, sql).unwrap_or_else(|| streaming(turn, leader, sql))
}

fn resume_replay(turn: &mut Turn<'_>, paused: bool) {
    if paused && !turn.seen.settings.pause {
        turn.act(Action::ResumeReplay);
    }
}

/// It was pointed at its source: WAL comes in, or is to be waited for.
fn streaming(turn: &mut Turn<'_>, leader: &LeaderKey, sql: &SqlFacts) -> Reason {
    if sql.streams() || turn.seen.me.tags.nostream() {
        turn.memory.not_streaming_since = None;
        (turn.memory.rejoin.unfed, turn.memory.rejoin.wal_removed_by) = (None, None);
        return Reason::Following { leader: leader.name.clone() };
    }
    examine(turn, leader)
}

fn stop_to_clone(turn: &mut Turn<'_>, leader: &LeaderKey) -> Reason {
    if !sync::leave(turn) {
        stop::immediately(turn);
    }
    clone::why_cloned_anew(turn, leader)
}

/// Points the standby at its source, once for every change of it and in every term. Where standbys confirm commits, the
/// new leader's first one waits for me: I connect while it is promoted. One whose history parted must not get there.
fn aim(turn: &mut Turn<'_>, leader: &LeaderKey, sql: &SqlFacts) -> Option<Reason> {
    let Some(target) = turn.follow_target(&leader.name) else {
        if turn.seen.me.tags.nostream() {
            attach::let_go(turn);
        }
        return None;
    };
    if attach::is_attached_to(turn, leader.term, &target) {
        return None;
    }
    if attach::is_elsewhere(turn, &target, sql) {
        attach::let_go(turn);
    }
    let theirs = history::branch_to_follow(turn, leader);
    turn.wake_in(history::ask_again_in(turn, leader), WaitingOn::Leader);
    match theirs {
        Some(theirs) => follow_history(turn, leader, &theirs),
        None => Some(history::history_untold(turn, leader)),
    }
}

/// The leader told its history. `None` when the standby was pointed at its source.
fn follow_history(turn: &mut Turn<'_>, leader: &LeaderKey, theirs: &Branch) -> Option<Reason> {
    match attach::source(turn, leader, theirs) {
        Source::Proved(target) => {
            turn.act(Action::Follow(Some(target)));
            None
        }
        Source::Parted(..) => Some(examine(turn, leader)),
        Source::Unproved if attach::more_may_come(turn, theirs) => {
            attach::let_go(turn);
            Some(Reason::FormerSource { leader: leader.name.clone() })
        }
        Source::Unproved | Source::Nobody => Some(Reason::ReadingOwnWal { leader: leader.name.clone() }),
    }
}

/// It does not stream: either the leader is not there yet, or histories parted.
fn examine(turn: &mut Turn<'_>, leader: &LeaderKey) -> Reason {
    let since = *turn.memory.not_streaming_since.get_or_insert(turn.now);
    turn.wake_at((since + PATIENCE).max(turn.now + Duration::from_millis(200)), WaitingOn::Leader);
    let name = leader.name.clone();
    if turn.now < since + PATIENCE || !leader_is_primary(turn, &name) {
        return Reason::NotStreaming { leader: name };
    }
    let Some(branch) = history::leader_branch(turn, leader) else {
        return removed_wal::known(turn, leader).unwrap_or(Reason::NotStreaming { leader: name });
    };
    match turn.seen.postgres.branch().map(|mine| mine.divergence_from(&branch)) {
        Some(Divergence::Forked { .. }) => stop_diverged(turn, leader),
        Some(Divergence::None) | None => look_for_removed_wal(turn, leader),
    }
}

fn stop_diverged(turn: &mut Turn<'_>, leader: &LeaderKey) -> Reason {
    if !turn.seen.settings.pause {
        stop::cleanly(turn);
    }
    Reason::Diverged { leader: leader.name.clone() }
}

fn look_for_removed_wal(turn: &mut Turn<'_>, leader: &LeaderKey) -> Reason {
    match removed_wal::examine(turn, leader) {
        Some(_) if is_to_be_cloned(turn, leader) => stop_to_clone(turn, leader),
        Some(reason) => reason,
        None => Reason::NotStreaming { leader: leader.name.clone() },
    }
}

/// It is being started, and not with the present leader as its source: what it waits for may never come.
pub(super) fn is_overtaken(turn: &Turn<'_>, start: &Running, leadership: &Leadership) -> bool {
    let Leadership::Other(leader) = leadership else { return false };
    start.since + CONSISTENT_WITHIN <= turn.now && !attach::is_attached(turn, leader.term)
}

/// My Postgres runs and does not answer.
pub(super) fn wait_for_answer(turn: &mut Turn<'_>, leader: Option<&LeaderKey>) -> Reason {
    turn.wake_in(Duration::from_millis(200), WaitingOn::Postgres);
    match leader {
        Some(leader) if is_to_be_cloned(turn, leader) => stop_to_clone(turn, leader),
        Some(leader) if !attach::is_attached(turn, leader.term) => {
            // How far it is nobody can say, so it has no source until it answers.
            attach::let_go(turn);
            complete(turn, leader).unwrap_or_else(|| silence(turn))
        }
        Some(_) | None => silence(turn),
    }
}

fn silence(turn: &Turn<'_>) -> Reason {
    match turn.seen.postgres.sql {
        None => Reason::PostgresStarting,
        Some(_) => Reason::PostgresSilent,
    }
}

/// A copy that lacks WAL becomes consistent by the leader's, and gets that when it is started anew: what lies here can
/// be compared with the leader's history while it is down.
fn complete(turn: &mut Turn<'_>, leader: &LeaderKey) -> Option<Reason> {
    let since = alone_since(turn);
    if turn.now < since + CONSISTENT_WITHIN || !may_be_completed(turn, leader) {
        return None;
    }
    let Some(theirs) = history::leader_branch(turn, leader) else {
        return Some(history::history_untold(turn, leader));
    };
    if !needs_leader(turn, leader, &theirs, since) {
        return None;
    }
    stop::immediately(turn);
    Some(Reason::InconsistentCopy { leader: leader.name.clone() })
}

/// Since when the running PostgreSQL has had no source.
fn alone_since(turn: &Turn<'_>) -> Moment {
    match turn.memory.following {
        Some(Following::Nobody { since }) => since.max(turn.started_at()),
        Some(Following::Source { .. }) | None => turn.started_at(),
    }
}

/// A copy runs that has not answered yet, and the leader has what it lacks.
fn may_be_completed(turn: &Turn<'_>, leader: &LeaderKey) -> bool {
    let postgres = &turn.seen.postgres;
    let is_copy = postgres.control().is_some_and(ControlFile::is_unfinished_copy);
    let never_answered = postgres.sql.is_none();
    is_copy && never_answered && leader_is_primary(turn, &leader.name) && !turn.seen.settings.pause
}

/// Nothing but the leader's WAL makes it consistent, or a clone.
fn needs_leader(turn: &mut Turn<'_>, leader: &LeaderKey, theirs: &Branch, alone_since: Moment) -> bool {
    match attach::compare(turn, leader, theirs) {
        Source::Nobody => false,
        Source::Unproved if turn.now < alone_since + CONSISTENT_ALONE_WITHIN => false,
        Source::Unproved | Source::Parted(..) => {
            turn.memory.rejoin.alone_in_vain = true;
            true
        }
        Source::Proved(_) => true,
    }
}
