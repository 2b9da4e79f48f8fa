//! The supervisor is killed or stands still. Its PostgreSQL is well, and must not outlive the lease as a primary.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::{Outcome, Stage};
use crate::rig::{is_alive, is_stopped, signal_all, wait_for};

const HAPPENS_WITHIN: Duration = Duration::from_secs(5);
/// Somebody would have started it again by then.
const RESTART_AFTER: Duration = Duration::from_millis(1500);

/// Kills it and starts it again after a failover.
pub(super) async fn kill(stage: &mut Stage<'_>) -> Result<Outcome> {
    let victim = stage.victim().await?;
    let was_primary = stage.is_primary(victim).await;
    kill_one(stage, victim)?;
    stage.wait_for_failover(victim, was_primary).await;
    start(stage, victim)
}

/// Kills it and starts it again within two seconds.
pub(super) async fn restart(stage: &mut Stage<'_>) -> Result<Outcome> {
    let victim = stage.victim().await?;
    kill_one(stage, victim)?;
    stage.hold(RESTART_AFTER).await;
    start(stage, victim)
}

/// Stops it (SIGSTOP) and lets it go on after a failover.
pub(super) async fn freeze(stage: &mut Stage<'_>) -> Result<Outcome> {
    let victim = stage.victim().await?;
    let was_primary = stage.is_primary(victim).await;
    let pid = stage.rig.members[victim].supervisor().context("the victim has a supervisor")?;
    stage.note_member(victim, "supervisor stopped");
    signal_all(&[pid], Signal::SIGSTOP);
    wait_for("the supervisor stands still", HAPPENS_WITHIN, || is_stopped(pid)).await?;
    stage.wait_for_failover(victim, was_primary).await;
    stage.note_member(victim, "supervisor goes on");
    signal_all(&[pid], Signal::SIGCONT);
    Ok(Outcome::Done)
}

fn kill_one(stage: &mut Stage<'_>, victim: usize) -> Result<()> {
    let pid = stage.rig.members[victim].supervisor().context("the victim has a supervisor")?;
    stage.note_member(victim, "supervisor killed");
    stage.rig.members[victim].kill_supervisor()?;
    anyhow::ensure!(!is_alive(pid), "the supervisor lives on");
    Ok(())
}

fn start(stage: &mut Stage<'_>, victim: usize) -> Result<Outcome> {
    stage.note_member(victim, "supervisor started");
    let rig = &mut *stage.rig;
    rig.members[victim].start(&rig.plan.system, &rig.place)?;
    Ok(Outcome::Done)
}
