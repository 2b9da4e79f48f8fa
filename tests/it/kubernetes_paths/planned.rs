//! Leadership moves as planned: a switchover, a SIGTERM, and every pod replaced one after the other.

use std::time::Duration;

use serde_json::json;

use super::stand::{Herd, SOON};

/// The limit of a write that nothing delays, on a busy machine.
const PROMPT: Duration = Duration::from_millis(100);

/// The limit of all interruptions together on a busy machine; elsewhere it takes half a second. The expiry of a lease
/// would take longer.
const AWAY_MAX: Duration = Duration::from_secs(15);

/// First by command, then by SIGTERM, with a lease that does not expire in the meantime: the label moves with
/// leadership.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_label_moves_with_a_hand_over() {
    let mut herd = Herd::start_anywhere(json!({ "ttl": 60, "loop_wait": 10 })).await;
    let writer = herd.writer(0).await;
    let words = ["switchover", "--leader", "m1", "--candidate", "m2", "--force"];
    let output = herd.cluster.members[2].command(&words).await;
    assert!(output.status.success(), "{output:?}\n{}", herd.story());
    herd.wait_for_primary(1, SOON).await;
    herd.assert_labelled_soon(1);
    writer.wait_for_more(50, SOON).await;
    herd.cluster.wait_until_well().await;
    herd.wait_until_labelled(1).await;
    herd.cluster.members[1].terminate();
    let successor = herd.wait_for_successor(1, SOON).await;
    herd.assert_labelled_soon(successor);
    assert_eq!(herd.role(1).await, None);
    assert_eq!(herd.cluster.members[1].exit_code(SOON).await, Some(0));
    herd.start_in_new_pod(1).await;
    herd.cluster.wait_until_well().await;
    herd.wait_until_labelled(successor).await;
    let history = writer.stop_and_verify(&herd.cluster.members[successor]).await;
    let (away, longest) = (history.away(PROMPT), history.gaps.iter().max());
    println!("reach through the Service: {longest:?} at most, {away:?} in all, in two hand-overs");
    assert!(away < AWAY_MAX, "{away:?}\n{}", herd.story());
    herd.assert_one_change_each();
    herd.assert_honest();
}

/// All three pods are replaced in the order of a StatefulSet, each when the previous one is ready again. No
/// acknowledged row is lost, and writes are interrupted only briefly: no lease has to expire.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_nothing() {
    let mut herd =
        Herd::start_anywhere(json!({ "synchronous_mode": "quorum", "ttl": 60, "loop_wait": 10 })).await;
    let writer = herd.writer(0).await;
    for index in [2, 1, 0] {
        herd.cluster.members[index].terminate();
        assert_eq!(herd.cluster.members[index].exit_code(SOON).await, Some(0), "{}", herd.story());
        herd.start_in_new_pod(index).await;
        let what = "it is ready again";
        let ready = async || herd.cluster.members[index].status("/readiness").await == 200;
        herd.cluster.wait_until(SOON * 2, what, ready).await;
        let name = herd.cluster.members[index].name.clone();
        herd.kubernetes.set_ready(&name, true).await;
    }
    let seen = herd.cluster.wait_until_well().await;
    let leader = herd.cluster.index(seen.leader().expect("it is well"));
    herd.wait_until_labelled(leader).await;
    writer.wait_for_more(50, SOON).await;
    let history = writer.stop_and_verify(&herd.cluster.members[leader]).await;
    let away = history.away(PROMPT);
    let longest = history.gaps.iter().max();
    let unknown = history.unknown.len();
    println!("reach through the Service: {longest:?} at most, {away:?} in all; {unknown} rows unknown");
    assert!(away < AWAY_MAX, "{away:?}\n{}", herd.story());
    herd.assert_one_change_each();
    herd.assert_honest();
}

/// The pod of the leader is deleted by force, and its kubelet does not learn of it. The leader hands over at once, with
/// a lease that does not expire in the meantime, follows, and reports why it no longer leads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_pod_was_deleted_by_force_hands_over() {
    let herd = Herd::start(json!({ "ttl": 60, "loop_wait": 10, "synchronous_mode": "quorum" })).await;
    let writer = herd.writer(0).await;
    let before = herd.cluster.etcd.get("/service/herd/leader").await;
    herd.kubernetes.delete_pod("m1").await;
    let successor = herd.wait_for_successor(0, SOON).await;
    assert_ne!(herd.cluster.etcd.get("/service/herd/leader").await, before);
    writer.wait_for_more(50, SOON).await;
    herd.cluster.wait_until_well().await;
    let list = herd.cluster.members[successor].command(&["list"]).await;
    let told = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(told.contains("this pod was deleted, and its container still runs"), "{told}");
    // It is no longer a candidate.
    let words = ["switchover", "--candidate", "m1", "--force"];
    let output = herd.cluster.members[successor].command(&words).await;
    assert!(!output.status.success(), "{output:?}");
    let history = writer.stop_and_verify(&herd.cluster.members[successor]).await;
    println!("reach through the Service: {:?} in all", history.away(PROMPT));
    herd.assert_honest();
}
