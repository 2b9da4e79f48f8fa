//! A Postgres that runs but does not work loses the lease; a busy one does not.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::support::{Cluster, Disk, Plan, connect, settings};

/// Of `Plan::new`.
const TTL: Duration = Duration::from_secs(5);

/// Stops the process, and lets it continue when the test ends, even after a failure.
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

/// Another member leads within two TTLs, and m1 comes back as its standby; m1's log has the reason.
async fn is_failed_over(cluster: &Cluster, why: &str) -> usize {
    let successor = cluster.wait_for_successor(0, TTL * 2).await;
    assert!(cluster.members[0].log_text().contains(why), "{why}\n{}", cluster.story());
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some(cluster.members[successor].name.as_str()));
    assert_eq!(seen.timeline(), cluster.first_timeline + 1);
    successor
}

/// Only the postmaster is stopped. Old connections continue to work, so only a new one shows it.
#[tokio::test]
async fn a_frozen_postmaster_loses_the_lease() {
    let cluster = Plan::new(2).start().await;
    let postmaster = cluster.members[0].postmaster().expect("it runs");
    let frozen = Frozen::new(postmaster);
    cluster.wait_for_successor(0, TTL * 2).await;
    drop(frozen);
    // Thawed or killed: it never accepts a write again as a primary of the old term.
    cluster
        .stays(Duration::from_secs(1), "the old primary is no second one", async || {
            cluster.members[0].value("SELECT NOT pg_is_in_recovery()").await != "t"
        })
        .await;
    // The reason depends on the proof that fails first.
    is_failed_over(&cluster, "PostgreSQL is unhealthy").await;
}

/// Neither a connection nor a write needs the process, until it is too late.
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

/// m1 continues to lead as the same primary in the same term, for two TTLs; `client` writes there throughout.
async fn leads_on(cluster: &Cluster, client: &tokio_postgres::Client) {
    let (term, postmaster) = (leader_key(cluster).await, cluster.members[0].postmaster());
    client
        .batch_execute("CREATE TABLE IF NOT EXISTS written (at timestamptz)")
        .await
        .expect("m1 takes writes");
    cluster
        .stays(TTL * 2, "m1 leads and takes writes", async || {
            let written = client.batch_execute("INSERT INTO written VALUES (now())").await;
            written.is_ok()
                && cluster.members[0].postmaster() == postmaster
                && leader_key(cluster).await == term
        })
        .await;
}

async fn leader_key(cluster: &Cluster) -> Option<String> {
    cluster.etcd.get("/service/herd/leader").await
}

/// Every connection is in use, including the reserved ones, and the probe's own are ended: no reason to fail over.
#[tokio::test]
async fn a_server_without_free_connections_keeps_the_lease() {
    let few = json!({ "postgresql": { "parameters": { "max_connections": 12 } } });
    let cluster = Plan::new(2).dynamic(few).start().await;
    let primary = &cluster.members[0];
    primary
        .sql(&format!("CREATE ROLE clerk LOGIN PASSWORD '{}'", crate::support::PASSWORD.replace('\'', "''")))
        .await
        .expect("a role");
    let writer = connect(&settings(&[primary.postgres])).await.expect("there is room");
    let mut guests = Vec::new();
    for user in ["clerk", "postgres"] {
        let mut settings = settings(&[primary.postgres]);
        settings.user(user);
        while let Ok(guest) = connect(&settings).await {
            guests.push(guest);
        }
        leads_on(&cluster, &writer).await;
    }
    let others =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'Matriarch%'";
    writer.batch_execute(others).await.expect("a superuser may");
    let mut settings = settings(&[primary.postgres]);
    settings.user("postgres");
    while let Ok(guest) = connect(&settings).await {
        guests.push(guest);
    }
    leads_on(&cluster, &writer).await;
}

/// Expensive monitoring, and statement limits that would affect the supervisor's own statements: no reason to fail
/// over.
#[tokio::test]
async fn expensive_queries_and_statement_timeouts_keep_the_lease() {
    let cluster = Plan::new(2).start().await;
    let writer = connect(&settings(&[cluster.members[0].postgres])).await.expect("it runs");
    for sql in [
        "ALTER ROLE postgres SET statement_timeout = '1ms'",
        "ALTER ROLE postgres SET default_transaction_read_only = on",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'Matriarch%'",
    ] {
        writer.batch_execute(sql).await.expect("a superuser may");
    }
    let mut monitors = Vec::new();
    for _ in 0..4 {
        let monitor = connect(&settings(&[cluster.members[0].postgres])).await.expect("there is room");
        monitors.push(tokio::spawn(async move {
            let dear = "SET statement_timeout = 0; SELECT count(*) FROM generate_series(1, 1000000) AS one, pg_stat_activity";
            while monitor.batch_execute(dear).await.is_ok() {}
        }));
    }
    leads_on(&cluster, &writer).await;
    monitors.iter().for_each(tokio::task::JoinHandle::abort);
}

/// The supervisor cannot log in any more: it has no facts, but Postgres is healthy.
#[tokio::test]
async fn a_wrong_superuser_password_keeps_the_lease() {
    let cluster = Plan::new(2).start().await;
    let primary = &cluster.members[0];
    let writer = connect(&settings(&[primary.postgres])).await.expect("it runs");
    let mut config = primary.read_config();
    config["postgresql"]["authentication"]["superuser"]["password"] = json!("wrong");
    primary.write_config(&config);
    primary.signal_supervisor(Signal::SIGHUP);
    leads_on(&cluster, &writer).await;
    for sql in [
        "ALTER ROLE postgres PASSWORD 'another'",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'Matriarch%'",
    ] {
        writer.batch_execute(sql).await.expect("a superuser may");
    }
    leads_on(&cluster, &writer).await;
}

/// The primary's disk is full: another member with free space leads. When there is space again m1 comes back.
#[tokio::test]
async fn a_full_disk_loses_the_lease() {
    let mut cluster = Plan::new(2).prepare().await;
    let Some(disk) = Disk::on(&cluster.members[0].data(), 300) else { return };
    cluster.start().await;
    disk.fill();
    let successor = cluster.wait_for_successor(0, TTL * 2).await;
    assert!(cluster.members[0].log_text().contains("No space left on device"), "{}", cluster.story());
    disk.make_room();
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some(cluster.members[successor].name.as_str()));
}

/// No other member can lead: a primary on a full disk continues, so that clients can read and free space.
#[tokio::test]
async fn a_full_disk_of_the_only_member_keeps_the_lease() {
    let mut cluster = Plan::new(1).prepare().await;
    let Some(disk) = Disk::on(&cluster.members[0].data(), 300) else { return };
    cluster.start().await;
    let reader = connect(&settings(&[cluster.members[0].postgres])).await.expect("it runs");
    let (term, postmaster) = (leader_key(&cluster).await, cluster.members[0].postmaster());
    disk.fill();
    cluster
        .wait_until(TTL * 2, "the log says so", async || {
            cluster.members[0].log_text().contains("keeps serving because no other member can lead")
        })
        .await;
    cluster
        .stays(TTL * 2, "m1 leads and can be read", async || {
            let read = reader.query_one("SELECT count(*) FROM pg_class", &[]).await.is_ok();
            read && cluster.members[0].postmaster() == postmaster && leader_key(&cluster).await == term
        })
        .await;
    disk.make_room();
    cluster.wait_until_writable(0, TTL).await;
}

/// The next leader's `restore_command` hangs, so its promotion does not end: another member leads after it.
#[tokio::test]
async fn a_promotion_that_hangs_gives_the_lease_to_the_next() {
    let place = crate::support::Place::new();
    let hang = place.path().join("hang");
    let command = format!("while [ -e {} ]; do sleep 0.1; done; false", hang.display());
    let hanging = json!({
        "postgresql": { "recovery_conf": { "restore_command": command } },
        "tags": { "failover_priority": 2 },
    });
    let mut cluster = Plan::new(3).member(1, hanging).start().await;
    std::fs::write(&hang, "").expect("our own place is writable");
    cluster.members[0].kill_all();
    cluster.wait_for(TTL * 6, "m3 leads", |seen| seen.leader() == Some("m3")).await;
    cluster.wait_until_writable(2, TTL).await;
    let log = cluster.members[1].log_text();
    assert!(log.contains("the promotion makes no progress"), "{}", cluster.story());
    std::fs::remove_file(&hang).expect("it is there");
    cluster.members[0].start();
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some("m3"));
}

/// The disk under the primary hangs: a process that writes waits, and cannot even be killed. The key is never released
/// before the last process is gone, so the lease has to expire; then another member leads. When the disk continues, the
/// waiting processes die, and m1 comes back.
#[tokio::test]
async fn a_hung_disk_loses_the_lease() {
    let mut cluster = Plan::new(2).prepare().await;
    let Some(disk) = Disk::on_device(&cluster.members[0].data(), 400) else { return };
    cluster.start().await;
    let client = connect(&settings(&[cluster.members[0].postgres])).await.expect("it runs");
    let hang = disk.freeze();
    let write = tokio::spawn(async move { client.batch_execute("CREATE TABLE waited ()").await });
    let successor = cluster.wait_for_successor(0, TTL * 3).await;
    drop(hang);
    assert!(write.await.expect("it does not panic").is_err(), "nothing is acknowledged after the fact");
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some(cluster.members[successor].name.as_str()));
}
