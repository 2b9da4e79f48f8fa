//! How fast `/primary` answers: as often as it can on one processor, and on a schedule while something else happens.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::load::{Clients, Load, Taken, pin_supervisor};
use crate::idle::{ticks, ticks_a_second};
use crate::rig::{Rig, connect};

const PATH: &str = "/primary";
/// Requests a second on the schedule.
const SCHEDULE: Load = Load::Schedule(1000);
/// A base backup of this many rows of a kilobyte takes a while.
const ROWS: u32 = 300_000;
const CLONED_WITHIN: Duration = Duration::from_secs(120);

/// As often as it can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rate {
    /// By the primary, on the processor that it has for itself.
    pub(crate) a_second: f64,
    /// In a second of the supervisor's processor time: what else the machine does matters less.
    pub(crate) a_processor_second: f64,
    /// All but one in a hundred took no longer.
    pub(crate) p99_ms: f64,
}

/// How fast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answers {
    /// A new connection for each request.
    pub(crate) new_connections: Rate,
    /// The same connection again; `None` where it is closed after each answer.
    pub(crate) kept_connections: Option<Rate>,
    /// On the schedule, while nothing else happens: all but one in a hundred took no longer.
    pub(crate) idle_p99_ms: f64,
    /// While a standby is cloned from this member.
    pub(crate) clone_p99_ms: f64,
    /// While etcd is away, for two fifths of the TTL.
    pub(crate) etcd_away_p99_ms: f64,
}

/// Asks the primary for so long in each way. The supervisor stays on its processor.
pub(super) async fn ask(rig: &mut Rig, span: Duration) -> Result<Answers> {
    let primary = rig.wait_for_leader(span).await?;
    let address: SocketAddr = format!("{}:8008", rig.members[primary].address()).parse()?;
    let supervisor = rig.members[primary].supervisor().context("there is a supervisor")?;
    pin_supervisor(supervisor)?;
    let keeps = rig.plan.system.is_ours();
    let answers = Answers {
        new_connections: rate(supervisor, address, Load::NewConnections, span).await?,
        kept_connections: match keeps {
            true => Some(rate(supervisor, address, Load::KeptConnections, span).await?),
            false => None,
        },
        idle_p99_ms: {
            let clients = Clients::start(address, PATH, SCHEDULE);
            tokio::time::sleep(span).await;
            p99(&ended(clients).await?)
        },
        clone_p99_ms: while_cloning(rig, primary, address).await?,
        etcd_away_p99_ms: while_etcd_is_away(rig, address).await?,
    };
    rig.wait_until_well(CLONED_WITHIN).await?;
    Ok(answers)
}

async fn rate(supervisor: i32, address: SocketAddr, load: Load, span: Duration) -> Result<Rate> {
    let used = || ticks(&supervisor.to_string()).map_err(anyhow::Error::msg);
    let before = used()?;
    let clients = Clients::start(address, PATH, load);
    tokio::time::sleep(span).await;
    let taken = ended(clients).await?;
    let processor_seconds = (used()? - before) as f64 / ticks_a_second();
    let count = taken.took.len() as f64;
    Ok(Rate {
        a_second: count / taken.lasted.as_secs_f64(),
        a_processor_second: count / processor_seconds.max(0.01),
        p99_ms: p99(&taken),
    })
}

async fn ended(clients: Clients) -> Result<Taken> {
    let taken = tokio::task::spawn_blocking(|| clients.end()).await??;
    if taken.unanswered > 0 {
        eprintln!(
            "{} of {} requests were not answered",
            taken.unanswered,
            taken.took.len() + taken.unanswered
        );
    }
    Ok(taken)
}

fn p99(taken: &Taken) -> f64 {
    taken.milliseconds(990)
}

/// A standby is wiped, and copies this member.
async fn while_cloning(rig: &mut Rig, primary: usize, address: SocketAddr) -> Result<f64> {
    let session = connect(rig.members[primary].address(), "postgres").await?;
    let filler = format!("CREATE TABLE filler AS SELECT repeat('x', 1000) FROM generate_series(1, {ROWS})");
    session.client.batch_execute(&filler).await?;
    let standby = (primary + 1) % rig.members.len();
    let copies = async |rig: &Rig| {
        let answer = rig.members[standby].get("/patroni", Duration::from_secs(1)).await;
        answer.is_some_and(|answer| answer.json()["state"] == "creating replica")
    };
    rig.members[standby].send("POST", "/reinitialize", &json!({ "force": true })).await?;
    let by = Instant::now() + CLONED_WITHIN;
    while !copies(rig).await && Instant::now() < by {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let clients = Clients::start(address, PATH, SCHEDULE);
    while copies(rig).await && Instant::now() < by {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let taken = ended(clients).await?;
    eprintln!("the clone was watched for {:.1} s", taken.lasted.as_secs_f64());
    rig.wait_until_well(CLONED_WITHIN).await?;
    session.client.batch_execute("DROP TABLE filler").await?;
    Ok(p99(&taken))
}

/// The requests begin when etcd is gone, and end before it comes back.
async fn while_etcd_is_away(rig: &mut Rig, address: SocketAddr) -> Result<f64> {
    for server in 0..rig.etcd.size() {
        rig.etcd.kill(server);
    }
    let clients = Clients::start(address, PATH, SCHEDULE);
    tokio::time::sleep(rig.ttl() * 2 / 5).await;
    let taken = ended(clients).await?;
    for server in 0..rig.etcd.size() {
        rig.etcd.spawn(&rig.place, server)?;
    }
    rig.etcd.wait_until_healthy().await?;
    Ok(p99(&taken))
}
