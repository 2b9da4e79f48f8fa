//! The own pod keeps the wanted labels, whoever writes on it, and a new pod of the same name is left alone.

use matriarch::kube::{KubeSetup, LeadershipEvent};
use matriarch::model::{PodEnd, PodRole, Term};
use serde_json::{Value, json};

use super::fixture::{Labeller, PodFixture, TERM, WITHIN, annotation, role};
use crate::support::kubernetes::PortState;
use crate::support::until;

#[tokio::test]
async fn the_label_follows_the_wanted_role() {
    let fixture = PodFixture::new().await;
    fixture.make("pg-0", json!({"app": "pg"}), json!({"note": "kept"})).await;
    let labeller = fixture.labeller("pg-0");
    labeller.kube.want(PodRole::Follower);
    labeller.kube.publish(r#"{"state":"running"}"#.to_owned());
    let pod = fixture.sees("pg-0", "a follower with its status", |pod| {
        role(pod) == Some("replica") && annotation(pod, "status").is_some()
    });
    assert_eq!(annotation(&pod.await, "status"), Some(r#"{"state":"running"}"#));
    labeller.lead(5);
    let pod = fixture.sees("pg-0", "a leader", |pod| role(pod) == Some("primary")).await;
    assert_eq!(annotation(&pod, TERM), Some("5"));
    assert_eq!(pod["metadata"]["labels"]["app"], "pg");
    assert_eq!(annotation(&pod, "note"), Some("kept"));
    labeller.kube.want(PodRole::Nothing);
    labeller.kube.unlabelled(WITHIN).await;
    assert_eq!(role(&fixture.pod("pg-0").await), None, "it waited until the label was gone");
    labeller.complains(None).await;
}

#[tokio::test]
async fn no_pod_has_the_leader_label_before_it_leads() {
    let fixture = PodFixture::new().await;
    fixture.make("pg-0", json!({}), json!({})).await;
    let labeller = fixture.labeller("pg-0");
    labeller.kube.want(PodRole::Leader(Term(5)));
    labeller.asks_the_lease().await;
    assert_eq!(role(&fixture.pod("pg-0").await), None);
    labeller.lead(5);
    fixture.sees("pg-0", "a leader", |pod| role(pod) == Some("primary")).await;
}

#[tokio::test]
async fn foreign_changes_are_reverted() {
    let fixture = PodFixture::new().await;
    fixture.make("pg-0", json!({"role": "primary"}), json!({})).await;
    let labeller = fixture.labeller("pg-0");
    labeller.kube.want(PodRole::Follower);
    fixture.sees("pg-0", "a follower", |pod| role(pod) == Some("replica")).await;
    for wrong in [json!("primary"), json!(null), json!("x")] {
        fixture.relabel("pg-0", json!({"role": wrong})).await;
        fixture.sees("pg-0", "mended", |pod| role(pod) == Some("replica")).await;
    }
    labeller.complains(None).await;
}

/// Another client changes the pod continuously: after every conflict the pod is read again, and no write is forced.
#[tokio::test]
async fn conflicts_are_read_back() {
    let fixture = PodFixture::new().await;
    fixture.make("pg-0", json!({}), json!({})).await;
    let labeller = fixture.labeller("pg-0");
    let busy = async {
        for count in 0.. {
            let patch = json!({"metadata": {"annotations": {"busy": count.to_string()}}});
            let patched = fixture.kubernetes.patch("merge-patch", "pods/pg-0", &patch).await;
            assert_eq!(patched.0, 200, "{}", patched.1);
        }
    };
    let led = async {
        labeller.kube.want(PodRole::Follower);
        fixture.sees("pg-0", "a follower", |pod| role(pod) == Some("replica")).await;
        labeller.lead(5);
        fixture.sees("pg-0", "a leader", |pod| role(pod) == Some("primary")).await;
    };
    tokio::select! {
        () = led => {}
        () = busy => unreachable!("it is always busy"),
    }
    let pod = fixture.pod("pg-0").await;
    assert!(annotation(&pod, "busy").is_some_and(|count| count != "0"), "nothing was in the way");
}

#[tokio::test]
async fn a_new_pod_of_the_same_name_is_not_touched_by_the_previous_incarnation() {
    let fixture = PodFixture::new().await;
    let made = fixture.make("pg-0", json!({}), json!({})).await;
    let uid = made["metadata"]["uid"].as_str().map(str::to_owned);
    let former = Labeller::start(KubeSetup { pod_uid: uid, ..fixture.setup("pg-0") });
    former.lead(5);
    fixture.sees("pg-0", "a leader", |pod| role(pod) == Some("primary")).await;
    fixture.remove("pg-0").await;
    fixture.make("pg-0", json!({}), json!({})).await;
    former.kube.publish("{}".to_owned());
    former.complains(Some("label: another pod")).await;
    let pod = fixture.pod("pg-0").await;
    assert_eq!((role(&pod), annotation(&pod, TERM), annotation(&pod, "status")), (None, None, None));
    let new = fixture.labeller("pg-0");
    new.kube.want(PodRole::Follower);
    fixture.sees("pg-0", "a follower", |pod| role(pod) == Some("replica")).await;
}

/// A proof by the API server about the pod is known at once; a lack of answers proves nothing.
#[tokio::test]
async fn the_end_of_the_pod_is_reported_once_it_is_proved() {
    let fixture = PodFixture::faulty().await;
    fixture.make("pg-0", json!({}), json!({})).await;
    let labeller = fixture.labeller("pg-0");
    labeller.lead(5);
    fixture.sees("pg-0", "a leader", |pod| role(pod) == Some("primary")).await;
    fixture.kubernetes.faulty().set_client_port("pg-0", PortState::Shut);
    labeller.kube.want(PodRole::Nothing);
    labeller.complains(Some("label: unreachable")).await;
    assert_eq!(labeller.kube.facts().borrow().end, None);
    fixture.kubernetes.faulty().set_client_port("pg-0", PortState::Open);
    fixture.sees("pg-0", "no leader", |pod| role(pod).is_none()).await;
    fixture.ask_to_end("pg-0").await;
    labeller.ends(PodEnd::Deleting).await;
    fixture.remove("pg-0").await;
    labeller.ends(PodEnd::Gone).await;
    fixture.make("pg-0", json!({}), json!({})).await;
    labeller.ends(PodEnd::Replaced).await;
    // Nothing is reported about the new pod.
    let new = fixture.labeller("pg-0");
    new.kube.want(PodRole::Follower);
    fixture.sees("pg-0", "a follower", |pod| role(pod) == Some("replica")).await;
    assert_eq!(new.kube.facts().borrow().end, None);
}

/// The pod was deleted while the API server could not be reached: the list shows it.
#[tokio::test]
async fn a_pod_that_is_missing_in_a_fresh_list_is_gone() {
    let fixture = PodFixture::faulty().await;
    fixture.make("pg-0", json!({}), json!({})).await;
    let labeller = fixture.labeller("pg-0");
    labeller.kube.want(PodRole::Follower);
    fixture.sees("pg-0", "a follower", |pod| role(pod) == Some("replica")).await;
    fixture.kubernetes.faulty().set_client_port("pg-0", PortState::Shut);
    fixture.remove("pg-0").await;
    fixture.kubernetes.faulty().set_client_port("pg-0", PortState::Open);
    labeller.ends(PodEnd::Gone).await;
}

#[tokio::test]
async fn the_gate_opens_with_the_role() {
    let fixture = PodFixture::new().await;
    fixture.make("pg-0", json!({}), json!({})).await;
    let mut setup = fixture.setup("pg-0");
    setup.names.readiness_gate = Some("matriarch.io/ready".to_owned());
    let labeller = Labeller::start(setup);
    let gate = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array()?;
        let gate = conditions.iter().find(|condition| condition["type"] == "matriarch.io/ready")?;
        gate["status"].as_str().map(str::to_owned)
    };
    labeller.kube.want(PodRole::Follower);
    let pod = fixture.sees("pg-0", "open", |pod| gate(pod).as_deref() == Some("True")).await;
    assert_eq!(role(&pod), Some("replica"), "the label came first");
    labeller.kube.want(PodRole::Nothing);
    fixture.sees("pg-0", "shut", |pod| gate(pod).as_deref() == Some("False")).await;
}

#[tokio::test]
async fn a_change_of_leadership_is_an_event_of_the_pod() {
    let fixture = PodFixture::new().await;
    let made = fixture.make("pg-0", json!({}), json!({})).await;
    let labeller = fixture.labeller("pg-0");
    labeller.kube.want(PodRole::Follower);
    fixture.sees("pg-0", "a follower", |pod| role(pod) == Some("replica")).await;
    labeller.kube.announce(LeadershipEvent::Leads, Term(31), "nobody led".to_owned());
    let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", fixture.kubernetes.namespace);
    let told = until(WITHIN, async || {
        let (_, listed) = fixture.kubernetes.send("GET", &path, "application/json", &Value::Null).await;
        listed["items"].as_array()?.iter().find(|event| event["reason"] == "Leads").cloned()
    });
    let told = told.await.expect("an event");
    assert_eq!(told["note"], "pg-0 leads in term 31: nobody led");
    assert_eq!(
        (&told["regarding"]["name"], &told["regarding"]["uid"]),
        (&json!("pg-0"), &made["metadata"]["uid"])
    );
    // The same event again creates no second one, and no error.
    labeller.kube.announce(LeadershipEvent::Leads, Term(31), "nobody led".to_owned());
    labeller.complains(None).await;
}
