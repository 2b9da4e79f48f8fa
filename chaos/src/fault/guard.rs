//! The guard is killed or stands still: a primary must not go on for long without one.

use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;

use super::{Outcome, Stage};
use crate::rig::{is_alive, is_stopped, signal_all, wait_for};

const HAPPENS_WITHIN: Duration = Duration::from_secs(5);

/// Kills it. The supervisor replaces it, or its PostgreSQL is no primary any more.
pub(super) async fn kill(stage: &mut Stage<'_>) -> Result<Outcome> {
    let victim = stage.victim().await?;
    let guards = stage.rig.members[victim].guards();
    if guards.is_empty() {
        return Ok(no_guard());
    }
    stage.note_member(victim, "guard killed");
    signal_all(&guards, Signal::SIGKILL);
    wait_for("the guard is dead", HAPPENS_WITHIN, || !guards.iter().any(|pid| is_alive(*pid))).await?;
    stage.hold(stage.rig.ttl()).await;
    if stage.is_primary(victim).await {
        anyhow::ensure!(!stage.rig.members[victim].guards().is_empty(), "a primary without a guard");
    }
    Ok(Outcome::Done)
}

/// Stops it for two leases and lets it go on.
pub(super) async fn freeze(stage: &mut Stage<'_>) -> Result<Outcome> {
    let victim = stage.victim().await?;
    let guards = stage.rig.members[victim].guards();
    if guards.is_empty() {
        return Ok(no_guard());
    }
    stage.note_member(victim, "guard stopped");
    signal_all(&guards, Signal::SIGSTOP);
    let gone_or_stopped = |pid: &i32| is_stopped(*pid) || !is_alive(*pid);
    wait_for("the guard stands still", HAPPENS_WITHIN, || guards.iter().all(gone_or_stopped)).await?;
    stage.hold(stage.rig.ttl() * 2).await;
    stage.note_member(victim, "guard goes on");
    signal_all(&guards, Signal::SIGCONT);
    Ok(Outcome::Done)
}

fn no_guard() -> Outcome {
    Outcome::NotAvailable("this supervisor has no guard".to_owned())
}
