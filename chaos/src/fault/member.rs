//! A whole member dies or stands still, as its machine would.

use std::time::Duration;

use anyhow::Result;

use super::{Outcome, Stage};
use crate::rig::{is_alive, wait_for};

const HAPPENS_WITHIN: Duration = Duration::from_secs(10);

/// Pulls its cable, kills every process, and brings it back after a failover.
pub(super) async fn kill(stage: &mut Stage<'_>) -> Result<Outcome> {
    let victim = stage.victim().await?;
    let was_primary = stage.is_primary(victim).await;
    die(stage, victim).await?;
    stage.wait_for_failover(victim, was_primary).await;
    come_back(stage, victim)
}

/// Pulls the cable first: nobody is told that connections end.
pub(super) async fn die(stage: &mut Stage<'_>, victim: usize) -> Result<()> {
    stage.note_member(victim, "dead");
    let member = &mut stage.rig.members[victim];
    let processes = member.processes();
    member.namespace.link(false)?;
    member.kill_all();
    wait_for("every process is dead", HAPPENS_WITHIN, || !processes.iter().any(|pid| is_alive(*pid))).await
}

/// Plugs the cable in and starts the supervisor.
pub(super) fn come_back(stage: &mut Stage<'_>, victim: usize) -> Result<Outcome> {
    stage.note_member(victim, "comes back");
    let rig = &mut *stage.rig;
    rig.members[victim].namespace.link(true)?;
    rig.members[victim].start(&rig.plan.system, &rig.place)?;
    Ok(Outcome::Done)
}

/// Freezes every process at once and thaws them after a failover.
pub(super) async fn freeze(stage: &mut Stage<'_>) -> Result<Outcome> {
    let victim = stage.victim().await?;
    let was_primary = stage.is_primary(victim).await;
    let how = if stage.rig.members[victim].has_cgroup() { "by its cgroup" } else { "process by process" };
    stage.note_member(victim, &format!("frozen {how}"));
    let member = &stage.rig.members[victim];
    member.freeze(true)?;
    wait_for("every process stands still", HAPPENS_WITHIN, || member.is_frozen()).await?;
    stage.wait_for_failover(victim, was_primary).await;
    stage.note_member(victim, "thawed");
    stage.rig.members[victim].freeze(false)?;
    Ok(Outcome::Done)
}
