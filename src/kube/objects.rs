//! Pods and Services, with only the fields that are used here. The code that reads whole ones is a large part of a
//! program that has it.
//!
//! **Invariant:** neither is ever written as an object. Patches name single fields, so the other fields stay.

use k8s_openapi::api::core::v1::{ContainerPort, PodCondition, PodIP, ServicePort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, NamespaceResourceScope, Resource};
use kube::api::Execute;
use serde::Deserialize;

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct PodObject {
    #[serde(default)]
    pub(super) metadata: ObjectMeta,
    pub(super) spec: Option<PodSpec>,
    pub(super) status: Option<PodStatus>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodSpec {
    pub(super) node_name: Option<String>,
    pub(super) containers: Option<Vec<PodContainer>>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct PodContainer {
    pub(super) name: Option<String>,
    pub(super) ports: Option<Vec<ContainerPort>>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct PodStatus {
    pub(super) phase: Option<String>,
    pub(super) conditions: Option<Vec<PodCondition>>,
    #[serde(rename = "podIP")]
    pub(super) pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pub(super) pod_ips: Option<Vec<PodIP>>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct ServiceObject {
    #[serde(default)]
    pub(super) metadata: ObjectMeta,
    pub(super) spec: Option<ServiceSpec>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct ServiceSpec {
    pub(super) ports: Option<Vec<ServicePort>>,
}

impl Resource for PodObject {
    const API_VERSION: &'static str = "v1";
    const GROUP: &'static str = "";
    const KIND: &'static str = "Pod";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "pods";
    type Scope = NamespaceResourceScope;
}

impl Metadata for PodObject {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Execute for PodObject {}

impl Resource for ServiceObject {
    const API_VERSION: &'static str = "v1";
    const GROUP: &'static str = "";
    const KIND: &'static str = "Service";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "services";
    type Scope = NamespaceResourceScope;
}

impl Metadata for ServiceObject {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1 as whole;
    use serde_json::json;

    use super::*;

    #[test]
    fn they_are_the_objects_that_the_api_server_knows_by_these_names() {
        fn names<K: Resource>() -> [&'static str; 5] {
            [K::API_VERSION, K::GROUP, K::KIND, K::VERSION, K::URL_PATH_SEGMENT]
        }
        assert_eq!(names::<PodObject>(), names::<whole::Pod>());
        assert_eq!(names::<ServiceObject>(), names::<whole::Service>());
    }

    #[test]
    fn fields_that_are_not_used_are_not_read() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pg-0", "labels": null},
            "spec": {"nodeName": "worker-1", "volumes": "of a later version", "containers": [
                {"name": "init", "image": 7}, {"ports": [{"name": "postgres", "containerPort": 5432}]}
            ]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "conditions": null},
        });
        let pod: PodObject = serde_json::from_value(pod).expect("a pod");
        let (spec, status) = (pod.spec.expect("a spec"), pod.status.expect("a status"));
        assert_eq!(spec.node_name.as_deref(), Some("worker-1"));
        let ports =
            spec.containers.iter().flatten().filter_map(|container| container.ports.as_ref()).flatten();
        assert_eq!(ports.map(|port| port.container_port).collect::<Vec<_>>(), [5432]);
        assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.1"));
        assert_eq!(status.pod_ips.map(|all| all.len()), Some(1));
        let bare: PodObject = serde_json::from_value(json!({})).expect("everything is optional");
        assert!(bare.spec.is_none() && bare.metadata.name.is_none());
    }
}
