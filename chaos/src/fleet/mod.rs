//! `chaos fleet`: what many idle members cost etcd, ours and the peer's at the same TTL, in one run.
//!
//! ```text
//!  members, in clusters of three ──► counting proxy ──► one etcd for each system
//! ```
//!
//! A member is here what it is to etcd: the real client code with a member record and, for one of three, the leader
//! key. There is no PostgreSQL, so nothing changes, and nothing has to be written.

mod etcd;
mod ours;
mod peer;

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;

use etcd::{CountedEtcd, Counts};

/// What is measured.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Arguments {
    /// How many members each system has.
    #[arg(long, default_value_t = 200)]
    members: usize,
    /// Of the lease, in seconds.
    #[arg(long, default_value_t = 30)]
    ttl: u64,
    /// Seconds between two loops.
    #[arg(long, default_value_t = 10)]
    loop_wait: u64,
    /// How long to count, in seconds.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
}

/// The members of one cluster.
const CLUSTER: usize = 3;
/// Leases, leaders and records are there by then, and every watch is open.
const SETTLE: Duration = Duration::from_secs(30);

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    // Each member has two connections, each of them two ends in the proxy.
    let pid = std::process::id().to_string();
    let raised = Command::new("prlimit").args(["--pid", &pid, "--nofile=8192:"]).status()?;
    ensure!(raised.success(), "the limit of open files cannot be raised");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    println!("{}", runtime.block_on(measure(arguments))?);
    // Threads that keep leases would keep the runtime.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

async fn measure(arguments: &Arguments) -> Result<String> {
    let (our_etcd, peer_etcd) = (CountedEtcd::start("ours").await?, CountedEtcd::start("peer").await?);
    let _peers = peer::start(arguments, peer_etcd.port())?;
    let _ours = ours::start(arguments, our_etcd.port()).await?;
    let deadline = Instant::now() + Duration::from_secs(120);
    for etcd in [&our_etcd, &peer_etcd] {
        while etcd.keys().await? < keys(arguments.members) {
            ensure!(Instant::now() < deadline, "not every member has published itself");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    tokio::time::sleep(SETTLE).await;
    let before = (our_etcd.counts().await?, peer_etcd.counts().await?);
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(arguments.seconds)).await;
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    let ours = our_etcd.counts().await?.since(&before.0, minutes);
    let peer = peer_etcd.counts().await?.since(&before.1, minutes);
    Ok(table(arguments, &ours, &peer))
}

/// A member record each, and a leader key for each cluster.
fn keys(members: usize) -> usize {
    members + members.div_ceil(CLUSTER)
}

fn table(arguments: &Arguments, ours: &Counts, peer: &Counts) -> String {
    let Arguments { members, ttl, loop_wait, seconds } = arguments;
    let mut text = format!(
        "{members} idle members in clusters of three, ttl {ttl}, loop_wait {loop_wait}, counted for {seconds} s\n\n\
         | a minute, all members | Matriarch | Patroni 4.1.5 |\n| --- | --- | --- |\n"
    );
    for ((name, ours), (_, peer)) in ours.rows().into_iter().zip(peer.rows()) {
        text.push_str(&format!("| {name} | {ours:.0} | {peer:.0} |\n"));
    }
    text
}
