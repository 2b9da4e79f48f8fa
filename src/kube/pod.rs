//! The smallest patch that brings a pod's labels from the current to the wanted state, if any is needed.

use k8s_openapi::api::core::v1::PodCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Map, Value, json};

use super::objects::PodObject;
use crate::model::{PodNames, PodRole, Term, WallTime};

/// The term in which the label was written or removed, or in which another pod's member began to lead.
pub(super) const TERM: &str = "matriarch.io/term";
/// The member record, as in etcd.
pub(super) const STATUS: &str = "status";

impl PodNames {
    /// Selects the cluster's pods with the primary's label.
    pub(super) fn leaders(&self) -> String {
        selector(self.selector.iter().chain([(&self.role_label, &self.leader)]))
    }

    /// Selects the cluster's pods.
    pub(super) fn all(&self) -> String {
        selector(self.selector.iter())
    }

    /// Whether a new leader can find the pod.
    pub(super) fn selects(&self, pod: &PodObject) -> bool {
        self.selector.iter().all(|(key, value)| label(pod, key) == Some(value))
    }

    pub(super) fn says_leader(&self, pod: &PodObject) -> bool {
        label(pod, &self.role_label) == Some(&self.leader)
    }

    fn role(&self, role: PodRole) -> (Option<&str>, Option<&str>) {
        match role {
            PodRole::Leader(_) => (Some(&self.leader), Some("primary")),
            PodRole::StandbyLeader(_) => (Some(&self.standby_leader), Some("primary")),
            PodRole::Follower => (Some(&self.follower), Some("replica")),
            PodRole::Bootstrapping | PodRole::Nothing => (None, None),
        }
    }
}

fn selector<'a>(labels: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    labels.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// The wanted labels of the own pod; `None`: unchanged.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Wanted {
    pub(super) role: Option<PodRole>,
    pub(super) status: Option<String>,
}

/// A patch, and its importance.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PodPatch {
    pub(super) patch: Value,
    /// It changes what Services select, or the term; a status alone can wait.
    pub(super) routes: bool,
}

/// The smallest patch that brings `pod` to the wanted state.
pub(super) fn change(pod: &PodObject, wanted: &Wanted, names: &PodNames) -> Option<PodPatch> {
    let mut labels = Map::new();
    let mut annotations = Map::new();
    if let Some(role) = wanted.role {
        let (value, standard) = names.role(role);
        set(&mut labels, label(pod, &names.role_label), &names.role_label, value);
        if let Some(tmp) = &names.tmp_role_label {
            set(&mut labels, label(pod, tmp), tmp, standard);
        }
        for (key, value) in &names.bootstrap_labels {
            let value = (role == PodRole::Bootstrapping).then_some(value.as_str());
            set(&mut labels, label(pod, key), key, value);
        }
        if let Some(term) = role.term() {
            set(&mut annotations, annotation(pod, TERM), TERM, Some(&term.to_string()));
        }
    }
    let routes = !labels.is_empty() || !annotations.is_empty();
    if let Some(status) = &wanted.status {
        set(&mut annotations, annotation(pod, STATUS), STATUS, Some(status));
    }
    (routes || !annotations.is_empty()).then(|| PodPatch { patch: patch(pod, labels, annotations), routes })
}

/// Writes `term` on another pod, and removes the leader's label if it has that. Both give the pod a new version, so
/// that an earlier patch for the old version fails.
pub(super) fn fence(pod: &PodObject, term: Term, names: &PodNames) -> Value {
    let mut labels = Map::new();
    if names.says_leader(pod) {
        labels.insert(names.role_label.clone(), Value::Null);
        if let Some(tmp) = &names.tmp_role_label {
            set(&mut labels, label(pod, tmp), tmp, None);
        }
    }
    let annotations = Map::from_iter([(TERM.to_owned(), term.to_string().into())]);
    patch(pod, labels, annotations)
}

/// The patch of the readiness gate's condition; `None` when it has that value already.
pub(super) fn gate(pod: &PodObject, condition: &str, open: bool, now: WallTime) -> Option<Value> {
    let status = if open { "True" } else { "False" };
    let known = pod.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    if known.into_iter().any(|known| known.type_ == condition && known.status == status) {
        return None;
    }
    let condition = PodCondition {
        type_: condition.to_owned(),
        status: status.to_owned(),
        reason: Some(if open { "HasRole" } else { "HasNoRole" }.to_owned()),
        last_transition_time: timestamp(now).map(Time),
        ..PodCondition::default()
    };
    Some(json!({ "metadata": precondition(&pod.metadata), "status": { "conditions": [condition] } }))
}

/// A wall time in Kubernetes' form.
pub(super) fn timestamp(now: WallTime) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_millisecond(now.0).ok()
}

/// The term in which a leader last wrote or removed the label, or began to lead.
pub(super) fn term(pod: &PodObject) -> Option<Term> {
    term_of(&pod.metadata)
}

/// The same for any object with the annotation.
pub(super) fn term_of(metadata: &ObjectMeta) -> Option<Term> {
    metadata.annotations.as_ref()?.get(TERM)?.parse().ok().map(Term)
}

pub(super) fn label<'a>(pod: &'a PodObject, key: &str) -> Option<&'a String> {
    pod.metadata.labels.as_ref()?.get(key)
}

fn annotation<'a>(pod: &'a PodObject, key: &str) -> Option<&'a String> {
    pod.metadata.annotations.as_ref()?.get(key)
}

/// Whether `left` was read later than `right`. If their versions are not numbers, the last one received counts.
pub(super) fn is_newer(left: &ObjectMeta, right: &ObjectMeta) -> bool {
    let version = |metadata: &ObjectMeta| metadata.resource_version.as_deref()?.parse::<u128>().ok();
    left.uid != right.uid
        || match (version(left), version(right)) {
            (Some(left), Some(right)) => right <= left,
            (_, _) => true,
        }
}

fn set(fields: &mut Map<String, Value>, now: Option<&String>, key: &str, value: Option<&str>) {
    if now.map(String::as_str) != value {
        fields.insert(key.to_owned(), value.map_or(Value::Null, Value::from));
    }
}

fn patch(pod: &PodObject, labels: Map<String, Value>, annotations: Map<String, Value>) -> Value {
    let mut metadata = precondition(&pod.metadata);
    for (key, fields) in [("labels", labels), ("annotations", annotations)] {
        if !fields.is_empty() {
            metadata.insert(key.to_owned(), fields.into());
        }
    }
    json!({ "metadata": metadata })
}

/// Holds only for this object in this version.
pub(super) fn precondition(metadata: &ObjectMeta) -> Map<String, Value> {
    let fields = [("uid", &metadata.uid), ("resourceVersion", &metadata.resource_version)];
    fields.into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect()
}

#[cfg(test)]
mod tests;
