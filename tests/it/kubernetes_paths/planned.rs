//! Leadership moves as planned: a switchover, a SIGTERM, and every pod replaced one after the other.

use std::time::Duration;

use serde_json::json;

use super::pod_cluster::{PodCluster, SOON};

/// The limit of a write that nothing delays, on a busy machine.
const PROMPT: Duration = Duration::from_millis(100);

/// The limit of all interruptions together on a busy machine; elsewhere it takes half a second. The expiry of a lease
/// would take longer.
const AWAY_MAX: Duration = Duration::from_secs(15);

/// First by command, then by SIGTERM, with a lease that does not expire in the meantime: the label moves with
/// leadership.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_label_moves_with_a_hand_over() {
    let mut pod_cluster = PodCluster::start_anywhere(json!({ "ttl": 60, "loop_wait": 10 })).await;
    let writer = pod_cluster.writer(0).await;
    let words = ["switchover", "--leader", "m1", "--candidate", "m2", "--force"];
    let output = pod_cluster.cluster.members[2].command(&words).await;
    assert!(output.status.success(), "{output:?}\n{}", pod_cluster.story());
    pod_cluster.wait_for_primary(1, SOON).await;
    pod_cluster.assert_labelled_soon(1);
    writer.wait_for_more(50, SOON).await;
    pod_cluster.cluster.wait_until_well().await;
    pod_cluster.wait_until_labelled(1).await;
    pod_cluster.cluster.members[1].terminate();
    let successor = pod_cluster.wait_for_successor(1, SOON).await;
    pod_cluster.assert_labelled_soon(successor);
    assert_eq!(pod_cluster.role(1).await, None);
    assert_eq!(pod_cluster.cluster.members[1].exit_code(SOON).await, Some(0));
    pod_cluster.start_in_new_pod(1).await;
    pod_cluster.cluster.wait_until_well().await;
    pod_cluster.wait_until_labelled(successor).await;
    let history = writer.stop_and_verify(&pod_cluster.cluster.members[successor]).await;
    let (away, longest) = (history.away(PROMPT), history.gaps.iter().max());
    println!("reach through the Service: {longest:?} at most, {away:?} in all, in two hand-overs");
    assert!(away < AWAY_MAX, "{away:?}\n{}", pod_cluster.story());
    pod_cluster.assert_one_change_each();
    pod_cluster.assert_honest();
}

/// All three pods are replaced in the order of a StatefulSet, each when the previous one is ready again. No
/// acknowledged row is lost, and writes are interrupted only briefly: no lease has to expire.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_nothing() {
    let mut pod_cluster =
        PodCluster::start_anywhere(json!({ "synchronous_mode": "quorum", "ttl": 60, "loop_wait": 10 })).await;
    let writer = pod_cluster.writer(0).await;
    for index in [2, 1, 0] {
        pod_cluster.cluster.members[index].terminate();
        assert_eq!(
            pod_cluster.cluster.members[index].exit_code(SOON).await,
            Some(0),
            "{}",
            pod_cluster.story()
        );
        pod_cluster.start_in_new_pod(index).await;
        let what = "it is ready again";
        let ready = async || pod_cluster.cluster.members[index].status("/readiness").await == 200;
        pod_cluster.cluster.wait_until(SOON * 2, what, ready).await;
        let name = pod_cluster.cluster.members[index].name.clone();
        pod_cluster.kubernetes.set_ready(&name, true).await;
    }
    let seen = pod_cluster.cluster.wait_until_well().await;
    let leader = pod_cluster.cluster.index(seen.leader().expect("it is well"));
    pod_cluster.wait_until_labelled(leader).await;
    writer.wait_for_more(50, SOON).await;
    let history = writer.stop_and_verify(&pod_cluster.cluster.members[leader]).await;
    let away = history.away(PROMPT);
    let longest = history.gaps.iter().max();
    let unknown = history.unknown.len();
    println!("reach through the Service: {longest:?} at most, {away:?} in all; {unknown} rows unknown");
    assert!(away < AWAY_MAX, "{away:?}\n{}", pod_cluster.story());
    pod_cluster.assert_one_change_each();
    pod_cluster.assert_honest();
}

/// The pod of the leader is deleted by force, and its kubelet does not learn of it. The leader hands over at once, with
/// a lease that does not expire in the meantime, follows, and reports why it no longer leads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_pod_was_deleted_by_force_hands_over() {
    let pod_cluster =
        PodCluster::start(json!({ "ttl": 60, "loop_wait": 10, "synchronous_mode": "quorum" })).await;
    let writer = pod_cluster.writer(0).await;
    let before = pod_cluster.cluster.etcd.get("/service/herd/leader").await;
    pod_cluster.kubernetes.delete_pod("m1").await;
    let successor = pod_cluster.wait_for_successor(0, SOON).await;
    assert_ne!(pod_cluster.cluster.etcd.get("/service/herd/leader").await, before);
    writer.wait_for_more(50, SOON).await;
    pod_cluster.cluster.wait_until_well().await;
    let list = pod_cluster.cluster.members[successor].command(&["list"]).await;
    let told = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(told.contains("this pod was deleted, and its container still runs"), "{told}");
    // It is no longer a candidate.
    let words = ["switchover", "--candidate", "m1", "--force"];
    let output = pod_cluster.cluster.members[successor].command(&words).await;
    assert!(!output.status.success(), "{output:?}");
    let history = writer.stop_and_verify(&pod_cluster.cluster.members[successor]).await;
    println!("reach through the Service: {:?} in all", history.away(PROMPT));
    pod_cluster.assert_honest();
}
