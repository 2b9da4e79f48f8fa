//! PostgreSQL is killed or stands still, in part or as a whole, while its supervisor is well.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::{Outcome, Stage};
use crate::rig::{is_alive, is_stopped, signal_all, wait_for};

const HAPPENS_WITHIN: Duration = Duration::from_secs(5);

/// Kills the postmaster alone. Its children notice by themselves.
pub(super) async fn kill_postmaster(stage: &mut Stage<'_>) -> Result<Outcome> {
    let victim = stage.victim().await?;
    let postmaster = stage.rig.members[victim].postmaster().context("the victim has a postmaster")?;
    die(stage, victim, "postmaster killed", vec![postmaster]).await
}

/// Kills every process of it at once.
pub(super) async fn kill(stage: &mut Stage<'_>) -> Result<Outcome> {
    let victim = stage.victim().await?;
    let all = stage.rig.members[victim].postgres();
    die(stage, victim, "PostgreSQL killed", all).await
}

/// Stops the postmaster alone: its children go on, and nobody new gets in.
pub(super) async fn freeze_postmaster(stage: &mut Stage<'_>) -> Result<Outcome> {
    let victim = stage.victim().await?;
    let postmaster = stage.rig.members[victim].postmaster().context("the victim has a postmaster")?;
    stand_still(stage, victim, "postmaster", vec![postmaster]).await
}

/// Stops every process of it.
pub(super) async fn freeze(stage: &mut Stage<'_>) -> Result<Outcome> {
    let victim = stage.victim().await?;
    let all = stage.rig.members[victim].postgres();
    stand_still(stage, victim, "PostgreSQL", all).await
}

async fn die(stage: &mut Stage<'_>, victim: usize, what: &str, pids: Vec<i32>) -> Result<Outcome> {
    stage.note_member(victim, what);
    signal_all(&pids, Signal::SIGKILL);
    wait_for("they are dead", HAPPENS_WITHIN, || !pids.iter().any(|pid| is_alive(*pid))).await?;
    Ok(Outcome::Done)
}

async fn stand_still(stage: &mut Stage<'_>, victim: usize, who: &str, pids: Vec<i32>) -> Result<Outcome> {
    let was_primary = stage.is_primary(victim).await;
    stage.note_member(victim, &format!("{who} stopped"));
    signal_all(&pids, Signal::SIGSTOP);
    let gone_or_stopped = |pid: &i32| is_stopped(*pid) || !is_alive(*pid);
    wait_for("they stand still", HAPPENS_WITHIN, || pids.iter().all(gone_or_stopped)).await?;
    stage.wait_for_failover(victim, was_primary).await;
    stage.note_member(victim, &format!("{who} goes on"));
    signal_all(&pids, Signal::SIGCONT);
    Ok(Outcome::Done)
}
