//! Lists and watches: selectors, a start from a version, bookmarks, and a history that was discarded.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::kubernetes::{Ending, Kubernetes, PortState};

/// The limit for an event that must come.
const SOON: Duration = Duration::from_secs(10);
/// The wait for an event that must not come.
const QUIET: Duration = Duration::from_millis(300);

fn brief(kind: &str, name: &str) -> Option<(String, String)> {
    Some((kind.to_owned(), name.to_owned()))
}

async fn names(kubernetes: &Kubernetes, query: &str) -> Vec<String> {
    let (code, list) = kubernetes.get(&format!("pods?{query}")).await;
    assert_eq!(code, 200, "{list}");
    let items = list["items"].as_array().expect("a list");
    items.iter().filter_map(|pod| Some(pod["metadata"]["name"].as_str()?.to_owned())).collect()
}

async fn label(kubernetes: &Kubernetes, pod: &str, role: Value) {
    let patch = json!({ "metadata": { "labels": { "role": role } } });
    let (code, answer) = kubernetes.patch("merge-patch", &format!("pods/{pod}"), &patch).await;
    assert_eq!(code, 200, "{answer}");
}

async fn version(kubernetes: &Kubernetes) -> String {
    let (_, list) = kubernetes.get("pods").await;
    list["metadata"]["resourceVersion"].as_str().expect("a list has a version").to_owned()
}

#[tokio::test]
async fn selectors_pick_pods() {
    let kubernetes = Kubernetes::start().await;
    for (pod, role) in [("a-0", "primary"), ("a-1", "replica"), ("a-2", "replica")] {
        kubernetes.create_pod(pod, json!({ "app": "x", "role": role })).await;
    }
    kubernetes.create_pod("b-0", json!({ "app": "y" })).await;
    for (query, expected) in [
        ("labelSelector=app%3Dx", vec!["a-0", "a-1", "a-2"]),
        ("labelSelector=app%3Dx%2Crole%3Dprimary", vec!["a-0"]),
        ("labelSelector=role+in+%28primary%2Creplica%29%2Capp%21%3Dy", vec!["a-0", "a-1", "a-2"]),
        ("labelSelector=%21role", vec!["b-0"]),
        ("labelSelector=role+notin+%28replica%29", vec!["a-0", "b-0"]),
        ("fieldSelector=metadata.name%3Da-1", vec!["a-1"]),
        ("fieldSelector=metadata.name%21%3Da-1&labelSelector=role", vec!["a-0", "a-2"]),
    ] {
        assert_eq!(names(&kubernetes, query).await, expected, "{query}");
    }
    let (code, answer) = kubernetes.get("pods?fieldSelector=spec.foo%3Dx").await;
    assert_eq!((code, &answer["message"]), (400, &json!("field label not supported: spec.foo")));
}

/// A pod enters the view of a selector, and leaves it, as its labels change.
#[tokio::test]
async fn a_watch_follows_a_selector() {
    let kubernetes = Kubernetes::start().await;
    kubernetes.create_pod("a-0", json!({ "role": "replica" })).await;
    let from = version(&kubernetes).await;
    let query = format!("labelSelector=role%3Dprimary&resourceVersion={from}");
    let mut primaries = kubernetes.watch(&query).await.expect("begins");
    label(&kubernetes, "a-0", json!("primary")).await;
    assert_eq!(primaries.next_brief(SOON).await, brief("ADDED", "a-0"));
    kubernetes.set_ready("a-0", true).await;
    assert_eq!(primaries.next_brief(SOON).await, brief("MODIFIED", "a-0"));
    label(&kubernetes, "a-0", Value::Null).await;
    let (kind, pod) = primaries.next(SOON).await.expect("an event");
    // The event shows the pod as it was, with the version in which it left.
    assert_eq!((kind.as_str(), &pod["metadata"]["labels"]["role"]), ("DELETED", &json!("primary")));
    assert_eq!(
        pod["metadata"]["resourceVersion"],
        kubernetes.pod("a-0").await["metadata"]["resourceVersion"]
    );
    kubernetes.create_pod("a-1", json!({ "role": "replica" })).await;
    assert_eq!(primaries.next_brief(QUIET).await, None);
    label(&kubernetes, "a-1", json!("primary")).await;
    assert_eq!(primaries.next_brief(SOON).await, brief("ADDED", "a-1"));
    kubernetes.delete_pod("a-1").await;
    assert_eq!(primaries.next_brief(SOON).await, brief("MODIFIED", "a-1"), "it is marked first");
    assert_eq!(primaries.next_brief(SOON).await, brief("DELETED", "a-1"));
}

/// A watch that begins at the version where another stopped misses nothing and repeats nothing. A watch without a
/// version begins with the existing objects.
#[tokio::test]
async fn a_watch_continues_from_a_version() {
    let kubernetes = Kubernetes::start().await;
    let from = version(&kubernetes).await;
    kubernetes.create_pod("a-0", json!({})).await;
    let middle = version(&kubernetes).await;
    label(&kubernetes, "a-0", json!("primary")).await;
    kubernetes.create_pod("a-1", json!({})).await;
    let mut all = kubernetes.watch(&format!("resourceVersion={from}")).await.expect("begins");
    for (kind, pod) in [("ADDED", "a-0"), ("MODIFIED", "a-0"), ("ADDED", "a-1")] {
        assert_eq!(all.next_brief(SOON).await, brief(kind, pod));
    }
    let mut rest = kubernetes.watch(&format!("resourceVersion={middle}")).await.expect("begins");
    for (kind, pod) in [("MODIFIED", "a-0"), ("ADDED", "a-1")] {
        assert_eq!(rest.next_brief(SOON).await, brief(kind, pod));
    }
    let mut present = kubernetes.watch("").await.expect("begins");
    let mut found = [present.next_brief(SOON).await, present.next_brief(SOON).await];
    found.sort();
    assert_eq!(found, [brief("ADDED", "a-0"), brief("ADDED", "a-1")], "in any order");
    assert_eq!(rest.next_brief(QUIET).await, None);
}

/// A watch ends when its time is over. A bookmark near its end names the version up to which everything was sent.
#[tokio::test]
async fn a_watch_ends_in_time_with_a_bookmark() {
    let kubernetes = Kubernetes::start().await;
    kubernetes.create_pod("a-0", json!({})).await;
    let from = version(&kubernetes).await;
    let query = format!(
        "allowWatchBookmarks=true&timeoutSeconds=4&resourceVersion={from}&fieldSelector=metadata.name%3Da-0"
    );
    let begun = std::time::Instant::now();
    let mut watch = kubernetes.watch(&query).await.expect("begins");
    kubernetes.create_pod("b-0", json!({})).await;
    let newest: u64 = version(&kubernetes).await.parse().expect("a number here");
    let (kind, object) = watch.next(SOON).await.expect("a bookmark");
    assert_eq!((kind.as_str(), &object["kind"]), ("BOOKMARK", &json!("Pod")));
    let told = object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse::<u64>().ok());
    assert!(told >= from.parse().ok() && told <= Some(newest + 1000), "{told:?}, {newest}");
    while watch.next(SOON).await.is_some() {}
    assert!((3..10).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

/// Changes before the beginning of the history are not sent: the stream reports 410 at once, and ends.
#[tokio::test]
async fn a_watch_from_too_old_a_version_gets_410() {
    let kubernetes = Kubernetes::double().await;
    let from = version(&kubernetes).await;
    kubernetes.create_pod("a-0", json!({})).await;
    kubernetes.faulty().compact();
    let mut watch = kubernetes
        .watch(&format!("resourceVersion={}", from.parse::<u64>().expect("a number")))
        .await
        .expect("begins");
    let (kind, status) = watch.next(SOON).await.expect("an event");
    assert_eq!(
        (kind.as_str(), &status["code"], &status["reason"]),
        ("ERROR", &json!(410), &json!("Expired"))
    );
    assert_eq!(watch.next(SOON).await, None);
    let now = version(&kubernetes).await;
    let mut watch = kubernetes.watch(&format!("resourceVersion={now}")).await.expect("begins");
    kubernetes.delete_pod("a-0").await;
    assert_eq!(watch.next_brief(SOON).await, brief("MODIFIED", "a-0"), "it is marked first");
    assert_eq!(watch.next_brief(SOON).await, brief("DELETED", "a-0"));
}

/// Watches end on demand, with an error event or without. A port that hangs sends nothing until it opens.
#[tokio::test]
async fn watches_can_be_cut_and_delayed() {
    let kubernetes = Kubernetes::double().await;
    let double = kubernetes.faulty();
    let mut watch = kubernetes.watch("").await.expect("begins");
    double.end_watches(Ending::Expired);
    assert_eq!(
        watch.next(SOON).await.map(|(kind, status)| (kind, status["code"].clone())),
        Some(("ERROR".to_owned(), json!(410)))
    );
    assert_eq!(watch.next(SOON).await, None);
    let mut watch = kubernetes.watch("").await.expect("begins");
    double.end_watches(Ending::Cut);
    assert_eq!(watch.next(SOON).await, None);
    double.send_bookmarks_every(Duration::from_millis(20));
    let mut watch = kubernetes.watch("allowWatchBookmarks=1").await.expect("begins");
    assert_eq!(watch.next(SOON).await.map(|event| event.0), Some("BOOKMARK".to_owned()));
    double.set_client_port("admin", PortState::Hangs);
    while watch.next(QUIET).await.is_some() {}
    double.set_client_port("admin", PortState::Open);
    assert!(watch.next(SOON).await.is_some());
    double.set_client_port("admin", PortState::Shut);
    while watch.next(SOON).await.is_some() {}
    assert!(kubernetes.watch("").await.is_err());
}
