//! Actions of operators between faults. They are not faults, and no row may be lost because of them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{Outcome, Stage};

/// Of leases: from the shortest that is allowed to far above the usual ones.
const TTLS: [u64; 5] = [3, 5, 10, 20, 60];
const ASK_WITHIN: Duration = Duration::from_secs(2);

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

/// Changes the TTL to another for a while. The member that leads has no reason to stop leading.
pub(super) async fn change_ttl(stage: &mut Stage<'_>) -> Result<Outcome> {
    let primary = stage.rig.wait_for_leader(stage.rig.ttl()).await?;
    let usual = stage.rig.ttl().as_secs();
    let others: Vec<u64> = TTLS.into_iter().filter(|ttl| *ttl != usual).collect();
    let other = others[stage.rng.below(others.len() as u64) as usize];
    for (ttl, span) in [(other, stage.rig.ttl()), (usual, stage.rig.ttl() / 2)] {
        stage.note_member(primary, &format!("ttl set to {ttl} s"));
        let member = &stage.rig.members[primary];
        let answer = member.send("PATCH", "/config", &json!({ "ttl": ttl })).await?;
        ensure!(answer.status == 200, "ttl {ttl} was refused ({}): {}", answer.status, answer.body.trim());
        stage.hold(span).await;
        let config = stage.rig.members[primary].get("/config", ASK_WITHIN).await;
        let in_force = config.context("the configuration can be read")?.json()["ttl"].as_u64();
        ensure!(in_force == Some(ttl), "ttl is {in_force:?} instead of {ttl}");
        ensure!(stage.is_primary(primary).await, "a change of the ttl to {ttl} s cost the leadership");
    }
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
