//! The EndpointSlices of the primary's Service, one for each address family: their content, and the single write that
//! changes it.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ObjectReference, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::objects::{PodObject, ServiceObject};
use super::pod::{TERM, precondition, term_of};
use crate::model::Term;

/// The label with the name of a slice's Service.
pub(super) const SERVICE: &str = "kubernetes.io/service-name";
/// The label with the manager of a slice; slices of other managers are not changed.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "matriarch";
/// The API server's default for a port without a protocol.
const PROTOCOL: &str = "TCP";

/// A slice has addresses of one family; that never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// The name of this family's slice.
    pub(super) fn slice(self, service: &str) -> String {
        format!("{service}-{}", self.address_type().to_lowercase())
    }

    fn address_type(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    /// The pod's address of this family, if it has one.
    fn address(self, pod: &PodObject) -> Option<String> {
        let status = pod.status.as_ref()?;
        let all = status.pod_ips.iter().flatten().map(|known| &known.ip).chain(&status.pod_ip);
        let mut known = all.filter_map(|text| Some((text, text.parse().ok()?)));
        let found = known.find(|(_, address)| match address {
            IpAddr::V4(_) => self == Family::V4,
            IpAddr::V6(_) => self == Family::V6,
        });
        found.map(|(text, _)| text.clone())
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum SliceWrite {
    Create(Box<EndpointSlice>),
    Patch(Value),
}

/// The write that routes the slice to this pod alone, in `term`; `None` when it does already. An error if the Service
/// names a port that the pod lacks.
pub(super) fn lead(
    slice: Option<&EndpointSlice>,
    (service, pod, family): (&ServiceObject, &PodObject, Family),
    term: Term,
) -> Result<Option<SliceWrite>, String> {
    let wanted = wanted(service, pod, family, term)?;
    let Some(slice) = slice else {
        let has_address = wanted.endpoints.as_ref().is_some_and(|endpoints| !endpoints.is_empty());
        return Ok(has_address.then(|| SliceWrite::Create(Box::new(wanted))));
    };
    let owner = |slice: &EndpointSlice| {
        let owners = slice.metadata.owner_references.iter().flatten();
        owners.map(|owner| owner.uid.clone()).collect::<Vec<_>>()
    };
    let is_done = proxy_view(slice) == proxy_view(&wanted)
        && owner(slice) == owner(&wanted)
        && term_of(&slice.metadata) == Some(term);
    Ok((!is_done).then(|| {
        let mut metadata = precondition(&slice.metadata);
        metadata.insert("annotations".to_owned(), json!(wanted.metadata.annotations));
        metadata.insert("ownerReferences".to_owned(), json!(wanted.metadata.owner_references));
        let (endpoints, ports) = (wanted.endpoints, wanted.ports);
        SliceWrite::Patch(json!({ "metadata": metadata, "endpoints": endpoints, "ports": ports }))
    }))
}

/// The patch that removes this pod's address from the slice; `None` when it is not in it.
pub(super) fn leave(slice: &EndpointSlice, pod: &PodObject) -> Option<Value> {
    leads_to(slice, pod).then(|| {
        let others = slice.endpoints.iter().flatten().filter(|endpoint| !is_of(endpoint, pod));
        json!({ "metadata": precondition(&slice.metadata), "endpoints": others.collect::<Vec<_>>() })
    })
}

/// Whether the slice has an address of this pod.
pub(super) fn leads_to(slice: &EndpointSlice, pod: &PodObject) -> bool {
    slice.endpoints.iter().flatten().any(|endpoint| is_of(endpoint, pod))
}

/// Whether I may write it: it belongs to the Service, and to this manager.
pub(super) fn is_mine(slice: &EndpointSlice, service: &str) -> bool {
    let label = |key: &str| slice.metadata.labels.as_ref()?.get(key).map(String::as_str);
    label(SERVICE) == Some(service) && label(MANAGED_BY) == Some(MANAGER)
}

fn is_of(endpoint: &Endpoint, pod: &PodObject) -> bool {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.as_ref());
    let same_address = || {
        let mine = Family::BOTH.map(|family| family.address(pod));
        endpoint.addresses.iter().any(|address| mine.iter().flatten().any(|mine| mine == address))
    };
    uid.is_some() && uid == pod.metadata.uid.as_ref() || same_address()
}

fn wanted(
    service: &ServiceObject,
    pod: &PodObject,
    family: Family,
    term: Term,
) -> Result<EndpointSlice, String> {
    let name = service.metadata.name.clone().unwrap_or_default();
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Service".to_owned(),
        name: name.clone(),
        uid: service.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    };
    let labels = [(SERVICE, name.as_str()), (MANAGED_BY, MANAGER)];
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    Ok(EndpointSlice {
        address_type: family.address_type().to_owned(),
        endpoints: Some(family.address(pod).map(|address| endpoint(pod, address)).into_iter().collect()),
        metadata: ObjectMeta {
            name: Some(family.slice(&name)),
            namespace: pod.metadata.namespace.clone(),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            annotations: Some([(TERM.to_owned(), term.to_string())].into()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        ports: Some(ports.map(|port| endpoint_port(&name, port, pod)).collect::<Result<_, _>>()?),
    })
}

fn endpoint(pod: &PodObject, address: String) -> Endpoint {
    Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(true),
            serving: Some(true),
            terminating: Some(false),
        }),
        node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

/// A port of the Service, with the number that the pod gives to it.
fn endpoint_port(service: &str, port: &ServicePort, pod: &PodObject) -> Result<EndpointPort, String> {
    let number = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => {
            let containers = pod.spec.iter().flat_map(|spec| spec.containers.iter().flatten());
            let mut known = containers.flat_map(|container| container.ports.iter().flatten());
            let found = known.find(|known| known.name.as_ref() == Some(name));
            let missing =
                || format!("a port of the Service {service} leads to `{name}`: the pod has none such");
            found.ok_or_else(missing)?.container_port
        }
    };
    Ok(EndpointPort {
        app_protocol: port.app_protocol.clone(),
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(number),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| PROTOCOL.to_owned())),
    })
}

/// The part that a proxy reads. Additions of the API server make no difference.
fn proxy_view(slice: &EndpointSlice) -> Value {
    let endpoints = slice.endpoints.iter().flatten().map(|endpoint| {
        let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready);
        json!([endpoint.addresses, endpoint.target_ref.as_ref().map(|target| &target.uid), ready])
    });
    let ports = slice.ports.iter().flatten().map(|port| {
        json!([port.name.as_deref().unwrap_or_default(), port.port, port.protocol, port.app_protocol])
    });
    json!([endpoints.collect::<Vec<_>>(), ports.collect::<Vec<_>>()])
}

#[cfg(test)]
mod tests;
