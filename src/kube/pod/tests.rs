//! The arithmetic of patches.

use std::collections::BTreeMap;

use super::*;

fn names() -> PodNames {
    let selector = BTreeMap::from([("cluster-name".to_owned(), "main".to_owned())]);
    PodNames { selector, ..PodNames::default() }
}

fn pod(labels: Value, annotations: Value) -> PodObject {
    let metadata = json!({
        "name": "pg-0", "uid": "u-1", "resourceVersion": "7", "labels": labels, "annotations": annotations
    });
    serde_json::from_value(json!({ "metadata": metadata })).expect("a pod")
}

fn changed(pod: &PodObject, role: PodRole, names: &PodNames) -> Option<Value> {
    let change = change(pod, &Wanted { role: Some(role), status: None }, names)?;
    assert!(change.routes);
    Some(change.patch)
}

const LEADER: PodRole = PodRole::Leader(Term(9));

#[test]
fn a_pod_with_the_wanted_labels_is_not_patched() {
    let led = pod(json!({"role": "primary"}), json!({"matriarch.io/term": "9"}));
    assert_eq!(changed(&led, LEADER, &names()), None);
    assert_eq!(changed(&pod(json!({"role": "replica"}), json!({})), PodRole::Follower, &names()), None);
    assert_eq!(changed(&pod(Value::Null, Value::Null), PodRole::Nothing, &names()), None);
    assert_eq!(change(&led, &Wanted::default(), &names()), None);
}

#[test]
fn a_patch_has_the_differences_and_its_preconditions() {
    let fresh = pod(json!({"cluster-name": "main"}), json!({}));
    assert_eq!(
        changed(&fresh, LEADER, &names()),
        Some(json!({"metadata": {
            "uid": "u-1", "resourceVersion": "7",
            "labels": {"role": "primary"}, "annotations": {"matriarch.io/term": "9"}
        }}))
    );
    let led = pod(json!({"role": "primary"}), json!({"matriarch.io/term": "9"}));
    let patch = changed(&led, PodRole::Nothing, &names()).expect("the label goes");
    // The term stays: it tells under which leader the label was last there.
    assert_eq!(patch, json!({"metadata": {"uid": "u-1", "resourceVersion": "7", "labels": {"role": null}}}));
    let next = changed(&led, PodRole::Leader(Term(12)), &names()).expect("another term");
    assert_eq!(next["metadata"]["annotations"], json!({"matriarch.io/term": "12"}));
    assert_eq!(next["metadata"].get("labels"), None);
}

#[test]
fn the_second_label_has_the_standard_values() {
    let names = PodNames {
        leader: "master".to_owned(),
        follower: "slave".to_owned(),
        tmp_role_label: Some("tmp".to_owned()),
        ..names()
    };
    let patch = changed(&pod(json!({}), json!({})), LEADER, &names).expect("two labels");
    assert_eq!(patch["metadata"]["labels"], json!({"role": "master", "tmp": "primary"}));
    let led = pod(json!({"role": "master", "tmp": "primary"}), json!({}));
    let patch = changed(&led, PodRole::Follower, &names).expect("two labels");
    assert_eq!(patch["metadata"]["labels"], json!({"role": "slave", "tmp": "replica"}));
    assert_eq!(
        fence(&led, Term(3), &names)["metadata"],
        json!({
            "uid": "u-1", "resourceVersion": "7",
            "labels": {"role": null, "tmp": null}, "annotations": {"matriarch.io/term": "3"}
        })
    );
}

#[test]
fn bootstrap_labels_exist_only_during_a_bootstrap() {
    let names = PodNames {
        bootstrap_labels: BTreeMap::from([("critical".to_owned(), "true".to_owned())]),
        ..names()
    };
    let patch = changed(&pod(json!({"role": "replica"}), json!({})), PodRole::Bootstrapping, &names);
    let patch = patch.expect("a role goes, a label comes");
    assert_eq!(patch["metadata"]["labels"], json!({"role": null, "critical": "true"}));
    let patch = changed(&pod(json!({"critical": "true"}), json!({})), PodRole::Follower, &names);
    assert_eq!(
        patch.expect("the reverse")["metadata"]["labels"],
        json!({"role": "replica", "critical": null})
    );
}

#[test]
fn a_changed_status_alone_does_not_affect_services() {
    let wanted = Wanted { role: Some(PodRole::Follower), status: Some("{}".to_owned()) };
    let change = change(&pod(json!({"role": "replica"}), json!({"status": "old"})), &wanted, &names());
    let change = change.expect("a status");
    assert!(!change.routes);
    assert_eq!(change.patch["metadata"]["annotations"], json!({"status": "{}"}));
}

#[test]
fn the_readiness_gate_is_patched_only_if_it_differs() {
    let mut pod = pod(json!({}), json!({}));
    let opened = gate(&pod, "matriarch.io/ready", true, WallTime(0)).expect("there is none yet");
    assert_eq!(opened["metadata"], json!({"uid": "u-1", "resourceVersion": "7"}));
    assert_eq!(opened["status"]["conditions"][0]["status"], "True");
    pod.status = serde_json::from_value(opened["status"].clone()).expect("a status");
    assert_eq!(gate(&pod, "matriarch.io/ready", true, WallTime(1)), None);
    assert!(gate(&pod, "matriarch.io/ready", false, WallTime(1)).is_some());
}

#[test]
fn the_later_version_of_a_pod_counts() {
    let at = |version: &str, uid: &str| {
        let mut pod = pod(json!({}), json!({}));
        pod.metadata.resource_version = Some(version.to_owned());
        pod.metadata.uid = Some(uid.to_owned());
        pod.metadata
    };
    assert!(is_newer(&at("10", "a"), &at("9", "a")));
    assert!(!is_newer(&at("9", "a"), &at("10", "a")));
    assert!(is_newer(&at("9", "b"), &at("10", "a")), "another pod has its own story");
    assert!(is_newer(&at("x", "a"), &at("10", "a")), "no number: the last heard of");
}

#[test]
fn all_labels_of_the_cluster_are_asked_for() {
    assert_eq!(names().leaders(), "cluster-name=main,role=primary");
    assert_eq!(term(&pod(json!({}), json!({"matriarch.io/term": "41"}))), Some(Term(41)));
    assert_eq!(term(&pod(json!({}), json!({"matriarch.io/term": "?"}))), None);
}
