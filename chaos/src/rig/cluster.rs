//! The whole: built from a plan, asked whether it is well, released and stopped.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokio::time::timeout;

use super::config::{Mode, System};
use super::etcd::Etcd;
use super::member::Member;
use super::namespaces::make_bridge;
use super::place::Place;
use super::session::{Session, connect};

/// initdb, two base backups and the first streaming, on a busy machine with two cores.
const BOOTSTRAP_WITHIN: Duration = Duration::from_secs(180);
const PROBE_WITHIN: Duration = Duration::from_millis(1000);
const QUERY_WITHIN: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A standby that lacks no more bytes than this has caught up. After a cut, a walsender shows `streaming` all the time,
/// while TCP waits long before it tries again.
const CAUGHT_UP: u64 = 65_536;

/// What to build.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Ours or the peer.
    pub(crate) system: System,
    /// How many members.
    pub(crate) members: usize,
    /// How commits wait.
    pub(crate) mode: Mode,
    /// The binary under test, when it is not the one beside this program.
    pub(crate) program: Option<PathBuf>,
    /// Data in memory, or on disk.
    pub(crate) in_memory: bool,
}

/// A running cluster.
#[derive(Debug)]
pub(crate) struct Rig {
    /// What it was built from.
    pub(crate) plan: Plan,
    /// Where it lives.
    pub(crate) place: Place,
    /// Its etcd.
    pub(crate) etcd: Etcd,
    /// In order of their names.
    pub(crate) members: Vec<Member>,
}

impl Rig {
    /// Starts everything, `m1` first, and waits until all are well. The caller is in the sandbox.
    pub(crate) async fn start(plan: Plan, folder: &Path) -> Result<Rig> {
        let place = Place::new(folder, plan.program.as_deref(), plan.in_memory)?;
        plan.system.furnish(&place)?;
        make_bridge()?;
        let etcd = Etcd::start(&place, 3).await?;
        let mut members = Vec::new();
        for number in 1..=plan.members {
            members.push(Member::prepare(&plan.system, plan.mode, &place, &etcd.hosts(), number)?);
        }
        let mut rig = Rig { plan, place, etcd, members };
        rig.members[0].start(&rig.plan.system, &rig.place)?;
        rig.wait_for_leader(BOOTSTRAP_WITHIN).await?;
        for member in &mut rig.members[1..] {
            member.start(&rig.plan.system, &rig.place)?;
        }
        rig.wait_until_well(BOOTSTRAP_WITHIN).await?;
        Ok(rig)
    }

    /// Of the lease.
    pub(crate) fn ttl(&self) -> Duration {
        Duration::from_secs(self.plan.system.ttl())
    }

    /// The member that says it is primary, as a load balancer asks.
    pub(crate) async fn primary(&self) -> Option<usize> {
        let mut found = None;
        for (index, member) in self.members.iter().enumerate() {
            let answer = member.get("/primary", PROBE_WITHIN).await;
            if answer.is_some_and(|answer| answer.status == 200) {
                if found.is_some() {
                    return None;
                }
                found = Some(index);
            }
        }
        found
    }

    /// Waits until one says so.
    pub(crate) async fn wait_for_leader(&mut self, within: Duration) -> Result<usize> {
        let by = Instant::now() + within;
        loop {
            if let Some(primary) = self.primary().await {
                return Ok(primary);
            }
            if Instant::now() > by {
                bail!("nobody is primary within {} s", within.as_secs());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until another than `old` says so.
    pub(crate) async fn wait_for_successor(&mut self, old: usize, within: Duration) -> Result<usize> {
        let by = Instant::now() + within;
        loop {
            for (index, member) in self.members.iter().enumerate().filter(|(index, _)| *index != old) {
                let answer = member.get("/primary", PROBE_WITHIN).await;
                if answer.is_some_and(|answer| answer.status == 200) {
                    return Ok(index);
                }
            }
            if Instant::now() > by {
                bail!("nobody succeeds {} within {} s", self.members[old].name, within.as_secs());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until there is one primary with which all others have caught up, as synchronous as the plan asks for.
    /// Supervisors that end by themselves are started again. Gives the primary.
    pub(crate) async fn wait_until_well(&mut self, within: Duration) -> Result<usize> {
        let by = Instant::now() + within;
        loop {
            for member in &mut self.members {
                member.revive(&self.plan.system, &self.place)?;
            }
            let ill = match self.look().await {
                Ok(primary) => return Ok(primary),
                Err(ill) => ill,
            };
            if Instant::now() > by {
                return Err(ill.context(format!("not well within {} s", within.as_secs())));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The primary if all is well, else what is not.
    pub(crate) async fn look(&self) -> Result<usize> {
        let primary = self.primary().await.context("there is no one primary")?;
        for member in &self.members {
            let answer = member
                .get("/health", PROBE_WITHIN)
                .await
                .with_context(|| format!("{} does not answer /health", member.name))?;
            if answer.status != 200 {
                bail!("{} answers {} to /health", member.name, answer.status);
            }
        }
        let session = connect(self.members[primary].address(), "postgres").await?;
        let sql = format!(
            "SELECT count(DISTINCT application_name) FILTER (WHERE state = 'streaming' \
             AND pg_wal_lsn_diff(pg_current_wal_flush_lsn(), flush_lsn) < {CAUGHT_UP}), \
             count(DISTINCT application_name) FILTER (WHERE sync_state IN ('sync', 'quorum')) \
             FROM pg_stat_replication"
        );
        let asked = timeout(QUERY_WITHIN, session.client.query_one(&sql, &[])).await;
        let row = asked.context("the primary answers in time")??;
        let (streaming, synchronous): (i64, i64) = (row.get(0), row.get(1));
        let wanted = self.members.len() as i64 - 1;
        if streaming < wanted {
            bail!("{streaming} of {wanted} standbys stream and have caught up");
        }
        let wanted = match self.plan.mode {
            Mode::Async => 0,
            Mode::On | Mode::OnLease => 1,
            Mode::Quorum | Mode::QuorumLease => wanted,
        };
        if synchronous < wanted {
            bail!("{synchronous} of {wanted} standbys are synchronous");
        }
        Ok(primary)
    }

    /// A superuser's session on the primary.
    pub(crate) async fn session(&self) -> Result<Session> {
        let primary = self.primary().await.context("there is no one primary")?;
        connect(self.members[primary].address(), "postgres").await
    }

    /// Asks for a switchover away from `leader`, and gives what is wrong when it is refused.
    pub(crate) async fn switchover(&self, leader: usize) -> Result<()> {
        let leader = &self.members[leader];
        let answer = leader.send("POST", "/switchover", &json!({ "leader": leader.name })).await?;
        if answer.status != 200 {
            bail!("the switchover was refused ({}): {}", answer.status, answer.body.trim());
        }
        Ok(())
    }

    /// Undoes everything that a fault may have left: thaws, connects, starts.
    pub(crate) fn release(&mut self) -> Result<()> {
        self.etcd.release(&self.place)?;
        for member in &mut self.members {
            member.release();
            if member.supervisor().is_none() {
                member.start(&self.plan.system, &self.place)?;
            }
        }
        Ok(())
    }

    /// Ends every process. What is left goes with the sandbox.
    pub(crate) fn stop(&mut self) {
        for member in &mut self.members {
            member.release();
            member.kill_all();
        }
        for index in 0..self.etcd.size() {
            self.etcd.kill(index);
        }
    }
}
