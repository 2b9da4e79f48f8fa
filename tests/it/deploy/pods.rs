//! The pods of a bundle, with their owners.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec, VolumeMount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::objects::Bundle;

/// A pod as a template describes it.
#[derive(Debug)]
pub(super) struct Pod {
    /// Kind and name of its owner.
    pub(super) owner: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) spec: PodSpec,
    /// Claims that its StatefulSet makes.
    pub(super) claims: Vec<String>,
}

impl Pod {
    /// All containers, including the init containers.
    pub(super) fn containers(&self) -> impl Iterator<Item = &Container> {
        self.spec.init_containers.iter().flatten().chain(&self.spec.containers)
    }

    /// Whether it has a port of this name, or number, and by which protocol.
    pub(super) fn has_port(&self, port: &str) -> bool {
        let ports = self.containers().flat_map(|container| container.ports.iter().flatten());
        let mut names = ports.flat_map(|port| [port.name.clone(), Some(port.container_port.to_string())]);
        names.any(|name| name.as_deref() == Some(port))
    }
}

/// Every pod of a bundle.
pub(super) fn pods(bundle: &Bundle) -> Vec<Pod> {
    let template = |object: &super::objects::Object| {
        let path = match object.kind.as_str() {
            "StatefulSet" | "Deployment" | "Job" => "/spec/template",
            "CronJob" => "/spec/jobTemplate/spec/template",
            _ => return None,
        };
        let template: PodTemplateSpec =
            serde_json::from_value(object.json.pointer(path)?.clone()).expect("a template");
        let claims = object.json.pointer("/spec/volumeClaimTemplates").and_then(|claims| claims.as_array());
        let claims =
            claims.into_iter().flatten().filter_map(|claim| claim.pointer("/metadata/name")?.as_str());
        Some(Pod {
            owner: format!("{} {}", object.kind, object.name),
            labels: template.metadata.and_then(|metadata| metadata.labels).unwrap_or_default(),
            spec: template.spec.expect("a pod has a spec"),
            claims: claims.map(str::to_owned).collect(),
        })
    };
    bundle.objects.iter().filter_map(template).collect()
}

/// Whether a selector matches a pod with these labels. Expressions are not used here, so they are refused.
pub(super) fn picks(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    assert!(selector.match_expressions.is_none(), "match labels only: {selector:?}");
    selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value))
}

/// The mount that contains `path`: the deepest one above it.
pub(super) fn mount_of<'a>(container: &'a Container, path: &str) -> Option<&'a VolumeMount> {
    let above = |mount: &&VolumeMount| {
        path.strip_prefix(&mount.mount_path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let mounts = container.volume_mounts.iter().flatten().filter(above);
    mounts.max_by_key(|mount| mount.mount_path.len())
}
