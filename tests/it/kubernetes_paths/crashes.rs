//! A member crashes, freezes, or is recreated while its previous incarnation still runs.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use super::pod_cluster::{FAILS_OVER_WITHIN, PodCluster, SOON, create_pod};
use crate::support::kubernetes::PortState;

/// The postmaster dies, then the whole member: each time clients reach the Postgres that accepts writes, and the label
/// of the dead one is removed before the next Postgres is promoted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_follows_a_crash() {
    let mut pod_cluster = PodCluster::start_anywhere(json!({ "synchronous_mode": "quorum" })).await;
    let writer = pod_cluster.writer(0).await;
    pod_cluster.cluster.members[0].kill_postmaster();
    writer.wait_for_more(50, SOON).await;
    pod_cluster.cluster.wait_until_well().await;
    let leader = pod_cluster.cluster.leader().await;
    pod_cluster.wait_until_labelled(leader).await;
    pod_cluster.cluster.members[leader].kill_all();
    let successor = pod_cluster.wait_for_successor(leader, FAILS_OVER_WITHIN).await;
    writer.wait_for_more(50, SOON).await;
    pod_cluster.assert_stripped_first(successor, leader);
    pod_cluster.assert_labelled_soon(successor);
    pod_cluster.start_in_new_pod(leader).await;
    pod_cluster.cluster.wait_until_well().await;
    pod_cluster.wait_until_labelled(successor).await;
    writer.stop_and_verify(&pod_cluster.cluster.members[successor]).await;
    pod_cluster.assert_honest();
}

/// The supervisor of the primary is stopped: its label stays until the next leader removes it. When the supervisor
/// continues, it notices, and none of its outdated actions takes effect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_member_loses_its_label_for_good() {
    let pod_cluster = PodCluster::start_anywhere(json!({ "synchronous_mode": "quorum" })).await;
    let writer = pod_cluster.writer(0).await;
    pod_cluster.cluster.members[0].signal_supervisor(Signal::SIGSTOP);
    let successor = pod_cluster.wait_for_successor(0, FAILS_OVER_WITHIN).await;
    pod_cluster.assert_stripped_first(successor, 0);
    assert_eq!(pod_cluster.role(0).await, None, "{}", pod_cluster.story());
    pod_cluster.cluster.members[0].signal_supervisor(Signal::SIGCONT);
    writer.wait_for_more(50, SOON).await;
    pod_cluster.cluster.wait_until_well().await;
    pod_cluster.wait_until_labelled(successor).await;
    writer.stop_and_verify(&pod_cluster.cluster.members[successor]).await;
    pod_cluster.assert_honest();
}

/// The pod of the primary is deleted by force and created again while the old process still runs. The old process
/// cannot change the new pod: neither now, nor by a late patch that it sent before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_previous_incarnation_does_not_label_the_new_pod() {
    let mut pod_cluster = PodCluster::start(json!({})).await;
    let double = pod_cluster.kubernetes.faulty();
    // Its patch is delayed until the port opens.
    double.set_client_port("m1", PortState::Hangs);
    let asked = double.asked_by("m1").len();
    // A member that stops has a patch to send.
    pod_cluster.cluster.members[0].kill_postmaster();
    pod_cluster
        .cluster
        .wait_until(SOON, "a patch of m1 is on its way", async || {
            double.asked_by("m1")[asked..].iter().any(|asked| asked.method == "PATCH" && asked.code.is_none())
        })
        .await;
    pod_cluster.kubernetes.delete_pod("m1").await;
    create_pod(&pod_cluster.kubernetes, "m1").await;
    double.set_client_port("m1", PortState::Open);
    let patches = |pod_cluster: &PodCluster| {
        let asked = pod_cluster.kubernetes.faulty().asked_by("m1");
        asked.iter().filter(|asked| asked.method == "PATCH").map(|asked| asked.code).collect::<Vec<_>>()
    };
    let is_late = |code: &Option<u16>| matches!(code, Some(409 | 422));
    pod_cluster
        .cluster
        .wait_until(SOON, "its patch came too late", async || patches(&pod_cluster).iter().any(is_late))
        .await;
    pod_cluster
        .cluster
        .stays(Duration::from_secs(2), "the new pod has no role", async || {
            pod_cluster.role(0).await.is_none()
        })
        .await;
    pod_cluster.cluster.members[0].kill_all();
    let leader = pod_cluster.cluster.wait_for_successor(0, FAILS_OVER_WITHIN).await;
    pod_cluster.cluster.members[0].start();
    pod_cluster.cluster.wait_until_well().await;
    pod_cluster.wait_until_labelled(leader).await;
    pod_cluster.assert_honest();
}
