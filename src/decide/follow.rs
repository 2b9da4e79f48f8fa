//! Another member leads and my Postgres runs as a standby.

use std::time::Duration;

use super::bootstrap::leader_is_primary;
use super::turn::Turn;
use super::{Leadership, rejoin, requests, sync};
use crate::model::{
    Action, Divergence, Job, LeaderKey, Moment, Reason, SqlFacts, Standby, StopMode, SyncMode, WaitingOn,
};

/// A standby that does not stream for this long is examined.
const PATIENCE: Duration = Duration::from_secs(1);
/// How soon to look again for the leader's history.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// A standby that has not reached consistency on its own by then needs the leader's WAL for it.
const CONSISTENT_WITHIN: Duration = Duration::from_secs(5);
/// How long a clean stop of a standby may take before it is cut short.
pub(super) const STANDBY_STOP_WITHIN: Duration = Duration::from_secs(30);

/// Keeps the standby behind its leader.
pub(super) fn leader(turn: &mut Turn<'_>, leader: &LeaderKey, sql: &SqlFacts) -> Reason {
    sync::keep_names(turn);
    sync::open_gate(turn);
    if turn.memory.reinitialize.is_some() {
        if sync::leave(turn) {
            return Reason::Reinitializing;
        }
        turn.act(Action::Start(Job::Stop { mode: StopMode::Immediate, within: Duration::from_secs(5) }));
        return Reason::Reinitializing;
    }
    // Not before: one stop at a time.
    requests::go_on(turn);
    if turn.memory.restart.is_some() {
        return Reason::Restarting;
    }
    if let Some(reason) = aim(turn, leader, sql) {
        return reason;
    }
    let Standby::Yes { receiver, paused, .. } = &sql.standby else { return Reason::ClusterUnknown };
    if *paused && !turn.seen.settings.pause {
        turn.act(Action::ResumeReplay);
    }
    let streams = receiver.as_ref().is_some_and(|receiver| receiver.status == "streaming");
    if streams || turn.seen.me.tags.nostream() {
        turn.memory.not_streaming_since = None;
        return Reason::Following { leader: leader.name.clone() };
    }
    examine(turn, leader)
}

/// Points the standby at its source, once for every change of it. A new leader is followed once it says that it is
/// primary: before that it has no slot for me, and a receiver that was refused waits before it tries again.
///
/// Where standbys confirm commits, one whose history parted must not get there: it would report as flushed what it has
/// of its own at the same positions (a receiver begins with the replayed position of its standby).
fn aim(turn: &mut Turn<'_>, leader: &LeaderKey, sql: &SqlFacts) -> Option<Reason> {
    let target = turn.follow_target(&leader.name);
    let ready = leader_is_primary(turn, &leader.name);
    let known = target.is_some() && ready || turn.seen.me.tags.nostream();
    if !known || turn.memory.following.as_ref() == Some(&target) {
        return None;
    }
    if turn.seen.settings.sync.mode != SyncMode::Off && target.is_some() {
        let name = leader.name.clone();
        turn.wake_in(LOOK_AGAIN, WaitingOn::Leader);
        let Some(branch) = rejoin::leader_branch(turn, leader).filter(|_| sql.is_exact()) else {
            return Some(Reason::AskingHistory { leader: name });
        };
        match turn.seen.postgres.branch().map(|mine| mine.divergence_from(&branch)) {
            Some(Divergence::None) => {}
            Some(Divergence::Forked { .. }) | None => return Some(examine(turn, leader)),
        }
    }
    turn.memory.following = Some(target.clone());
    turn.act(Action::Follow(target));
    None
}

/// It does not stream: either the leader is not there yet, or histories parted.
fn examine(turn: &mut Turn<'_>, leader: &LeaderKey) -> Reason {
    let since = *turn.memory.not_streaming_since.get_or_insert(turn.now);
    turn.wake_at((since + PATIENCE).max(turn.now + Duration::from_millis(200)), WaitingOn::Leader);
    let name = leader.name.clone();
    if turn.now < since + PATIENCE || !leader_is_primary(turn, &name) {
        return Reason::NotStreaming { leader: name };
    }
    let Some(branch) = rejoin::leader_branch(turn, leader) else {
        return Reason::NotStreaming { leader: name };
    };
    let diverged = turn.seen.postgres.branch().map(|mine| mine.divergence_from(&branch));
    match diverged {
        Some(Divergence::Forked { .. }) if !turn.seen.settings.pause => {
            turn.act(Action::Start(Job::Stop { mode: StopMode::Fast, within: STANDBY_STOP_WITHIN }));
            Reason::Diverged { leader: name }
        }
        Some(Divergence::Forked { .. }) => Reason::Diverged { leader: name },
        Some(Divergence::None) | None => Reason::NotStreaming { leader: name },
    }
}

/// My Postgres runs and does not answer.
pub(super) fn wait_for_answer(turn: &mut Turn<'_>, leadership: &Leadership) -> Reason {
    let patient = turn.now < turn.started_at() + CONSISTENT_WITHIN || turn.seen.postgres.sql.is_some();
    if let (Leadership::Other(leader), Some(None), false) = (leadership, &turn.memory.following, patient) {
        let target = turn.follow_target(&leader.name);
        turn.memory.following = Some(target.clone());
        turn.act(Action::Follow(target));
    }
    turn.wake_in(Duration::from_millis(200), WaitingOn::Postgres);
    match turn.seen.postgres.sql {
        None => Reason::PostgresStarting,
        Some(_) => Reason::PostgresSilent,
    }
}

impl Turn<'_> {
    /// True if `asked_at` is recent enough for an answer that shows the present.
    pub(super) fn is_recent(&self, asked_at: Moment) -> bool {
        self.now < asked_at + Duration::from_secs(3)
    }
}
