//! Patches of three kinds, their preconditions, and the API server's messages when they fail.

use serde_json::{Value, json};

use crate::support::kubernetes::Kubernetes;

fn reason(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["reason"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn three_kinds_of_patch_change_labels() {
    let kubernetes = Kubernetes::start().await;
    let pod = kubernetes.create_pod("a-0", json!({ "app": "x", "role": "replica" })).await;
    assert_eq!(pod["status"]["phase"], "Pending");
    let (code, patched) = kubernetes
        .patch("merge-patch", "pods/a-0", &json!({ "metadata": { "labels": { "role": null } } }))
        .await;
    assert_eq!((code, &patched["metadata"]["labels"]), (200, &json!({ "app": "x" })));
    let patch = json!({ "metadata": { "labels": { "role": "primary" }, "annotations": { "term": "7" } } });
    let (code, patched) = kubernetes.patch("strategic-merge-patch", "pods/a-0", &patch).await;
    assert_eq!((code, &patched["metadata"]["annotations"]["term"]), (200, &json!("7")));
    let replace = json!([
        { "op": "test", "path": "/metadata/labels/role", "value": "primary" },
        { "op": "replace", "path": "/metadata/labels/role", "value": "replica" },
    ]);
    let (code, patched) = kubernetes.patch("json-patch", "pods/a-0", &replace).await;
    assert_eq!((code, &patched["metadata"]["labels"]["role"]), (200, &json!("replica")));
    let late = kubernetes.patch("json-patch", "pods/a-0", &replace).await;
    assert_eq!(reason(&late), (422, "Invalid"), "{}", late.1);
    let unknown =
        kubernetes.send("PATCH", &kubernetes.path("pods/a-0"), "application/json", &json!({})).await;
    assert_eq!(reason(&unknown), (415, "UnsupportedMediaType"));
}

/// Every change makes a new version; a patch that changes nothing makes none.
#[tokio::test]
async fn a_patch_that_changes_nothing_makes_no_version() {
    let kubernetes = Kubernetes::start().await;
    let first = kubernetes.create_pod("a-0", json!({ "role": "replica" })).await;
    let version = |pod: &Value| pod["metadata"]["resourceVersion"].clone();
    let same = json!({ "metadata": { "labels": { "role": "replica" } } });
    let (_, patched) = kubernetes.patch("merge-patch", "pods/a-0", &same).await;
    assert_eq!(version(&patched), version(&first));
    let other = json!({ "metadata": { "labels": { "role": "primary" } } });
    let (_, patched) = kubernetes.patch("merge-patch", "pods/a-0", &other).await;
    assert_ne!(version(&patched), version(&first));
    assert_eq!(version(&kubernetes.pod("a-0").await), version(&patched));
}

/// The version in the patch is not that of the pod: nothing is changed, for each kind of patch.
#[tokio::test]
async fn a_patch_of_an_old_version_conflicts() {
    let kubernetes = Kubernetes::start().await;
    let old = kubernetes.create_pod("a-0", json!({ "role": "replica" })).await;
    let new = json!({ "metadata": { "labels": { "role": "primary" } } });
    let (code, _) = kubernetes.patch("merge-patch", "pods/a-0", &new).await;
    assert_eq!(code, 200);
    let late = json!({
        "metadata": { "labels": { "role": null }, "resourceVersion": old["metadata"]["resourceVersion"] },
    });
    for (kind, rest) in [
        ("merge-patch", "pods/a-0"),
        ("strategic-merge-patch", "pods/a-0"),
        ("merge-patch", "pods/a-0/status"),
    ] {
        let answer = kubernetes.patch(kind, rest, &late).await;
        assert_eq!(reason(&answer), (409, "Conflict"), "{}", answer.1);
        assert_eq!(answer.1["details"], json!({ "name": "a-0", "kind": "pods" }));
        assert_eq!(
            answer.1["message"],
            "Operation cannot be fulfilled on pods \"a-0\": the object has been modified; please apply your \
             changes to the latest version and try again"
        );
    }
    let unheld = json!([
        { "op": "replace", "path": "/metadata/resourceVersion", "value": old["metadata"]["resourceVersion"] },
        { "op": "remove", "path": "/metadata/labels/role" },
    ]);
    let answer = kubernetes.patch("json-patch", "pods/a-0", &unheld).await;
    assert_eq!(reason(&answer), (409, "Conflict"), "{}", answer.1);
    assert_eq!(kubernetes.pod("a-0").await["metadata"]["labels"]["role"], "primary");
}

/// A new pod of the same name has another uid: a patch for the former one fails.
#[tokio::test]
async fn a_patch_for_a_former_pod_of_that_name_fails() {
    let kubernetes = Kubernetes::start().await;
    let former = kubernetes.create_pod("a-0", json!({ "role": "primary" })).await;
    kubernetes.delete_pod("a-0").await;
    let (code, gone) = kubernetes.get("pods/a-0").await;
    assert_eq!((code, &gone["message"]), (404, &json!("pods \"a-0\" not found")));
    let present = kubernetes.create_pod("a-0", json!({})).await;
    assert_ne!(present["metadata"]["uid"], former["metadata"]["uid"]);
    let metadata = |field: &str| {
        let labels = json!({ "role": "primary" });
        json!({ "metadata": { "labels": labels, field: former["metadata"][field] } })
    };
    let by_uid = kubernetes.patch("merge-patch", "pods/a-0", &metadata("uid")).await;
    assert!(by_uid.0 == 422 || by_uid.0 == 409, "{}", by_uid.1);
    let by_version = kubernetes.patch("merge-patch", "pods/a-0", &metadata("resourceVersion")).await;
    assert_eq!(reason(&by_version), (409, "Conflict"));
    assert_eq!(kubernetes.pod("a-0").await["metadata"]["labels"]["role"], Value::Null);
    let twice = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a-0" },
        "spec": { "automountServiceAccountToken": false, "containers": [{ "name": "postgres", "image": "none" }] },
    });
    let answer = kubernetes.send("POST", &kubernetes.path("pods"), "application/json", &twice).await;
    assert_eq!(reason(&answer), (409, "AlreadyExists"));
}

/// The status is a subresource: each of the two leaves the other's part unchanged, and both write labels.
#[tokio::test]
async fn status_is_patched_through_its_subresource() {
    let kubernetes = Kubernetes::start().await;
    kubernetes.create_pod("a-0", json!({})).await;
    let conditions = |pod: &Value| -> Vec<String> {
        let all = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        all.iter().map(|one| format!("{}={}", text(&one["type"]), text(&one["status"]))).collect()
    };
    kubernetes.set_ready("a-0", true).await;
    let gate = json!({
        "metadata": { "annotations": { "by": "status" } },
        "status": { "conditions": [{ "type": "example.org/role", "status": "True" }] },
    });
    let (code, pod) = kubernetes.patch("strategic-merge-patch", "pods/a-0/status", &gate).await;
    assert_eq!(code, 200);
    let mut both = conditions(&pod);
    both.sort();
    assert_eq!(both, ["Ready=True", "example.org/role=True"]);
    assert_eq!(pod["metadata"]["annotations"]["by"], "status");
    let ignored = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } });
    let (code, pod) = kubernetes.patch("strategic-merge-patch", "pods/a-0", &ignored).await;
    assert_eq!((code, conditions(&pod).contains(&"Ready=True".to_owned())), (200, true));
}

#[tokio::test]
async fn an_invalid_label_is_refused() {
    let kubernetes = Kubernetes::start().await;
    kubernetes.create_pod("a-0", json!({})).await;
    let bad = json!({ "metadata": { "labels": { "role": "not a value" } } });
    let answer = kubernetes.patch("merge-patch", "pods/a-0", &bad).await;
    assert_eq!(reason(&answer), (422, "Invalid"), "{}", answer.1);
    assert_eq!(answer.1["details"]["causes"][0]["field"], "metadata.labels");
    let nobody = kubernetes.patch("merge-patch", "pods/a-9", &bad).await;
    assert_eq!(reason(&nobody), (404, "NotFound"));
}

/// An event of the group events.k8s.io, and one of the core group.
#[tokio::test]
async fn events_are_created_and_patched() {
    let kubernetes = Kubernetes::start().await;
    let namespace = kubernetes.namespace.clone();
    let pod = kubernetes.create_pod("a-0", json!({})).await;
    let regarding = json!({
        "apiVersion": "v1", "kind": "Pod", "name": "a-0", "namespace": namespace, "uid": pod["metadata"]["uid"],
    });
    let mut event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": { "name": "a-0.1", "namespace": namespace },
        "eventTime": "2026-01-02T03:04:05.000006Z", "reportingController": "matriarch", "reportingInstance": "a-0",
        "action": "ChangeLeadership", "reason": "Leads", "type": "Normal", "note": "why", "regarding": regarding,
    });
    let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
    let (code, made) = kubernetes.send("POST", &path, "application/json", &event).await;
    assert_eq!((code, &made["note"]), (201, &json!("why")), "{made}");
    let twice = kubernetes.send("POST", &path, "application/json", &event).await;
    assert_eq!(reason(&twice), (409, "AlreadyExists"));
    event["metadata"]["name"] = json!("a-0.2");
    event["reason"] = Value::Null;
    let incomplete = kubernetes.send("POST", &path, "application/json", &event).await;
    assert_eq!(reason(&incomplete), (422, "Invalid"), "{}", incomplete.1);
    let core = json!({
        "metadata": { "name": "a-0.3" }, "involvedObject": regarding, "reason": "Leads", "message": "why",
        "type": "Normal",
    });
    let (code, made) = kubernetes.send("POST", &kubernetes.path("events"), "application/json", &core).await;
    assert_eq!(code, 201, "{made}");
    let (code, made) =
        kubernetes.patch("strategic-merge-patch", "events/a-0.3", &json!({ "count": 2 })).await;
    assert_eq!((code, &made["count"]), (200, &json!(2)));
}
