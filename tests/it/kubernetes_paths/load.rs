//! Other pods of the namespace cost a member nothing.

use std::time::Duration;

use serde_json::json;

use super::pod_cluster::PodCluster;

/// The time over which requests are counted.
const SPAN: Duration = Duration::from_secs(3);
/// The bytes that each extra request may add by chance: the member's patch of its own pod, and the event of the watch
/// for it.
const CHANCE: usize = 20_000;

/// A hundred labels a second change on other pods that have the cluster's name too: no member sends more requests
/// because of it, and none receives an event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_namespace_does_not_load_a_member() {
    let pod_cluster = PodCluster::start(json!({})).await;
    let pods: Vec<String> = (0..10).map(|number| format!("busy-{number}")).collect();
    for pod in &pods {
        pod_cluster.kubernetes.create_pod(pod, json!({ "cluster-name": "herd", "role": "replica" })).await;
    }
    let members = ["m1", "m2", "m3"];
    let counted = |member: &str| {
        let asked = pod_cluster.kubernetes.faulty().asked_by(member);
        (asked.len(), asked.iter().map(|asked| asked.bytes).sum::<usize>())
    };
    let before = members.map(counted);
    tokio::time::sleep(SPAN).await;
    let quiet = members.map(counted);
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let rounds = SPAN.as_millis() / 10;
    for round in 0..rounds {
        ticks.tick().await;
        let pod = format!("pods/{}", pods[round as usize % pods.len()]);
        let patch = json!({ "metadata": { "labels": { "round": round.to_string() } } });
        assert_eq!(pod_cluster.kubernetes.patch("merge-patch", &pod, &patch).await.0, 200);
    }
    let busy = members.map(counted);
    for (index, member) in members.iter().enumerate() {
        let cost = |from: (usize, usize), to: (usize, usize)| (to.0 - from.0, to.1 - from.1);
        let (quiet, busy) = (cost(before[index], quiet[index]), cost(quiet[index], busy[index]));
        println!(
            "{member}: {quiet:?} requests and bytes while all is quiet, {busy:?} while {rounds} labels change"
        );
        assert!(busy.0 <= quiet.0 + 10, "{member}: {busy:?} requests and bytes, {quiet:?} before");
        assert!(busy.1 <= quiet.1 + CHANCE, "{member}: {busy:?} requests and bytes, {quiet:?} before");
    }
    pod_cluster.assert_honest();
}
