//! Stopping PostgreSQL: how, and how long that may take.

use std::time::Duration;

use super::tick::Tick;
use crate::model::{Action, Job, StopMode};

/// After an immediate stop was asked for, SIGKILL follows this soon: the fence's deadline lies right behind.
const BEFORE_FENCE_WITHIN: Duration = Duration::from_millis(500);
/// How long a clean stop of a standby may take before it is cut short.
const STANDBY_STOP_WITHIN: Duration = Duration::from_secs(30);
/// How long one may take whose data is about to be replaced, or whose recovery begins anew.
const STOP_AT_ONCE_WITHIN: Duration = Duration::from_secs(5);

/// Cleanly: what was written reaches its standbys.
pub(super) fn cleanly(tick: &mut Tick<'_>) {
    cleanly_within(tick, STANDBY_STOP_WITHIN);
}

pub(super) fn cleanly_within(tick: &mut Tick<'_>, within: Duration) {
    tick.act(Action::Start(Job::Stop { mode: StopMode::Fast, within }));
}

/// Without a checkpoint: what is here is recovered, or replaced.
pub(super) fn immediately(tick: &mut Tick<'_>) {
    tick.act(Action::Start(Job::Stop { mode: StopMode::Immediate, within: STOP_AT_ONCE_WITHIN }));
}

/// Without a checkpoint, and killed before the fence does it: it must not write any more.
pub(super) fn before_fence(tick: &mut Tick<'_>) {
    tick.act(Action::Start(Job::Stop { mode: StopMode::Immediate, within: BEFORE_FENCE_WITHIN }));
}
