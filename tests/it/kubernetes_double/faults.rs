//! Injected faults of the API server double look like faults of a real API server.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::kubernetes::{Effect, Fault, Kubernetes};
use crate::support::until;

fn label(role: &str) -> Value {
    json!({ "metadata": { "labels": { "role": role } } })
}

#[tokio::test]
async fn injected_statuses_come_as_often_as_requested() {
    let kubernetes = Kubernetes::double().await;
    kubernetes.create_pod("a-0", json!({})).await;
    for (code, reason) in [
        (401, "Unauthorized"),
        (403, "Forbidden"),
        (409, "Conflict"),
        (410, "Expired"),
        (500, "InternalError"),
        (503, "ServiceUnavailable"),
        (504, "Timeout"),
    ] {
        kubernetes.faulty().inject(Fault::always(Effect::Status(code)).on("patch").at("a-0").times(2));
        for _ in 0..2 {
            let (answered, status) = kubernetes.patch("merge-patch", "pods/a-0", &label("x")).await;
            assert_eq!(
                (answered, &status["reason"], &status["kind"]),
                (code, &json!(reason), &json!("Status"))
            );
        }
        assert_eq!(kubernetes.patch("merge-patch", "pods/a-0", &label("x")).await.0, 200);
    }
    kubernetes.faulty().inject(Fault::always(Effect::TooMany(3)).on("list").times(1));
    let (code, status) = kubernetes.get("pods").await;
    assert_eq!((code, &status["details"]["retryAfterSeconds"]), (429, &json!(3)));
    let asked = kubernetes.faulty().asked();
    let last = asked.last().expect("something was asked");
    assert_eq!((last.method.as_str(), last.code, last.subject.as_deref()), ("GET", Some(429), Some("admin")));
}

/// A request is delayed and carried out later, when no client waits for it any more.
#[tokio::test]
async fn a_delayed_patch_is_applied_late() {
    let kubernetes = Kubernetes::double().await;
    kubernetes.create_pod("a-0", json!({ "role": "replica" })).await;
    let held = kubernetes.faulty().inject(Fault::always(Effect::Held).on("patch"));
    let patch = label("primary");
    let patch = kubernetes.patch("merge-patch", "pods/a-0", &patch);
    assert!(tokio::time::timeout(Duration::from_millis(300), patch).await.is_err());
    assert_eq!(kubernetes.pod("a-0").await["metadata"]["labels"]["role"], "replica");
    kubernetes.faulty().lift(held);
    let done = until(Duration::from_secs(10), async || {
        (kubernetes.pod("a-0").await["metadata"]["labels"]["role"] == "primary").then_some(())
    });
    assert!(done.await.is_some());
    let swallowed = kubernetes.faulty().inject(Fault::always(Effect::Swallowed).on("patch"));
    let patch = label("replica");
    let patch = kubernetes.patch("merge-patch", "pods/a-0", &patch);
    assert!(tokio::time::timeout(Duration::from_millis(300), patch).await.is_err());
    kubernetes.faulty().lift(swallowed);
    kubernetes.faulty().inject(Fault::always(Effect::Late(Duration::from_millis(200))).times(1));
    let begun = Instant::now();
    assert_eq!(kubernetes.pod("a-0").await["metadata"]["labels"]["role"], "primary");
    assert!(begun.elapsed() >= Duration::from_millis(200));
}

/// The Role counts, by group, resource, subresource and verb. The token is checked first.
#[tokio::test]
async fn permissions_and_tokens_are_checked() {
    let kubernetes = Kubernetes::double().await;
    kubernetes.create_pod("a-0", json!({})).await;
    kubernetes.faulty().grant("admin", &[("", "pods", &["get", "patch"])]);
    assert_eq!(kubernetes.get("pods/a-0").await.0, 200);
    assert_eq!(kubernetes.patch("merge-patch", "pods/a-0", &label("x")).await.0, 200);
    let (code, status) = kubernetes.get("pods").await;
    assert_eq!((code, &status["reason"]), (403, &json!("Forbidden")));
    let message = format!(
        "pods is forbidden: User \"admin\" cannot list resource \"pods\" in API group \"\" in the namespace \"{}\"",
        kubernetes.namespace
    );
    assert_eq!(status["message"], json!(message));
    assert_eq!(kubernetes.patch("merge-patch", "pods/a-0/status", &label("x")).await.0, 403);
    assert!(kubernetes.watch("").await.is_err());
    kubernetes.faulty().expire_tokens("admin");
    let (code, status) = kubernetes.get("pods/a-0").await;
    assert_eq!((code, &status["message"]), (401, &json!("Unauthorized")));
}

/// The history of labels shows for how long two pods had one.
#[tokio::test]
async fn an_overlap_of_labels_is_measured() {
    let kubernetes = Kubernetes::double().await;
    for pod in ["a-0", "a-1"] {
        kubernetes.create_pod(pod, json!({ "role": "replica" })).await;
    }
    kubernetes.patch("merge-patch", "pods/a-0", &label("primary")).await;
    assert_eq!(kubernetes.faulty().longest_overlap("role", "primary"), Duration::ZERO);
    kubernetes.patch("merge-patch", "pods/a-1", &label("primary")).await;
    kubernetes.faulty().inject(Fault::always(Effect::Late(Duration::from_millis(100))).times(1));
    kubernetes.patch("merge-patch", "pods/a-0", &label("replica")).await;
    let overlap = kubernetes.faulty().longest_overlap("role", "primary");
    assert!(overlap >= Duration::from_millis(100), "{overlap:?}");
    let values: Vec<_> = kubernetes.faulty().labelled("role").into_iter().map(|one| one.value).collect();
    let role = |role: &str| Some(role.to_owned());
    assert_eq!(values, [role("replica"), role("replica"), role("primary"), role("primary"), role("replica")]);
    kubernetes.delete_pod("a-1").await;
    assert_eq!(kubernetes.faulty().longest_overlap("role", "primary"), overlap);
}
