//! The supervisor goes and comes back; its Postgres stays.

use std::time::Duration;

use serde_json::json;

use crate::support::{Plan, Writer};

/// The primary's supervisor is killed and started again within the TTL. It finds its Postgres running, adopts it, and
/// goes on leading: no restart, no failover, no write lost, none even interrupted.
#[tokio::test]
async fn a_restarted_supervisor_adopts_its_primary() {
    let mut cluster = Plan::new(2).dynamic(json!({ "ttl": 10 })).start().await;
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    writer.wait_for_more(20, Duration::from_secs(10)).await;
    let before = cluster.members[0].postmaster().expect("it runs");
    cluster.members[0].kill_supervisor();
    writer.wait_for_more(10, Duration::from_secs(10)).await;
    cluster.members[0].start();
    cluster
        .wait_until(Duration::from_secs(30), "m1 answers as primary again", async || {
            cluster.members[0].status("/primary").await == 200
        })
        .await;
    let seen = cluster.wait_until_well().await;
    assert_eq!((seen.leader(), seen.timeline()), (Some("m1"), cluster.first_timeline));
    writer.wait_for_more(10, Duration::from_secs(10)).await;
    assert_eq!(cluster.members[0].postmaster(), Some(before), "Postgres was not restarted");
    let history = writer.stop_and_verify(&cluster.members[0]).await;
    assert!(history.unknown.is_empty(), "no client was disturbed: {:?}", history.unknown);
}

/// The same for a standby: it streams on, with the same postmaster.
#[tokio::test]
async fn a_restarted_supervisor_adopts_its_standby() {
    let mut cluster = Plan::new(2).start().await;
    let before = cluster.members[1].postmaster().expect("it runs");
    cluster.members[1].kill_supervisor();
    cluster.members[1].start();
    cluster
        .wait_until(Duration::from_secs(30), "m2 answers as standby again", async || {
            cluster.members[1].status("/replica").await == 200
        })
        .await;
    cluster.wait_until_well().await;
    assert_eq!(cluster.members[1].postmaster(), Some(before), "Postgres was not restarted");
}

/// etcd loses everything while the members run. The running primary writes the cluster down again; no standby does.
#[tokio::test]
async fn an_empty_etcd_is_rebuilt_by_the_primary() {
    let cluster = Plan::new(2).start().await;
    let before = cluster.etcd.get("/service/herd/initialize").await;
    cluster.etcd.delete_below("/service/herd").await;
    cluster
        .wait_until(Duration::from_secs(30), "initialize and config are there again", async || {
            cluster.etcd.get("/service/herd/initialize").await == before
                && cluster.etcd.get("/service/herd/config").await.is_some()
        })
        .await;
    let seen = cluster.wait_until_well().await;
    assert_eq!((seen.leader(), seen.timeline()), (Some("m1"), cluster.first_timeline));
}
