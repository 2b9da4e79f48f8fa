//! The Role grants the calls that the program makes, and nothing else.

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::{Role, RoleBinding};

use super::folder;
use super::objects::{BUNDLES, Object, parse, render};
use crate::support::Place;
use crate::support::rbac::{CALLS, GATE_CALLS, SERVICE_CALLS};

/// Group and resource with the verbs.
type Rights = BTreeMap<(String, String), Vec<String>>;

fn rights(role: &Role) -> Rights {
    let mut rights = Rights::new();
    for rule in role.rules.iter().flatten() {
        assert!(rule.non_resource_urls.is_none(), "{rule:?}");
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                rights.entry((group.clone(), resource.clone())).or_default().extend(rule.verbs.clone());
            }
        }
    }
    rights.values_mut().for_each(|verbs| verbs.sort());
    rights
}

fn calls(lists: &[&[(&str, &str, &[&str])]]) -> Rights {
    let sorted = |verbs: &[&str]| {
        let mut verbs: Vec<String> = verbs.iter().map(|verb| (*verb).to_owned()).collect();
        verbs.sort();
        verbs
    };
    let calls = lists.iter().copied().flatten();
    calls.map(|(group, resource, verbs)| (((*group).into(), (*resource).into()), sorted(verbs))).collect()
}

#[test]
fn the_role_grants_the_calls_of_the_program() {
    for bundle in BUNDLES.iter() {
        let roles = bundle.all::<Role>("Role");
        assert_eq!(roles.len(), 1, "{}: nobody else asks the API server", bundle.name);
        assert_eq!(rights(&roles[0]), calls(&[CALLS, SERVICE_CALLS]), "{}", bundle.name);
    }
}

/// With the component of the readiness gate the Role grants the calls for that, too, and nothing else.
#[test]
fn a_readiness_gate_adds_its_own_right() {
    let objects = with_readiness_gate();
    let role: Role = objects.iter().find(|object| object.kind == "Role").expect("it is there").typed();
    assert_eq!(rights(&role), calls(&[CALLS, SERVICE_CALLS, GATE_CALLS]));
    let set = objects.iter().find(|object| object.kind == "StatefulSet" && object.name == "pg");
    let gate =
        set.expect("it is there").json["spec"]["template"]["spec"]["readinessGates"][0]["conditionType"]
            .clone();
    let settings = objects.iter().find(|object| object.name.starts_with("pg-settings")).expect("it is there");
    let text = settings.json["data"]["40-readiness-gate.yml"].as_str().expect("a text");
    let settings: serde_json::Value = serde_saphyr::from_str(text).expect("YAML");
    assert_eq!(settings["kubernetes"]["readiness_gate"], gate, "pod and supervisor mean the same condition");
    assert!(objects.iter().all(|object| super::strict::fault(object).is_none()));
}

/// Without a name, pods and slices may only be read, and slices created. Changes are limited to names: those of the
/// members, and those of the Service's slices.
#[test]
fn changes_are_bound_to_names() {
    for bundle in BUNDLES.iter() {
        let files = super::settings::files(bundle);
        let settings: serde_json::Value = serde_saphyr::from_str(&files["10-matriarch.yml"]).expect("YAML");
        let service = settings["kubernetes"]["primary_service"].as_str().expect("a name").to_owned();
        for role in bundle.all::<Role>("Role") {
            for rule in role.rules.iter().flatten() {
                let is_of = |start: &str| rule.resources.iter().flatten().any(|name| name.starts_with(start));
                if is_of("services") || is_of("endpointslices") {
                    let slices = [format!("{service}-ipv4"), format!("{service}-ipv6")];
                    let expected = match rule.verbs.join(", ").as_str() {
                        "create, list, watch" => Vec::new(),
                        "get" => vec![service.clone()],
                        _ => slices.to_vec(),
                    };
                    assert_eq!(rule.resource_names.clone().unwrap_or_default(), expected, "{rule:?}");
                    continue;
                }
                let of_pods = is_of("pods");
                let changes = rule.verbs.iter().any(|verb| verb == "patch");
                let names: Vec<&String> = rule.resource_names.iter().flatten().collect();
                assert_eq!(of_pods && changes, !names.is_empty(), "{rule:?}");
                let replicas =
                    bundle.one("StatefulSet", "pg").json["spec"]["replicas"].as_u64().expect("a number");
                let all =
                    (0..replicas).all(|ordinal| names.iter().any(|name| **name == format!("pg-{ordinal}")));
                assert!(names.is_empty() || all, "{names:?}");
            }
        }
    }
}

/// Only the members' pods run as the account with the rights.
#[test]
fn only_members_have_rights() {
    for bundle in BUNDLES.iter() {
        let bindings = bundle.all::<RoleBinding>("RoleBinding");
        let subjects: Vec<_> =
            bindings.iter().flat_map(|binding| binding.subjects.iter().flatten()).collect();
        assert!(subjects.len() == 1 && subjects[0].kind == "ServiceAccount", "{subjects:?}");
        for pod in super::pods::pods(bundle) {
            let is_member = pod.owner == "StatefulSet pg";
            let account = pod.spec.service_account_name.as_deref();
            assert_eq!(account == Some(&subjects[0].name), is_member, "{}", pod.owner);
            assert_eq!(pod.spec.automount_service_account_token, Some(is_member), "{}", pod.owner);
        }
    }
}

/// A copy of the README's example of a user's own overlay, which uses the component.
fn with_readiness_gate() -> Vec<Object> {
    let readme = std::fs::read_to_string(folder().join("README.md")).expect("it is there");
    let example = readme.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
    let place = Place::new();
    super::objects::run(std::process::Command::new("cp").arg("-r").arg(folder()).arg(place.path()));
    let overlay = place.folder("deploy/overlays/own");
    std::fs::write(overlay.join("kustomization.yaml"), example.expect("there is one"))
        .expect("our own place is writable");
    render(&overlay)
}

#[test]
fn an_unneeded_right_is_seen() {
    let role = |verbs: &str| {
        let text = format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: x}}\nrules:\n\
             - {{apiGroups: [\"\"], resources: [pods], verbs: [{verbs}]}}\n\
             - {{apiGroups: [events.k8s.io], resources: [events], verbs: [create]}}\n"
        );
        rights(&parse(&text)[0].typed::<Role>())
    };
    assert_eq!(role("get, list, watch, patch"), calls(&[CALLS]));
    assert_ne!(role("get, list, watch, patch, delete"), calls(&[CALLS]));
    assert_ne!(role("get, list, watch"), calls(&[CALLS]));
}
