//! Another member leads and my Postgres runs as a standby.

use std::time::Duration;

use super::attach::{self, AttachSource, CONSISTENT_WITHIN};
use super::clone::{is_to_be_cloned, leader_serves};
use super::leadership::Leadership;
use super::memory::Following;
use super::tick::Tick;
use super::{clone, history, removed_wal, requests, stop, sync};
use crate::model::{
    Action, Branch, ControlFile, Divergence, LeaderKey, Moment, Reason, RunningJob, SqlFacts, Standby,
    WaitingOn,
};

/// A standby that does not stream for this long is examined.
const PATIENCE: Duration = Duration::from_secs(1);
/// One that must not have the leader's WAL may replay for this long what lies here, before it is cloned anew.
const CONSISTENT_ALONE_WITHIN: Duration = Duration::from_secs(30);
/// Keeps the standby behind its leader.
pub(super) fn leader(tick: &mut Tick<'_>, leader: &LeaderKey, sql: &SqlFacts) -> Reason {
    sync::keep_names(tick);
    sync::let_clients_in(tick);
    if is_to_be_cloned(tick, leader) {
        return stop_to_clone(tick, leader);
    }
    // Not before: one stop at a time.
    requests::advance(tick);
    if tick.memory.restart.is_some() {
        return Reason::Restarting;
    }
    let Standby::Yes { receiver, paused, .. } = &sql.standby else { return Reason::ClusterUnknown };
    resume_replay(tick, *paused);
    if !tick.is_remote(&leader.name) {
        attach::doubt(tick, receiver.is_some());
    }
    set_target(tick, leader, sql).unwrap_or_else(|| streaming(tick, leader, sql))
}

fn resume_replay(tick: &mut Tick<'_>, paused: bool) {
    if paused && !tick.seen.settings.pause {
        tick.act(Action::ResumeReplay);
    }
}

/// Cares for a standby that has no source to stream from, as [`leader`] does; the reason for what it does.
pub(super) fn alone(tick: &mut Tick<'_>, sql: &SqlFacts) -> Option<Reason> {
    sync::keep_names(tick);
    sync::let_clients_in(tick);
    requests::advance(tick);
    if let Standby::Yes { paused, .. } = &sql.standby {
        resume_replay(tick, *paused);
    }
    tick.memory.restart.is_some().then_some(Reason::Restarting)
}

/// Points a running standby at this source, without a look at how it gets on.
pub(super) fn point_at(tick: &mut Tick<'_>, source: &LeaderKey, sql: &SqlFacts) {
    let _compared = set_target(tick, source, sql);
}

/// It was pointed at its source: WAL comes in, or is to be waited for.
fn streaming(tick: &mut Tick<'_>, leader: &LeaderKey, sql: &SqlFacts) -> Reason {
    // A receiver that asks for removed WAL counts as streaming until it is told so.
    let streams = sql.streams() && !removed_wal::still_lacks(tick, leader);
    if streams || tick.seen.me.tags.nostream() {
        tick.memory.not_streaming_since = None;
        (tick.memory.rejoin.unfed, tick.memory.rejoin.wal_removed_by) = (None, None);
        return Reason::Following { leader: leader.name.clone() };
    }
    examine(tick, leader)
}

fn stop_to_clone(tick: &mut Tick<'_>, leader: &LeaderKey) -> Reason {
    if !sync::leave(tick) {
        stop::immediately(tick);
    }
    clone::why_cloned_anew(tick, leader)
}

/// Points the standby at its source, once for every change of it and in every term. Where standbys confirm commits, the
/// new leader's first one waits for me: I connect while it is promoted. One whose history parted must not get there.
fn set_target(tick: &mut Tick<'_>, leader: &LeaderKey, sql: &SqlFacts) -> Option<Reason> {
    let Some(target) = tick.follow_target(&leader.name) else {
        if tick.seen.me.tags.nostream() {
            attach::let_go(tick);
        }
        return None;
    };
    if attach::is_attached_to(tick, leader.term, &target) {
        return None;
    }
    if attach::is_elsewhere(tick, &target, sql) {
        attach::let_go(tick);
    }
    let theirs = history::branch_to_follow(tick, leader);
    tick.wake_in(history::ask_again_in(tick, leader), WaitingOn::Leader);
    match theirs {
        Some(theirs) => follow_history(tick, leader, &theirs),
        None => untold(tick, leader),
    }
}

/// The leader did not tell its history. `None` when the standby was pointed at its source all the same.
fn untold(tick: &mut Tick<'_>, leader: &LeaderKey) -> Option<Reason> {
    match attach::to_untold_remote(tick, leader) {
        Some(target) => {
            tick.act(Action::Follow(Some(target)));
            None
        }
        None => Some(history::history_unanswered(tick, leader)),
    }
}

/// The leader told its history. `None` when the standby was pointed at its source.
fn follow_history(tick: &mut Tick<'_>, leader: &LeaderKey, theirs: &Branch) -> Option<Reason> {
    match attach::source(tick, leader, theirs) {
        AttachSource::Proved(target) => {
            tick.act(Action::Follow(Some(target)));
            None
        }
        AttachSource::Parted(..) => Some(examine(tick, leader)),
        AttachSource::Unproved if attach::more_may_come(tick, theirs) => {
            attach::let_go(tick);
            Some(Reason::FormerSource { leader: leader.name.clone() })
        }
        AttachSource::Unproved | AttachSource::Nobody => {
            Some(Reason::ReadingOwnWal { leader: leader.name.clone() })
        }
    }
}

/// It does not stream: either the leader is not there yet, or histories parted.
fn examine(tick: &mut Tick<'_>, leader: &LeaderKey) -> Reason {
    let since = *tick.memory.not_streaming_since.get_or_insert(tick.now);
    tick.wake_at((since + PATIENCE).max(tick.now + Duration::from_millis(200)), WaitingOn::Leader);
    let name = leader.name.clone();
    if tick.now < since + PATIENCE || !leader_serves(tick, &name) {
        return Reason::NotStreaming { leader: name };
    }
    let Some(branch) = history::leader_branch(tick, leader) else {
        return removed_wal::known(tick, leader).unwrap_or(Reason::NotStreaming { leader: name });
    };
    match tick.seen.postgres.branch().map(|mine| mine.divergence_from(&branch.open())) {
        Some(Divergence::Forked { .. }) => stop_diverged(tick, leader),
        Some(Divergence::None) | None => look_for_removed_wal(tick, leader),
    }
}

fn stop_diverged(tick: &mut Tick<'_>, leader: &LeaderKey) -> Reason {
    if !tick.seen.settings.pause {
        stop::cleanly(tick);
    }
    Reason::Diverged { leader: leader.name.clone() }
}

fn look_for_removed_wal(tick: &mut Tick<'_>, leader: &LeaderKey) -> Reason {
    match removed_wal::examine(tick, leader) {
        Some(_) if is_to_be_cloned(tick, leader) => stop_to_clone(tick, leader),
        Some(reason) => reason,
        None => Reason::NotStreaming { leader: leader.name.clone() },
    }
}

/// It is being started, and not with the present leader as its source: what it waits for may never come.
pub(super) fn is_overtaken(tick: &Tick<'_>, start: &RunningJob, leadership: &Leadership) -> bool {
    let Leadership::Other(leader) = leadership else { return false };
    start.since + CONSISTENT_WITHIN <= tick.now && !attach::is_attached(tick, leader.term)
}

/// My Postgres runs and does not answer.
pub(super) fn wait_for_answer(tick: &mut Tick<'_>, leader: Option<&LeaderKey>) -> Reason {
    tick.wake_in(Duration::from_millis(200), WaitingOn::Postgres);
    match leader {
        Some(leader) if is_to_be_cloned(tick, leader) => stop_to_clone(tick, leader),
        Some(leader) if !attach::is_attached(tick, leader.term) => {
            // How far it is nobody can say, so it has no source until it answers.
            attach::let_go(tick);
            complete(tick, leader).unwrap_or_else(|| silence(tick))
        }
        Some(_) | None => silence(tick),
    }
}

fn silence(tick: &Tick<'_>) -> Reason {
    match tick.seen.postgres.sql {
        None => Reason::PostgresStarting,
        Some(_) => Reason::PostgresSilent,
    }
}

/// A copy that lacks WAL becomes consistent by the leader's, and gets that when it is started anew: what lies here can
/// be compared with the leader's history while it is down.
fn complete(tick: &mut Tick<'_>, leader: &LeaderKey) -> Option<Reason> {
    let since = alone_since(tick);
    if tick.now < since + CONSISTENT_WITHIN || !may_be_completed(tick, leader) {
        return None;
    }
    let Some(theirs) = history::leader_branch(tick, leader) else {
        return Some(history::history_unanswered(tick, leader));
    };
    if !needs_leader(tick, leader, &theirs, since) {
        return None;
    }
    stop::immediately(tick);
    Some(Reason::InconsistentCopy { leader: leader.name.clone() })
}

/// Since when the running PostgreSQL has had no source.
fn alone_since(tick: &Tick<'_>) -> Moment {
    match tick.memory.following {
        Some(Following::Nobody { since }) => {
            tick.memory.rejoin.alone_since.unwrap_or(since).max(tick.started_at())
        }
        Some(Following::Source { .. }) | None => tick.started_at(),
    }
}

/// A copy runs that has not answered yet, and the leader has what it lacks.
fn may_be_completed(tick: &Tick<'_>, leader: &LeaderKey) -> bool {
    let postgres = &tick.seen.postgres;
    let is_copy = postgres.control().is_some_and(ControlFile::is_unfinished_copy);
    let never_answered = postgres.sql.is_none();
    is_copy && never_answered && leader_serves(tick, &leader.name) && !tick.seen.settings.pause
}

/// Nothing but the leader's WAL makes it consistent, or a clone.
fn needs_leader(tick: &mut Tick<'_>, leader: &LeaderKey, theirs: &Branch, alone_since: Moment) -> bool {
    match attach::compare(tick, leader, theirs) {
        AttachSource::Nobody => false,
        AttachSource::Unproved if tick.now < alone_since + CONSISTENT_ALONE_WITHIN => false,
        AttachSource::Unproved | AttachSource::Parted(..) => {
            tick.memory.rejoin.rejoin_alone_failed = true;
            true
        }
        AttachSource::Proved(_) => true,
    }
}
