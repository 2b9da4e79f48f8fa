//! Patches of a former leader that arrive late.

use std::time::Duration;

use matriarch::model::PodRole;
use serde_json::json;

use super::stand::{Leads, Stand, TERM, WITHIN, annotation, role};
use crate::support::kubernetes::{Effect, Fault};
use crate::support::until;

/// Waits until the API server holds a patch of pg-0's.
async fn held(stand: &Stand, before: usize) {
    let held = until(WITHIN, async || {
        let asked = stand.kubernetes.faulty().asked_by("pg-0");
        (before < asked.iter().filter(|asked| asked.method == "PATCH").count()).then_some(())
    });
    held.await.expect("it patches");
}

/// It led, its label was taken off meanwhile, and what it had sent before that does not count.
#[tokio::test]
async fn a_patch_from_before_the_strip_fails() {
    let stand = Stand::faulty().await;
    stand.make("pg-0", json!({}), json!({})).await;
    stand.make("pg-1", json!({"role": "replica"}), json!({})).await;
    let (old, new) = (stand.labeller("pg-0"), stand.labeller("pg-1"));
    old.lead(5);
    stand.sees("pg-0", "the old leader", |pod| role(pod) == Some("primary")).await;
    let before =
        stand.kubernetes.faulty().asked_by("pg-0").iter().filter(|asked| asked.method == "PATCH").count();
    let fault = stand.kubernetes.faulty().inject(Fault::always(Effect::Held).of("pg-0").on("patch"));
    // Somebody removes its label, and it mends that, slowly.
    stand.relabel("pg-0", json!({"role": "primary-not"})).await;
    held(&stand, before).await;
    stand.relabel("pg-0", json!({"role": "primary"})).await;
    old.leads(Leads::Not);
    new.lead(8);
    stand.sees("pg-1", "the new leader", |pod| role(pod) == Some("primary")).await;
    old.kube.want(PodRole::Follower);
    stand.kubernetes.faulty().lift(fault);
    let pod = stand.sees("pg-0", "a follower", |pod| role(pod) == Some("replica")).await;
    assert_eq!(annotation(&pod, TERM), Some("8"));
    let asked = stand.kubernetes.faulty().asked_by("pg-0");
    assert!(asked.iter().any(|asked| asked.method == "PATCH" && asked.code == Some(409)), "{asked:?}");
    assert_eq!(stand.kubernetes.faulty().longest_overlap("role", "primary"), Duration::ZERO);
}

/// It was about to say that it leads when it froze: nothing was there to be stripped, and its patch does arrive. The
/// new leader sees it and takes it off.
#[tokio::test]
async fn a_first_patch_that_arrives_late_is_taken_off_again() {
    let stand = Stand::faulty().await;
    stand.make("pg-0", json!({"role": "replica"}), json!({})).await;
    stand.make("pg-1", json!({"role": "replica"}), json!({})).await;
    let (old, new) = (stand.labeller("pg-0"), stand.labeller("pg-1"));
    let fault = stand.kubernetes.faulty().inject(Fault::always(Effect::Held).of("pg-0").on("patch"));
    old.lead(5);
    held(&stand, 0).await;
    old.leads(Leads::Not);
    new.lead(8);
    stand.sees("pg-1", "the new leader", |pod| role(pod) == Some("primary")).await;
    stand.kubernetes.faulty().lift(fault);
    let stripped = |pod: &serde_json::Value| annotation(pod, TERM) == Some("8");
    stand.sees("pg-0", "stripped", stripped).await;
    assert_eq!(role(&stand.pod("pg-1").await), Some("primary"));
    let both = stand.kubernetes.faulty().longest_overlap("role", "primary");
    assert!(both < Duration::from_secs(2), "two said that they lead for {both:?}");
}
