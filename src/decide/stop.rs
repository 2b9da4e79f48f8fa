//! Stopping PostgreSQL: how, and how long that may take.

use std::time::Duration;

use super::tick::Tick;
use crate::model::{Action, Job, StopMode};

/// SIGKILL follows an immediate stop this soon: the guard's deadline is close.
const BEFORE_FENCE_WITHIN: Duration = Duration::from_millis(500);
/// How long the clean stop of a standby may take before it becomes an immediate one.
const STANDBY_STOP_WITHIN: Duration = Duration::from_secs(30);
/// How long a stop may take when the data is to be replaced, or recovered anew.
const STOP_AT_ONCE_WITHIN: Duration = Duration::from_secs(5);

/// Stops cleanly: all WAL reaches the standbys.
pub(super) fn cleanly(tick: &mut Tick<'_>) {
    cleanly_within(tick, STANDBY_STOP_WITHIN);
}

pub(super) fn cleanly_within(tick: &mut Tick<'_>, within: Duration) {
    tick.act(Action::Start(Job::Stop { mode: StopMode::Fast, within }));
}

/// Stops without a checkpoint: the data is recovered or replaced.
pub(super) fn immediately(tick: &mut Tick<'_>) {
    tick.act(Action::Start(Job::Stop { mode: StopMode::Immediate, within: STOP_AT_ONCE_WITHIN }));
}

/// Stops without a checkpoint, and kills before the guard does: Postgres must not write any more.
pub(super) fn before_fence(tick: &mut Tick<'_>) {
    tick.act(Action::Start(Job::Stop { mode: StopMode::Immediate, within: BEFORE_FENCE_WITHIN }));
}
