//! A standby dies, and then the primary, which alone has what was acknowledged meanwhile.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::member::{come_back, die};
use super::{Outcome, Stage};

/// So many rows without the standby are enough.
const ROWS: u64 = 50;
/// A standby that is back is synchronous again within this, or not.
const BACK_FOR_MS: u64 = 3_000;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// When commits go on without the standby the primary dies, too: before the standby is back or a little after. It comes
/// back last.
pub(super) async fn kill(stage: &mut Stage<'_>) -> Result<Outcome> {
    let primary = stage.rig.wait_for_leader(stage.rig.ttl() * 2).await?;
    let standby = (primary + 1) % stage.rig.members.len();
    let (is_back_first, back_for) = (stage.rng.permille(500), stage.rng.millis(0, BACK_FOR_MS));
    if stage.rng.permille(500) {
        die(stage, standby).await?;
    } else {
        stage.note_member(standby, "every process killed, and the cable stays");
        stage.rig.members[standby].kill_all();
    }
    wait_for_rows(stage).await;
    if is_back_first {
        come_back(stage, standby)?;
        stage.hold(back_for).await;
        die(stage, primary).await?;
    } else {
        die(stage, primary).await?;
        come_back(stage, standby)?;
    }
    match stage.rig.wait_for_successor(primary, stage.rig.ttl() * 3 / 2).await {
        Ok(successor) => stage.note_member(successor, "is the new primary"),
        Err(nobody) => {
            stage.nobody = true;
            stage.note(&nobody.to_string());
        }
    }
    come_back(stage, primary)
}

/// Where every commit must have a standby, they stop.
async fn wait_for_rows(stage: &Stage<'_>) {
    let rows = || stage.history.oracle(|oracle| oracle.acknowledged());
    let (by, before) = (Instant::now() + stage.rig.ttl() * 3, rows());
    while rows() < before + ROWS && Instant::now() < by {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
