//! `kubernetes`: the pod of this member, and the Services of the cluster. etcd stays the store.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::fault::ValueOrigin;
use super::reader::{ConfigFindings, Section, plain};
use super::tree::{Node, Value};
use crate::model::PodNames;

/// `kubernetes`. Without this section no pod is labelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    /// The namespace of the pods.
    pub namespace: String,
    /// The pod of this member.
    pub pod: String,
    /// Its uid, if the downward API provides it: a recreated pod with the same name is another one.
    pub pod_uid: Option<String>,
    /// The context of a kubeconfig; without it and a kubeconfig, the service account of the pod is used.
    pub context: Option<String>,
    /// The CA file instead of that of the kubeconfig or the service account.
    pub cacert: Option<PathBuf>,
    /// The labels of pods; the label with the cluster's name is part of the selector.
    pub names: PodNames,
    /// The Service of the primary, which has no selector: the leader writes its EndpointSlices.
    pub primary_service: Option<String>,
    /// A former primary starts as a standby after no route for clients of the primary has led here for this long.
    pub routing_grace: Duration,
}

/// kube-proxy may delay a change by a second after the previous one; the rest is for a busy machine.
const ROUTING_GRACE: Duration = Duration::from_millis(1500);

/// Patroni's keys without a meaning where etcd is the store, with the reason.
const NOT_ACTED_ON: [(&str, &str); 5] = [
    (
        "use_endpoints",
        "etcd is the store; `primary_service` names the Service that follows the primary: this key is not acted on",
    ),
    ("pod_ip", "the address is read from the pod: this key is not acted on"),
    ("ports", "ports are read from the Service that `primary_service` names: this key is not acted on"),
    ("bypass_api_service", "the API is asked through its Service: this key is not acted on"),
    ("retriable_http_codes", "whatever the API answers is tried again: this key is not acted on"),
];

/// Fills in the pod's own data: its name, uid and namespace, from the downward API or the service account.
pub(super) fn complete(
    root: &mut Node,
    environment: &BTreeMap<String, String>,
    account_namespace: impl FnOnce() -> Option<String>,
) {
    let Some(section) = root.get("kubernetes").filter(|node| matches!(node.value, Value::Map(_))) else {
        return;
    };
    let missing = |key: &str| section.get(key).is_none_or(|node| node.value == Value::Null);
    let told = |key: &'static str, variable: &str| {
        let text = environment.get(variable).filter(|text| missing(key) && !text.is_empty())?;
        Some((key, text.clone(), variable.to_owned()))
    };
    let namespace = told("namespace", "POD_NAMESPACE").or_else(|| {
        let text = missing("namespace").then(account_namespace).flatten()?;
        Some(("namespace", text, "service account".to_owned()))
    });
    let told = [told("pod", "POD_NAME"), told("pod_uid", "POD_UID"), namespace];
    for (key, text, source) in told.into_iter().flatten() {
        let origin = ValueOrigin { source, line: None };
        root.put(&["kubernetes", key], Node::text(text.trim(), &origin));
    }
}

/// Reads the section; `name` is the member's.
pub(super) fn read(
    top: &mut Section<'_>,
    scope: &str,
    name: Option<&str>,
    findings: &mut ConfigFindings,
) -> Option<Kubernetes> {
    let mut section = top.section("kubernetes", findings);
    if !section.is_there() {
        return None;
    }
    let mut selector = labels(&mut section, "labels", findings);
    let scope_label =
        key(&mut section, "scope_label", findings).unwrap_or_else(|| PodNames::SCOPE_LABEL.to_owned());
    let given = selector.get(&scope_label);
    if let (true, Some(node)) = (given.is_some_and(|given| given != scope), section.get("labels")) {
        let expected = format!("remove `{scope_label}`: its value is the scope, `{scope}`");
        section.fault("labels", node, &expected, findings);
    }
    selector.insert(scope_label, scope.to_owned());
    let usual = PodNames::default();
    let leader = value(&mut section, "leader_label_value", &usual.leader, findings);
    let follower = value(&mut section, "follower_label_value", &usual.follower, findings);
    if let (true, Some(node)) = (leader == follower, section.get("follower_label_value")) {
        let expected = "write another value than that of `leader_label_value`";
        section.fault("follower_label_value", node, expected, findings);
    }
    let standby_leader = value(&mut section, "standby_leader_label_value", &leader, findings);
    if let (true, Some(node)) = (standby_leader == follower, section.get("standby_leader_label_value")) {
        let expected = "write another value than that of `follower_label_value`";
        section.fault("standby_leader_label_value", node, expected, findings);
    }
    for (not_acted_on, why) in NOT_ACTED_ON {
        if let Some(node) = section.get(not_acted_on).filter(|node| node.value != Value::Bool(false)) {
            section.warn(not_acted_on, node, why, findings);
        }
    }
    let read = Kubernetes {
        namespace: section.text("namespace", findings).unwrap_or_else(|| "default".to_owned()),
        pod: section.text("pod", findings).or(name.map(str::to_owned)).unwrap_or_default(),
        pod_uid: section.text("pod_uid", findings),
        context: section.text("context", findings),
        cacert: section.text("cacert", findings).map(PathBuf::from),
        names: PodNames {
            selector,
            role_label: key(&mut section, "role_label", findings).unwrap_or(usual.role_label),
            leader,
            follower,
            standby_leader,
            tmp_role_label: key(&mut section, "tmp_role_label", findings),
            bootstrap_labels: labels(&mut section, "bootstrap_labels", findings),
            readiness_gate: key(&mut section, "readiness_gate", findings),
        },
        primary_service: service(&mut section, findings),
        routing_grace: section.span("routing_grace", ROUTING_GRACE, findings),
    };
    section.finish(findings);
    Some(read)
}

/// The key of a label or a condition; both have the same syntax.
fn key(section: &mut Section<'_>, name: &'static str, findings: &mut ConfigFindings) -> Option<String> {
    let text = section.text(name, findings)?;
    if let (false, Some(node)) = (is_key(&text), section.get(name)) {
        section.fault(name, node, "write the key of a label, as in `role` or `example.org/role`", findings);
    }
    Some(text)
}

fn service(section: &mut Section<'_>, findings: &mut ConfigFindings) -> Option<String> {
    let text = section.text("primary_service", findings)?;
    if let (false, Some(node)) = (is_service(&text), section.get("primary_service")) {
        let expected = "write the name of a Service without selector, as in `pg-rw`";
        section.fault("primary_service", node, expected, findings);
    }
    Some(text)
}

fn value(
    section: &mut Section<'_>,
    name: &'static str,
    default: &str,
    findings: &mut ConfigFindings,
) -> String {
    let Some(text) = section.text(name, findings) else { return default.to_owned() };
    if let (false, Some(node)) = (is_value(&text), section.get(name)) {
        section.fault(name, node, VALUE_EXPECTED, findings);
    }
    text
}

const VALUE_EXPECTED: &str = "write the value of a label: at most 63 letters, digits, `-`, `_` and `.`";

/// A map of labels.
fn labels(
    section: &mut Section<'_>,
    name: &'static str,
    findings: &mut ConfigFindings,
) -> BTreeMap<String, String> {
    let Some(node) = section.get(name) else { return BTreeMap::new() };
    let Value::Map(entries) = &node.value else {
        section.fault(name, node, "write a section of labels, as in `{application: patroni}`", findings);
        return BTreeMap::new();
    };
    let mut labels = BTreeMap::new();
    for (key, node) in entries {
        match plain(node).filter(|text| is_key(key) && (text.is_empty() || is_value(text))) {
            Some(text) => drop(labels.insert(key.clone(), text)),
            None => section.fault(&format!("{name}.{key}"), node, VALUE_EXPECTED, findings),
        }
    }
    labels
}

/// A name, with an optional domain prefix (Kubernetes, "Labels and Selectors").
fn is_key(text: &str) -> bool {
    let (domain, name) = text.split_once('/').map_or((None, text), |(domain, name)| (Some(domain), name));
    let part = |part: &str| is_value(part) && part.chars().all(|c| !c.is_ascii_uppercase() && c != '_');
    is_value(name) && domain.is_none_or(|domain| domain.len() <= 253 && domain.split('.').all(part))
}

/// A DNS label that begins with a letter.
fn is_service(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(inner)
        && !text.ends_with('-')
}

fn is_value(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && ends(text.chars().next())
        && ends(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_keys_and_values_follow_the_rules_of_kubernetes() {
        for key in ["role", "cluster-name", "example.org/role", "a_b.c"] {
            assert!(is_key(key), "{key}");
        }
        for key in ["", "-role", "role-", "a/b/c", "Example.org/role", "a..b/c", "ro le"] {
            assert!(!is_key(key), "{key}");
        }
        assert!(
            is_service("pg-rw") && ["", "1pg", "pg-", "pg.rw", "PG"].iter().all(|name| !is_service(name))
        );
        assert!(is_value("PRIMARY_1.x") && !is_value(&"x".repeat(64)) && !is_value("x/y"));
    }
}
