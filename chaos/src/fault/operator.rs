//! What operators do in between: not a fault, and no row may be lost for it.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Outcome, Stage};

/// Switches over to whoever is chosen.
pub(super) async fn switchover(stage: &mut Stage<'_>) -> Result<Outcome> {
    let primary = stage.rig.wait_for_leader(stage.rig.ttl()).await?;
    stage.note_member(primary, "switched over");
    stage.rig.switchover(primary).await?;
    let ttl = stage.rig.ttl();
    let successor = stage.rig.wait_for_successor(primary, ttl * 2).await?;
    ensure!(successor != primary, "the primary is the same");
    Ok(Outcome::Done)
}

/// Restarts the PostgreSQL of one member.
pub(super) async fn restart(stage: &mut Stage<'_>) -> Result<Outcome> {
    let victim = stage.victim().await?;
    let before = stage.rig.members[victim].postmaster();
    stage.note_member(victim, "PostgreSQL restarted");
    let answer = stage.rig.members[victim].send("POST", "/restart", &json!({})).await?;
    ensure!(answer.status == 200, "the restart was refused ({}): {}", answer.status, answer.body.trim());
    ensure!(stage.rig.members[victim].postmaster() != before, "the postmaster is the same");
    Ok(Outcome::Done)
}
