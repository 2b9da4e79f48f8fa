//! Another member leads and my Postgres runs as a standby.

use std::time::Duration;

use super::bootstrap::leader_is_primary;
use super::turn::Turn;
use super::{rejoin, requests, sync};
use crate::model::{
    Action, Divergence, Job, LeaderKey, Moment, Reason, SqlFacts, Standby, StopMode, WaitingOn,
};

/// A standby that does not stream for this long is examined.
const PATIENCE: Duration = Duration::from_secs(1);
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
    aim(turn, leader);
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
fn aim(turn: &mut Turn<'_>, leader: &LeaderKey) {
    let target = turn.follow_target(&leader.name);
    let ready = leader_is_primary(turn, &leader.name);
    let known = target.is_some() && ready || turn.seen.me.tags.nostream();
    if known && turn.memory.following.as_ref() != Some(&target) {
        turn.memory.following = Some(target.clone());
        turn.act(Action::Follow(target));
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
pub(super) fn wait_for_answer(turn: &mut Turn<'_>) -> Reason {
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
