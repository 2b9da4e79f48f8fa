//! Patches of a former leader that arrive late.

use std::time::Duration;

use matriarch::model::PodRole;
use serde_json::json;

use super::fixture::{Leads, PodFixture, TERM, WITHIN, annotation, role};
use crate::support::kubernetes::{Effect, Fault};
use crate::support::until;

/// Waits until the API server holds a patch of pg-0's.
async fn held(fixture: &PodFixture, before: usize) {
    let held = until(WITHIN, async || (before < patches(fixture)).then_some(()));
    held.await.expect("it patches");
}

/// How many patches of its own pod pg-0 has sent.
fn patches(fixture: &PodFixture) -> usize {
    let asked = fixture.kubernetes.faulty().asked_by("pg-0");
    asked.iter().filter(|asked| asked.method == "PATCH" && asked.path.contains("pods/pg-0")).count()
}

/// The member led, then its label was removed. The patches that it sent before that have no effect.
#[tokio::test]
async fn a_patch_from_before_the_strip_fails() {
    let fixture = PodFixture::faulty().await;
    fixture.make("pg-0", json!({}), json!({})).await;
    fixture.make("pg-1", json!({"role": "replica"}), json!({})).await;
    let (old, new) = (fixture.labeller("pg-0"), fixture.labeller("pg-1"));
    old.lead(5);
    fixture.sees("pg-0", "the old leader", |pod| role(pod) == Some("primary")).await;
    let before = patches(&fixture);
    let fault = fixture.kubernetes.faulty().inject(Fault::always(Effect::Held).of("pg-0").on("patch"));
    // Another client changes the label, and the member's correction is delayed.
    fixture.relabel("pg-0", json!({"role": "primary-not"})).await;
    held(&fixture, before).await;
    fixture.relabel("pg-0", json!({"role": "primary"})).await;
    old.leads(Leads::Not);
    new.lead(8);
    fixture.sees("pg-1", "the new leader", |pod| role(pod) == Some("primary")).await;
    old.kube.want(PodRole::Follower);
    fixture.kubernetes.faulty().lift(fault);
    let pod = fixture.sees("pg-0", "a follower", |pod| role(pod) == Some("replica")).await;
    assert_eq!(annotation(&pod, TERM), Some("8"));
    let asked = fixture.kubernetes.faulty().asked_by("pg-0");
    assert!(asked.iter().any(|asked| asked.method == "PATCH" && asked.code == Some(409)), "{asked:?}");
    assert_eq!(fixture.kubernetes.faulty().longest_overlap("role", "primary"), Duration::ZERO);
}

/// The member was about to set the leader's label when it froze, and its pod never had the label. Its delayed patch has
/// no effect after another member has begun to lead.
#[tokio::test]
async fn a_first_patch_of_a_pod_without_a_label_fails() {
    let fixture = PodFixture::faulty().await;
    fixture.make("pg-0", json!({}), json!({})).await;
    fixture.make("pg-1", json!({"role": "replica"}), json!({})).await;
    fixture.make("pg-2", json!({"role": "replica"}), json!({})).await;
    let (old, new) = (fixture.labeller("pg-0"), fixture.labeller("pg-1"));
    // The request is held after the member has written its term on the other pods, and before it writes on its own.
    fixture.sees("pg-0", "there", |pod| role(pod).is_none()).await;
    let own = Fault::always(Effect::Held).of("pg-0").on("patch").at("pods/pg-0");
    let fault = fixture.kubernetes.faulty().inject(own);
    old.lead(5);
    fixture.sees("pg-2", "claimed", |pod| annotation(pod, TERM) == Some("5")).await;
    held(&fixture, 0).await;
    old.leads(Leads::Not);
    new.lead(8);
    fixture.sees("pg-1", "the new leader", |pod| role(pod) == Some("primary")).await;
    for name in ["pg-0", "pg-2"] {
        assert_eq!(annotation(&fixture.pod(name).await, TERM), Some("8"), "{name}");
    }
    fixture.kubernetes.faulty().lift(fault);
    let refused = until(WITHIN, async || {
        let asked = fixture.kubernetes.faulty().asked_by("pg-0");
        asked.iter().any(|asked| asked.method == "PATCH" && asked.code == Some(409)).then_some(())
    });
    refused.await.expect("the late patch fails");
    old.kube.want(PodRole::Follower);
    fixture.sees("pg-0", "a follower", |pod| role(pod) == Some("replica")).await;
    assert_eq!(role(&fixture.pod("pg-2").await), Some("replica"), "what others say stays");
    assert_eq!(fixture.kubernetes.faulty().longest_overlap("role", "primary"), Duration::ZERO);
}
