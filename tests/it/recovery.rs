//! A crash recovery of the primary that takes long.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::libc;
use serde_json::json;

use crate::support::{Cluster, Plan, give, processes};

/// A recovery that stands still, without a stopped process: PostgreSQL waits for a file that it reads at the beginning.
struct LongRecovery {
    file: PathBuf,
    content: Vec<u8>,
}

impl LongRecovery {
    /// Kills the postmaster of m1, and waits for the recovery of the next one.
    async fn begin(cluster: &Cluster) -> LongRecovery {
        let primary = &cluster.members[0];
        primary.sql("CREATE TABLE kept AS SELECT 7 AS id").await.expect("m1 leads");
        let file = primary.data().join("pg_logical/replorigin_checkpoint");
        let content = std::fs::read(&file).expect("each checkpoint writes it");
        std::fs::remove_file(&file).expect("ours");
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR)
            .expect("our own place is writable");
        give(&file);
        let before = primary.postmaster();
        primary.kill_postmaster();
        cluster
            .wait_until(Duration::from_secs(20), "m1 recovers", async || {
                primary.postmaster().is_some_and(|now| Some(now) != before)
                    && processes::titled(&primary.data(), |title| title.contains(": startup")).is_some()
            })
            .await;
        LongRecovery { file, content }
    }

    /// It goes on, as whoever reads the file is there.
    fn end(self) {
        let file = std::fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&self.file);
        file.and_then(|mut file| file.write_all(&self.content)).expect("PostgreSQL reads it");
    }
}

/// m1 leads throughout, its PostgreSQL recovers, and nobody is promoted beside it.
async fn leads_on(cluster: &Cluster, span: Duration) {
    let postmaster = cluster.members[0].postmaster();
    cluster
        .stays(span, "m1 leads and recovers, and m2 is a standby", async || {
            cluster.etcd.get("/service/herd/leader").await.as_deref() == Some("m1")
                && cluster.members[0].postmaster() == postmaster
                && cluster.members[0].sql("SELECT 1").await.is_err()
                && cluster.members[1].value("SELECT pg_is_in_recovery()").await == "t"
        })
        .await;
}

/// It serves again on its timeline, with all that it had.
async fn serves_again(cluster: &Cluster) {
    cluster.wait_until_writable(0, Duration::from_secs(30)).await;
    let seen = cluster.wait_until_well().await;
    assert_eq!((seen.leader(), seen.timeline()), (Some("m1"), cluster.first_timeline), "{}", cluster.story());
    assert_eq!(cluster.members[0].value("SELECT id FROM kept").await, "7");
}

/// A server that turns every connection away for half a TTL gives the lease away, unless it recovers: this takes two
/// TTLs.
#[tokio::test]
async fn a_recovery_that_is_longer_than_the_ttl_keeps_the_lease() {
    let cluster = Plan::new(2).start().await;
    let recovery = LongRecovery::begin(&cluster).await;
    leads_on(&cluster, Duration::from_secs(10)).await;
    recovery.end();
    serves_again(&cluster).await;
}

/// The supervisor is killed in the middle, and its successor adopts the PostgreSQL that recovers: it goes on under the
/// lease, for longer than the deadline that the guard had.
#[tokio::test]
async fn a_supervisor_that_restarts_during_a_recovery_leads_on() {
    let mut cluster = Plan::new(2).dynamic(json!({ "ttl": 10 })).start().await;
    let recovery = LongRecovery::begin(&cluster).await;
    let postmaster = cluster.members[0].postmaster();
    cluster.members[0].kill_supervisor();
    cluster.members[0].start();
    leads_on(&cluster, Duration::from_secs(15)).await;
    recovery.end();
    serves_again(&cluster).await;
    assert_eq!(cluster.members[0].postmaster(), postmaster, "PostgreSQL was not restarted");
}
