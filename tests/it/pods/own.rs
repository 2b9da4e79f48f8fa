//! The own pod says what it shall, whoever writes on it, and a pod made anew under its name is left alone.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, Patch, PatchParams};
use matriarch::kube::Told;
use matriarch::model::{PodRole, Term};
use serde_json::json;

use super::stand::{Labeller, Stand, TERM, WITHIN, annotation, role};
use crate::support::until;

#[tokio::test]
async fn the_label_follows_what_is_wanted() {
    let stand = Stand::new().await;
    stand.make("pg-0", json!({"app": "pg"}), json!({"note": "kept"})).await;
    let labeller = stand.labeller("pg-0");
    labeller.kube.want(PodRole::Follower);
    labeller.kube.publish(r#"{"state":"running"}"#.to_owned());
    let pod = stand.sees("pg-0", "a follower with its status", |pod| {
        role(pod) == Some("replica") && annotation(pod, "status").is_some()
    });
    assert_eq!(annotation(&pod.await, "status"), Some(r#"{"state":"running"}"#));
    labeller.lead(5);
    let pod = stand.sees("pg-0", "a leader", |pod| role(pod) == Some("primary")).await;
    assert_eq!(annotation(&pod, TERM), Some("5"));
    assert_eq!(
        pod.metadata.labels.as_ref().and_then(|labels| labels.get("app")).map(String::as_str),
        Some("pg")
    );
    assert_eq!(annotation(&pod, "note"), Some("kept"));
    labeller.kube.want(PodRole::Nothing);
    labeller.kube.unlabelled(WITHIN).await;
    assert_eq!(role(&stand.pod("pg-0").await), None, "it waited until the label was gone");
    labeller.complains(None).await;
}

#[tokio::test]
async fn nobody_says_that_it_leads_before_it_does() {
    let stand = Stand::new().await;
    stand.make("pg-0", json!({}), json!({})).await;
    let labeller = stand.labeller("pg-0");
    labeller.kube.want(PodRole::Leader(Term(5)));
    labeller.asks_the_lease().await;
    assert_eq!(role(&stand.pod("pg-0").await), None);
    labeller.lead(5);
    stand.sees("pg-0", "a leader", |pod| role(pod) == Some("primary")).await;
}

#[tokio::test]
async fn what_somebody_else_writes_is_mended() {
    let stand = Stand::new().await;
    stand.make("pg-0", json!({"role": "primary"}), json!({})).await;
    let labeller = stand.labeller("pg-0");
    labeller.kube.want(PodRole::Follower);
    stand.sees("pg-0", "a follower", |pod| role(pod) == Some("replica")).await;
    for wrong in [json!("primary"), json!(null), json!("x")] {
        stand.relabel("pg-0", json!({"role": wrong})).await;
        stand.sees("pg-0", "mended", |pod| role(pod) == Some("replica")).await;
    }
    labeller.complains(None).await;
}

/// Somebody else changes the pod all the time: every conflict is read back, and none is forced.
#[tokio::test]
async fn conflicts_are_read_back() {
    let stand = Stand::new().await;
    stand.make("pg-0", json!({}), json!({})).await;
    let labeller = stand.labeller("pg-0");
    let pods = stand.api::<Pod>();
    let busy = tokio::spawn(async move {
        for count in 0.. {
            let patch = Patch::Merge(json!({"metadata": {"annotations": {"busy": count.to_string()}}}));
            pods.patch("pg-0", &PatchParams::default(), &patch).await.expect("it is there");
        }
    });
    labeller.kube.want(PodRole::Follower);
    stand.sees("pg-0", "a follower", |pod| role(pod) == Some("replica")).await;
    labeller.lead(5);
    stand.sees("pg-0", "a leader", |pod| role(pod) == Some("primary")).await;
    busy.abort();
    let before: i64 =
        annotation(&stand.pod("pg-0").await, "busy").and_then(|count| count.parse().ok()).expect("busy");
    assert!(before > 0, "nothing was in the way");
}

#[tokio::test]
async fn a_pod_made_anew_under_the_same_name_is_not_touched_by_the_former_self() {
    let stand = Stand::new().await;
    let made = stand.make("pg-0", json!({}), json!({})).await;
    let uid = made.metadata.uid.clone().expect("it has one");
    let former = Labeller::start(matriarch::kube::KubeSetup { pod_uid: Some(uid), ..stand.setup("pg-0") });
    former.lead(5);
    stand.sees("pg-0", "a leader", |pod| role(pod) == Some("primary")).await;
    stand.remove("pg-0").await;
    stand.make("pg-0", json!({}), json!({})).await;
    former.kube.publish("{}".to_owned());
    former.complains(Some("label: another pod")).await;
    let pod = stand.pod("pg-0").await;
    assert_eq!((role(&pod), annotation(&pod, TERM), annotation(&pod, "status")), (None, None, None));
    let new = stand.labeller("pg-0");
    new.kube.want(PodRole::Follower);
    stand.sees("pg-0", "a follower", |pod| role(pod) == Some("replica")).await;
}

#[tokio::test]
async fn the_gate_opens_with_the_role() {
    let stand = Stand::new().await;
    stand.make("pg-0", json!({}), json!({})).await;
    let mut setup = stand.setup("pg-0");
    setup.names.readiness_gate = Some("matriarch.io/ready".to_owned());
    let labeller = Labeller::start(setup);
    let gate = |pod: &Pod| {
        let conditions = pod.status.as_ref()?.conditions.as_ref()?;
        let gate = conditions.iter().find(|condition| condition.type_ == "matriarch.io/ready")?;
        Some(gate.status.clone())
    };
    labeller.kube.want(PodRole::Follower);
    let pod = stand.sees("pg-0", "open", |pod| gate(pod).as_deref() == Some("True")).await;
    assert_eq!(role(&pod), Some("replica"), "the label came first");
    labeller.kube.want(PodRole::Nothing);
    stand.sees("pg-0", "shut", |pod| gate(pod).as_deref() == Some("False")).await;
}

#[tokio::test]
async fn a_change_of_leadership_is_told_on_the_pod() {
    let stand = Stand::new().await;
    let made = stand.make("pg-0", json!({}), json!({})).await;
    let labeller = stand.labeller("pg-0");
    labeller.kube.want(PodRole::Follower);
    stand.sees("pg-0", "a follower", |pod| role(pod) == Some("replica")).await;
    labeller.kube.tell(Told::Leads, Term(31), "nobody led".to_owned());
    let events = stand.api::<Event>();
    let told = until(WITHIN, async || {
        let listed = events.list(&ListParams::default()).await.expect("an answer");
        listed.items.into_iter().find(|event| event.reason.as_deref() == Some("Leads"))
    });
    let told = told.await.expect("an event");
    assert_eq!(told.note.as_deref(), Some("pg-0 leads in term 31: nobody led"));
    let about = told.regarding.expect("it is about the pod");
    assert_eq!((about.name.as_deref(), about.uid), (Some("pg-0"), made.metadata.uid));
    // The same again is no second event, and no trouble.
    labeller.kube.tell(Told::Leads, Term(31), "nobody led".to_owned());
    labeller.complains(None).await;
}
