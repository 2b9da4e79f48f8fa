//! A Postgres that is there and does not do its work loses the lease; one that is only busy does not.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Cluster, Plan};

/// Of `Plan::new`.
const TTL: Duration = Duration::from_secs(5);

/// Stops the process and lets it go on when the test ends, whatever became of it.
struct Frozen(Pid);

impl Frozen {
    fn new(pid: u32) -> Frozen {
        let pid = Pid::from_raw(pid as i32);
        kill(pid, Signal::SIGSTOP).expect("the process is there");
        Frozen(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// Another member leads within two TTLs, and m1 comes back behind it; its log says why.
async fn is_failed_over(cluster: &Cluster, why: &str) -> usize {
    let successor = cluster.wait_for_successor(0, TTL * 2).await;
    assert!(cluster.members[0].log_text().contains(why), "{why}\n{}", cluster.story());
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some(cluster.members[successor].name.as_str()));
    assert_eq!(seen.timeline(), cluster.first_timeline + 1);
    successor
}

/// The postmaster alone is stopped. Old connections go on working, so only a new one can tell.
#[tokio::test]
async fn a_frozen_postmaster_loses_the_lease() {
    let cluster = Plan::new(2).start().await;
    let postmaster = cluster.members[0].postmaster().expect("it runs");
    let frozen = Frozen::new(postmaster);
    cluster.wait_for_successor(0, TTL * 2).await;
    drop(frozen);
    // Thawed or killed: it never takes a write again as a primary of the old term.
    cluster
        .stays(Duration::from_secs(1), "the old primary is no second one", async || {
            cluster.members[0].value("SELECT NOT pg_is_in_recovery()").await != "t"
        })
        .await;
    is_failed_over(&cluster, "the postmaster is stopped").await;
}

/// Neither a connection nor a write needs it, until it is too late.
#[tokio::test]
async fn a_frozen_checkpointer_loses_the_lease() {
    let cluster = Plan::new(2).start().await;
    let _frozen = Frozen::new(cluster.members[0].process("checkpointer"));
    is_failed_over(&cluster, "the checkpointer is stopped").await;
}

#[tokio::test]
async fn a_frozen_walwriter_loses_the_lease() {
    let cluster = Plan::new(2).start().await;
    let _frozen = Frozen::new(cluster.members[0].process("walwriter"));
    is_failed_over(&cluster, "the walwriter is stopped").await;
}
