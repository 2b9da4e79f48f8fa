//! Failsafe mode: while etcd does not answer, a primary serves as long as all members promise not to take its place.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Cluster, Plan, Proxy, Writer};

fn plan() -> Plan {
    Plan::new(3).dynamic(json!({ "failsafe_mode": true }))
}

/// Whether the member says that failsafe mode is at work.
async fn is_active(cluster: &Cluster, index: usize) -> bool {
    let answer = cluster.members[index].get("/patroni").await.map(|answer| answer.json());
    answer.is_some_and(|body| body["failsafe_mode_is_active"] == json!(true))
}

async fn wait_until_named(cluster: &Cluster) {
    cluster
        .wait_until(Duration::from_secs(20), "the key `failsafe` names all members", async || {
            let key = cluster.etcd.get("/service/herd/failsafe").await;
            let key = key.and_then(|text| serde_json::from_str::<Value>(&text).ok());
            key.is_some_and(|key| key.as_object().is_some_and(|members| members.len() == 3))
        })
        .await;
}

/// The PostgreSQL of a standby dies, and streams from m1 again.
async fn comes_back(cluster: &Cluster, index: usize) {
    let standby = &cluster.members[index];
    let before = standby.postmaster();
    standby.kill_postmaster();
    let streams = format!(
        "SELECT count(*) FROM pg_stat_replication WHERE application_name = '{}' AND state = 'streaming'",
        standby.name
    );
    cluster
        .wait_until(Duration::from_secs(20), &format!("{} streams again", standby.name), async || {
            standby.postmaster().is_some_and(|now| Some(now) != before)
                && cluster.members[0].value(&streams).await == "1"
        })
        .await;
}

/// etcd is down for more than three TTLs. The primary serves throughout, and keeps its PostgreSQL and its timeline.
#[tokio::test]
async fn a_primary_serves_while_etcd_is_down() {
    let mut cluster = plan().start().await;
    wait_until_named(&cluster).await;
    let listed = cluster.members[2].get("/failsafe").await.expect("it answers");
    let url = json!(format!("http://127.0.0.1:{}/patroni", cluster.members[0].api));
    assert_eq!((listed.status, &listed.json()["m1"]), (200, &url));
    let before = cluster.members[0].postmaster();
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    cluster.etcd.kill();
    cluster
        .stays(Duration::from_secs(17), "m1 serves", async || {
            cluster.members[0].status("/primary").await == 200
        })
        .await;
    assert!(is_active(&cluster, 0).await && is_active(&cluster, 1).await && is_active(&cluster, 2).await);
    comes_back(&cluster, 1).await;
    writer.wait_for_more(20, Duration::from_secs(10)).await;
    cluster.etcd.start_again().await;
    let seen = cluster.wait_until_well().await;
    assert_eq!((seen.timeline(), cluster.members[0].postmaster()), (cluster.first_timeline, before));
    writer.stop_and_verify(&cluster.members[0]).await;
}

/// Only the primary is cut off from etcd, for longer than its lease lasts there. The others see a cluster without a
/// leader, leave it so, and confirm its commits. Then the primary takes its key again, and nothing was stopped.
#[tokio::test]
async fn a_primary_without_etcd_keeps_its_place_among_members_with_etcd() {
    let mut cluster = plan().dynamic(json!({ "synchronous_mode": "quorum" })).prepare().await;
    let proxy = Proxy::before_etcd_of(&cluster, 0).await;
    cluster.start().await;
    wait_until_named(&cluster).await;
    cluster
        .wait_until(Duration::from_secs(20), "commits wait for a standby", async || {
            cluster.members[0].value("SHOW synchronous_standby_names").await.contains("ANY 1")
        })
        .await;
    let before = cluster.members[0].postmaster();
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    proxy.cut();
    cluster
        .wait_until(Duration::from_secs(20), "the leader key has expired", async || {
            cluster.etcd.get("/service/herd/leader").await.is_none()
        })
        .await;
    cluster
        .stays(Duration::from_secs(12), "m1 serves, and nobody takes its place", async || {
            cluster.members[0].status("/primary").await == 200
                && cluster.etcd.get("/service/herd/leader").await.is_none()
        })
        .await;
    // etcd shows them no leader, and each commit waits for one of them.
    comes_back(&cluster, 1).await;
    comes_back(&cluster, 2).await;
    writer.wait_for_more(20, Duration::from_secs(10)).await;
    let restart_begins_as_standby = async || {
        let shown = cluster.members[0].get("/patroni").await.map(|answer| answer.json());
        shown.expect("it answers").get("restart_begins_as_standby").cloned()
    };
    assert_eq!(restart_begins_as_standby().await, Some(json!(true)), "no lease of its own");
    proxy.mend();
    let seen = cluster.wait_until_well().await;
    let again = async || restart_begins_as_standby().await.is_none();
    cluster.wait_until(Duration::from_secs(10), "m1 can restart in place again", again).await;
    assert_eq!(seen.leader(), Some("m1"));
    assert_eq!((seen.timeline(), cluster.members[0].postmaster()), (cluster.first_timeline, before));
    writer.stop_and_verify(&cluster.members[0]).await;
}

/// One member is gone: it might have gone where it reaches etcd, and lead. So the primary stops before its lease ends,
/// and no member leads before etcd is back.
#[tokio::test]
async fn a_primary_stops_when_one_member_does_not_promise() {
    let mut cluster = plan().start().await;
    wait_until_named(&cluster).await;
    cluster.members[2].kill_all();
    cluster.etcd.kill();
    cluster
        .wait_until(Duration::from_secs(20), "m1 serves no more", async || {
            cluster.members[0].status("/primary").await == 503
                && cluster.members[0].sql("CREATE TABLE too_late ()").await.is_err()
        })
        .await;
    cluster.etcd.start_again().await;
    cluster.members[2].start();
    cluster.wait_until_well().await;
}
