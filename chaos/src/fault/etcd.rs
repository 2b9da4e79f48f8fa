//! etcd loses its leader, a majority, or is away as a whole.
//!
//! Some versions revoke leases that are alive when a leader that stood still goes on (etcd#15247): that costs a
//! failover, and must not cost more.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Outcome, Stage};
use crate::rig::wait_for;

const HAPPENS_WITHIN: Duration = Duration::from_secs(5);

/// Kills the leader for half a lease.
pub(super) async fn kill_leader(stage: &mut Stage<'_>) -> Result<Outcome> {
    let leader = leader(stage).await?;
    kill(stage, &[leader], stage.rig.ttl() / 2).await
}

/// Kills two of three for a lease and a half.
pub(super) async fn kill_majority(stage: &mut Stage<'_>) -> Result<Outcome> {
    let majority = majority(stage).await?;
    kill(stage, &majority, stage.rig.ttl() * 3 / 2).await
}

/// Kills all for less than half a lease; they need a while to elect a leader.
pub(super) async fn away(stage: &mut Stage<'_>) -> Result<Outcome> {
    let all: Vec<usize> = (0..stage.rig.etcd.size()).collect();
    kill(stage, &all, stage.rig.ttl() * 2 / 5).await
}

/// Stops the leader for half a lease.
pub(super) async fn freeze_leader(stage: &mut Stage<'_>) -> Result<Outcome> {
    let leader = leader(stage).await?;
    freeze(stage, &[leader], stage.rig.ttl() / 2).await
}

/// Stops two of three for a lease and a half.
pub(super) async fn freeze_majority(stage: &mut Stage<'_>) -> Result<Outcome> {
    let majority = majority(stage).await?;
    freeze(stage, &majority, stage.rig.ttl() * 3 / 2).await
}

async fn kill(stage: &mut Stage<'_>, servers: &[usize], span: Duration) -> Result<Outcome> {
    stage.note(&format!("{} killed", names(servers)));
    for server in servers {
        stage.rig.etcd.kill(*server);
        ensure!(!stage.rig.etcd.runs(*server), "a killed etcd runs");
    }
    stage.hold(span).await;
    stage.note(&format!("{} started", names(servers)));
    let rig = &mut *stage.rig;
    for server in servers {
        rig.etcd.spawn(&rig.place, *server)?;
    }
    rig.etcd.wait_until_healthy().await?;
    Ok(Outcome::Done)
}

async fn freeze(stage: &mut Stage<'_>, servers: &[usize], span: Duration) -> Result<Outcome> {
    stage.note(&format!("{} stopped", names(servers)));
    for server in servers {
        stage.rig.etcd.freeze(*server, true);
    }
    let etcd = &stage.rig.etcd;
    let all_frozen = || servers.iter().all(|server| etcd.is_frozen(*server));
    wait_for("they stand still", HAPPENS_WITHIN, all_frozen).await?;
    stage.hold(span).await;
    stage.note(&format!("{} go on", names(servers)));
    for server in servers {
        stage.rig.etcd.freeze(*server, false);
    }
    stage.rig.etcd.wait_until_healthy().await?;
    Ok(Outcome::Done)
}

async fn leader(stage: &Stage<'_>) -> Result<usize> {
    stage.rig.etcd.leader().await.context("etcd has a leader")
}

/// The leader and the one after it.
async fn majority(stage: &Stage<'_>) -> Result<Vec<usize>> {
    let leader = leader(stage).await?;
    Ok(vec![leader, (leader + 1) % stage.rig.etcd.size()])
}

fn names(servers: &[usize]) -> String {
    let names: Vec<String> = servers.iter().map(|server| format!("e{}", server + 1)).collect();
    names.join(", ")
}
