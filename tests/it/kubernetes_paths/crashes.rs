//! A member crashes, freezes, or is recreated while its previous incarnation still runs.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use super::stand::{FAILS_OVER_WITHIN, Herd, SOON, create_pod};
use crate::support::kubernetes::Passage;

/// The postmaster dies, then the whole member: each time clients reach the Postgres that accepts writes, and the label
/// of the dead one is removed before the next Postgres is promoted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_follows_a_crash() {
    let mut herd = Herd::start_anywhere(json!({ "synchronous_mode": "quorum" })).await;
    let writer = herd.writer(0).await;
    herd.cluster.members[0].kill_postmaster();
    writer.wait_for_more(50, SOON).await;
    herd.cluster.wait_until_well().await;
    let leader = herd.cluster.leader().await;
    herd.wait_until_labelled(leader).await;
    herd.cluster.members[leader].kill_all();
    let successor = herd.wait_for_successor(leader, FAILS_OVER_WITHIN).await;
    writer.wait_for_more(50, SOON).await;
    herd.assert_stripped_first(successor, leader);
    herd.assert_labelled_soon(successor);
    herd.start_in_new_pod(leader).await;
    herd.cluster.wait_until_well().await;
    herd.wait_until_labelled(successor).await;
    writer.stop_and_verify(&herd.cluster.members[successor]).await;
    herd.assert_honest();
}

/// The supervisor of the primary is stopped: its label stays until the next leader removes it. When the supervisor
/// continues, it notices, and none of its outdated actions takes effect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_member_loses_its_label_for_good() {
    let herd = Herd::start_anywhere(json!({ "synchronous_mode": "quorum" })).await;
    let writer = herd.writer(0).await;
    herd.cluster.members[0].signal_supervisor(Signal::SIGSTOP);
    let successor = herd.wait_for_successor(0, FAILS_OVER_WITHIN).await;
    herd.assert_stripped_first(successor, 0);
    assert_eq!(herd.role(0).await, None, "{}", herd.story());
    herd.cluster.members[0].signal_supervisor(Signal::SIGCONT);
    writer.wait_for_more(50, SOON).await;
    herd.cluster.wait_until_well().await;
    herd.wait_until_labelled(successor).await;
    writer.stop_and_verify(&herd.cluster.members[successor]).await;
    herd.assert_honest();
}

/// The pod of the primary is deleted by force and created again while the old process still runs. The old process
/// cannot change the new pod: neither now, nor by a late patch that it sent before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_previous_incarnation_does_not_label_the_new_pod() {
    let mut herd = Herd::start(json!({})).await;
    let double = herd.kubernetes.faulty();
    // Its patch is delayed until the door opens.
    double.set_door("m1", Passage::Hangs);
    let asked = double.asked_by("m1").len();
    // A member that stops has a patch to send.
    herd.cluster.members[0].kill_postmaster();
    herd.cluster
        .wait_until(SOON, "a patch of m1 is on its way", async || {
            double.asked_by("m1")[asked..].iter().any(|asked| asked.method == "PATCH" && asked.code.is_none())
        })
        .await;
    herd.kubernetes.delete_pod("m1").await;
    create_pod(&herd.kubernetes, "m1").await;
    double.set_door("m1", Passage::Open);
    let patches = |herd: &Herd| {
        let asked = herd.kubernetes.faulty().asked_by("m1");
        asked.iter().filter(|asked| asked.method == "PATCH").map(|asked| asked.code).collect::<Vec<_>>()
    };
    let is_late = |code: &Option<u16>| matches!(code, Some(409 | 422));
    herd.cluster
        .wait_until(SOON, "its patch came too late", async || patches(&herd).iter().any(is_late))
        .await;
    herd.cluster
        .stays(Duration::from_secs(2), "the new pod has no role", async || herd.role(0).await.is_none())
        .await;
    herd.cluster.members[0].kill_all();
    let leader = herd.cluster.wait_for_successor(0, FAILS_OVER_WITHIN).await;
    herd.cluster.members[0].start();
    herd.cluster.wait_until_well().await;
    herd.wait_until_labelled(leader).await;
    herd.assert_honest();
}
