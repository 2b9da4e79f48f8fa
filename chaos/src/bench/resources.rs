//! The resource usage of idle supervisors and etcd.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::idle::{memory_kb, ticks, ticks_a_second};
use crate::rig::Rig;

/// The cost, for one member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Resources {
    /// Resident memory of the primary's supervisor.
    pub(crate) supervisor_mb: f64,
    /// Resident memory of its guard, if it has one.
    pub(crate) guard_mb: f64,
    /// Processor time of all supervisors and guards together, as a share of one processor for each member.
    pub(crate) cpu_percent: f64,
    /// Proposals that etcd commits in a minute, for the whole cluster.
    pub(crate) proposals_a_minute: f64,
}

/// Looks twice, so far apart.
pub(super) async fn look(rig: &mut Rig, span: Duration) -> Result<Resources> {
    let primary = rig.wait_for_leader(span).await?;
    let mut all = Vec::new();
    let (mut supervisor_mb, mut guard_mb) = (0.0, 0.0);
    for (index, member) in rig.members.iter_mut().enumerate() {
        let supervisor = member.supervisor().context("there is a supervisor")?;
        let guards = member.guards();
        if index == primary {
            supervisor_mb = megabytes(supervisor)?;
            for guard in &guards {
                guard_mb += megabytes(*guard)?;
            }
        }
        all.extend([supervisor]);
        all.extend(guards);
    }
    let before = (time(&all)?, rig.etcd.proposals().await.context("etcd counts proposals")?);
    let began = Instant::now();
    tokio::time::sleep(span).await;
    let after = (time(&all)?, rig.etcd.proposals().await.context("etcd counts proposals")?);
    let seconds = began.elapsed().as_secs_f64();
    let used = (after.0 - before.0) as f64 / ticks_a_second();
    Ok(Resources {
        supervisor_mb,
        guard_mb,
        cpu_percent: used / seconds / rig.members.len() as f64 * 100.0,
        proposals_a_minute: (after.1 - before.1) / seconds * 60.0,
    })
}

fn megabytes(pid: i32) -> Result<f64> {
    Ok(memory_kb(&pid.to_string()).map_err(anyhow::Error::msg)? as f64 / 1024.0)
}

fn time(pids: &[i32]) -> Result<u64> {
    pids.iter().map(|pid| ticks(&pid.to_string()).map_err(anyhow::Error::msg)).sum()
}
