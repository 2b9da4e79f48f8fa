//! Other pods with the leader's label: it is removed before the own pod gets it, and as long as the own pod has it.

use matriarch::model::{PodRole, Term};
use serde_json::json;

use super::fixture::{Leads, PodFixture, TERM, WITHIN, annotation, role, version};

#[tokio::test]
async fn a_new_leader_removes_other_leader_labels_before_it_adds_its_own() {
    let fixture = PodFixture::new().await;
    fixture.make("pg-0", json!({"role": "primary"}), json!({TERM: "3"})).await;
    fixture.make("pg-1", json!({"role": "primary"}), json!({})).await;
    fixture.make("pg-2", json!({"role": "replica"}), json!({})).await;
    fixture.make("other", json!({"role": "primary", "cluster-name": "other"}), json!({})).await;
    let labeller = fixture.labeller("pg-2");
    labeller.lead(7);
    let leader = fixture.sees("pg-2", "a leader", |pod| role(pod) == Some("primary")).await;
    for name in ["pg-0", "pg-1"] {
        let stripped = fixture.pod(name).await;
        assert_eq!((role(&stripped), annotation(&stripped, TERM)), (None, Some("7")), "{name}");
        assert!(version(&stripped) < version(&leader), "{name} was stripped first");
    }
    assert_eq!(role(&fixture.pod("other").await), Some("primary"), "another cluster's is left alone");
}

#[tokio::test]
async fn a_promotion_waits_for_the_removal_of_labels_up_to_a_limit() {
    let fixture = PodFixture::new().await;
    fixture.make("pg-0", json!({"role": "primary"}), json!({TERM: "3"})).await;
    fixture.make("pg-1", json!({"role": "replica"}), json!({})).await;
    let labeller = fixture.labeller("pg-1");
    labeller.leads(Leads::In(Term(7)));
    labeller.kube.strip(Term(7), WITHIN).await;
    assert_eq!(role(&fixture.pod("pg-0").await), None);
}

/// A pod shows that its member led in a newer term. It is left alone until etcd confirms, after that, that this member
/// leads.
#[tokio::test]
async fn a_label_of_a_newer_term_stays_until_etcd_confirms_leadership() {
    let fixture = PodFixture::new().await;
    fixture.make("pg-0", json!({"role": "primary"}), json!({TERM: "9"})).await;
    fixture.make("pg-1", json!({"role": "replica"}), json!({})).await;
    let labeller = fixture.labeller("pg-1");
    labeller.leads(Leads::UnconfirmedIn(Term(7)));
    labeller.kube.want(PodRole::Leader(Term(7)));
    labeller.complains(Some("label: newer term")).await;
    assert_eq!(role(&fixture.pod("pg-0").await), Some("primary"));
    assert_eq!(role(&fixture.pod("pg-1").await), Some("replica"));
    labeller.leads(Leads::In(Term(7)));
    fixture.sees("pg-1", "a leader", |pod| role(pod) == Some("primary")).await;
    assert_eq!(role(&fixture.pod("pg-0").await), None);
    labeller.complains(None).await;
}

/// A former leader that wakes up finds on its own pod the term of the leader that removed the label.
#[tokio::test]
async fn a_member_without_its_label_ignores_an_old_confirmation() {
    let fixture = PodFixture::new().await;
    fixture.make("pg-0", json!({}), json!({})).await;
    fixture.make("pg-1", json!({}), json!({})).await;
    let (old, new) = (fixture.labeller("pg-0"), fixture.labeller("pg-1"));
    old.lead(5);
    fixture.sees("pg-0", "the old leader", |pod| role(pod) == Some("primary")).await;
    old.leads(Leads::UnconfirmedIn(Term(5)));
    new.lead(8);
    fixture.sees("pg-1", "the new leader", |pod| role(pod) == Some("primary")).await;
    old.complains(Some("label: newer term")).await;
    let stripped = fixture.pod("pg-0").await;
    assert_eq!((role(&stripped), annotation(&stripped, TERM)), (None, Some("8")));
    old.leads(Leads::Not);
    old.kube.want(PodRole::Follower);
    fixture.sees("pg-0", "a follower", |pod| role(pod) == Some("replica")).await;
    old.complains(None).await;
}

#[tokio::test]
async fn a_leader_removes_the_leader_label_from_other_pods() {
    let fixture = PodFixture::new().await;
    fixture.make("pg-0", json!({"role": "replica"}), json!({})).await;
    fixture.make("pg-1", json!({}), json!({})).await;
    let labeller = fixture.labeller("pg-1");
    labeller.lead(7);
    fixture.sees("pg-1", "a leader", |pod| role(pod) == Some("primary")).await;
    // Set by hand, twice: the second time the pod has the term of the strip.
    for _ in 0..2 {
        fixture.relabel("pg-0", json!({"role": "primary"})).await;
        fixture.sees("pg-0", "stripped", |pod| role(pod).is_none()).await;
    }
    fixture.make("pg-2", json!({"role": "primary"}), json!({})).await;
    fixture.sees("pg-2", "stripped, too", |pod| role(pod).is_none()).await;
    assert_eq!(role(&fixture.pod("pg-1").await), Some("primary"));
    // A member that no longer leads does not change other pods.
    labeller.leads(Leads::Not);
    labeller.kube.want(PodRole::Follower);
    fixture.sees("pg-1", "a follower", |pod| role(pod) == Some("replica")).await;
    fixture.relabel("pg-0", json!({"role": "primary"})).await;
    labeller.kube.publish("{}".to_owned());
    fixture.sees("pg-1", "alive", |pod| annotation(pod, "status").is_some()).await;
    assert_eq!(role(&fixture.pod("pg-0").await), Some("primary"));
}
