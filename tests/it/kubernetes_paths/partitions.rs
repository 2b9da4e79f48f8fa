//! One member cannot reach the API server, or etcd, while all others can.

use std::time::{Duration, Instant};

use serde_json::json;

use super::pod_cluster::{FAILS_OVER_WITHIN, PodCluster, SOON, TTL};
use crate::support::kubernetes::{Kubernetes, PortState};
use crate::support::{Proxy, merge};

/// The primary cannot reach the API server, which refuses connections or does not answer: its database is not affected.
/// Leadership can move all the same, and the next leader removes the label that the old one cannot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_keeps_serving_without_the_api_server() {
    let pod_cluster = PodCluster::start(json!({})).await;
    let double = pod_cluster.kubernetes.faulty();
    let writer = pod_cluster.writer(0).await;
    let postmaster = pod_cluster.cluster.members[0].postmaster();
    let before = pod_cluster.cluster.etcd.get("/service/herd/leader").await;
    for state in [PortState::Shut, PortState::Hangs] {
        double.set_client_port("m1", state);
        pod_cluster
            .cluster
            .stays(TTL + Duration::from_secs(1), "m1 leads, in the same term", async || {
                let term = pod_cluster.cluster.etcd.get("/service/herd/leader").await;
                term == before && pod_cluster.cluster.members[0].postmaster() == postmaster
            })
            .await;
        writer.wait_for_more(20, SOON).await;
    }
    let words = ["switchover", "--leader", "m1", "--candidate", "m2", "--force"];
    let output = pod_cluster.cluster.members[0].command(&words).await;
    assert!(output.status.success(), "{output:?}\n{}", pod_cluster.story());
    pod_cluster.wait_for_primary(1, SOON).await;
    pod_cluster.assert_stripped_first(1, 0);
    // The delayed patches of m1 arrive now.
    double.set_client_port("m1", PortState::Open);
    pod_cluster.cluster.wait_until_well().await;
    pod_cluster.wait_until_labelled(1).await;
    writer.wait_for_more(20, SOON).await;
    writer.stop_and_verify(&pod_cluster.cluster.members[1]).await;
    pod_cluster.assert_honest();
}

/// No member can reach the API server when the primary dies. That delays the promotion by no more than a second. The
/// label follows later: when the API server is back, the dead member's label is removed first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_does_not_wait_for_the_api_server() {
    let mut pod_cluster = PodCluster::start(json!({})).await;
    let all = ["m1", "m2", "m3"];
    for member in all {
        pod_cluster.kubernetes.faulty().set_client_port(member, PortState::Hangs);
    }
    pod_cluster.cluster.members[0].kill_all();
    let died = Instant::now();
    let successor = pod_cluster.cluster.wait_for_successor(0, FAILS_OVER_WITHIN).await;
    println!("took writes {:?} after the crash, without an API server", died.elapsed());
    assert_eq!(pod_cluster.role(0).await.as_deref(), Some("primary"), "nobody could take it off");
    assert_eq!(pod_cluster.role(successor).await.as_deref(), Some("replica"));
    for member in all {
        pod_cluster.kubernetes.faulty().set_client_port(member, PortState::Open);
    }
    pod_cluster.wait_for_primary(successor, SOON).await;
    assert_eq!(pod_cluster.role(0).await, None);
    pod_cluster.cluster.members[0].start();
    pod_cluster.cluster.wait_until_well().await;
    pod_cluster.wait_until_labelled(successor).await;
    pod_cluster.assert_honest();
}

/// The primary cannot reach etcd: it removes its own label when it stops, or the next leader does; then it comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_without_etcd_loses_its_label() {
    let mut pod_cluster =
        PodCluster::prepare(Kubernetes::start().await, json!({ "synchronous_mode": "quorum" })).await;
    let wire = Proxy::before(pod_cluster.cluster.etcd.hosts()[0].clone()).await;
    let member = &mut pod_cluster.cluster.members[0];
    member.expected_errors.push("etcd".to_owned());
    let mut config = member.read_config();
    // Without it, etcd is found at the address that it announces, behind the cut.
    merge(&mut config, &json!({ "etcd3": { "hosts": [wire.host], "use_proxies": true } }));
    member.write_config(&config);
    pod_cluster.begin().await;
    let writer = pod_cluster.writer(0).await;
    wire.cut();
    let successor = pod_cluster.wait_for_successor(0, FAILS_OVER_WITHIN).await;
    assert_ne!(pod_cluster.role(0).await.as_deref(), Some("primary"));
    writer.wait_for_more(50, SOON).await;
    wire.mend();
    pod_cluster.cluster.wait_until_well().await;
    pod_cluster.wait_until_labelled(successor).await;
    writer.stop_and_verify(&pod_cluster.cluster.members[successor]).await;
    pod_cluster.assert_honest();
}
