//! etcd restarts, freezes, goes away, or is reached through an endpoint that never answers.

use std::time::Duration;

use serde_json::json;

use crate::support::{BlackHole, Cluster, Plan, Writer, merge};

/// etcd is killed and started again. Leases outlive it, and so does the primary: same postmaster, same timeline.
#[tokio::test]
async fn a_restart_of_etcd_is_no_failover() {
    let mut cluster = Plan::new(2).dynamic(json!({ "ttl": 10 })).start().await;
    let before = cluster.members[0].postmaster();
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    cluster.etcd.kill();
    cluster.etcd.start_again().await;
    writer.wait_for_more(100, Duration::from_secs(20)).await;
    assert_undisturbed(&cluster, before).await;
    writer.stop_and_verify(&cluster.members[0]).await;
}

/// etcd stands still for half a TTL. The primary serves all the while.
#[tokio::test]
async fn a_freeze_shorter_than_the_ttl_is_no_failover() {
    let cluster = Plan::new(2).dynamic(json!({ "ttl": 10 })).start().await;
    let before = cluster.members[0].postmaster();
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    cluster.etcd.freeze();
    cluster
        .stays(Duration::from_secs(5), "m1 serves", async || {
            cluster.members[0].status("/primary").await == 200
        })
        .await;
    cluster.etcd.thaw();
    writer.wait_for_more(50, Duration::from_secs(10)).await;
    assert_undisturbed(&cluster, before).await;
    writer.stop_and_verify(&cluster.members[0]).await;
}

/// One of three etcd servers accepts connections and never answers, whichever it is. The lease is renewed through the
/// others for longer than two TTLs.
#[tokio::test]
async fn one_dead_endpoint_of_three_is_no_failover() {
    let mut cluster = Plan::new(2).etcd(3).start().await;
    let before = cluster.members[0].postmaster();
    for server in 0..3 {
        cluster.etcd.freeze_one(server);
        cluster
            .stays(Duration::from_secs(11), "m1 leads", async || {
                cluster.members[0].status("/primary").await == 200
            })
            .await;
        cluster.etcd.restart_one(server).await;
    }
    assert_undisturbed(&cluster, before).await;
}

/// The first host in the configuration is a black hole: the member starts, leads, and stays through the other.
#[tokio::test]
async fn a_member_starts_past_a_black_hole() {
    let mut cluster = Plan::new(1).prepare().await;
    let hole = BlackHole::open();
    let mut config = cluster.members[0].read_config();
    let hosts = [vec![hole.host()], cluster.etcd.hosts()].concat();
    merge(&mut config, &json!({ "etcd3": { "hosts": hosts } }));
    cluster.members[0].write_config(&config);
    cluster.members[0].start();
    cluster.wait_until_well().await;
    cluster
        .stays(Duration::from_secs(11), "m1 leads", async || {
            cluster.members[0].status("/primary").await == 200
        })
        .await;
}

/// etcd is gone for longer than the TTL. The primary stops taking writes before its lease can have run out, and takes
/// up again when etcd is back.
#[tokio::test]
async fn without_etcd_the_primary_steps_down_and_comes_back() {
    let mut cluster = Plan::new(2).start().await;
    for member in &mut cluster.members {
        member.expected_errors.push("etcd".to_owned());
    }
    cluster.etcd.kill();
    cluster
        .wait_until(Duration::from_secs(20), "m1 takes no writes", async || {
            cluster.members[0].sql("CREATE TABLE IF NOT EXISTS writable ()").await.is_err()
        })
        .await;
    assert_eq!(cluster.members[0].status("/primary").await, 503);
    cluster.etcd.start_again().await;
    cluster.wait_until_well().await;
}

async fn assert_undisturbed(cluster: &Cluster, postmaster: Option<u32>) {
    let seen = cluster.wait_until_well().await;
    assert_eq!((seen.leader(), seen.timeline()), (Some("m1"), cluster.first_timeline));
    assert_eq!(cluster.members[0].postmaster(), postmaster, "Postgres was not restarted");
}
