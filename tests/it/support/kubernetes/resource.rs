//! The resources, and the checks of their objects.

use serde_json::{Value, json};

use super::status::Reply;

/// A resource of the API.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Resource {
    /// API group; empty: the core.
    pub(crate) group: &'static str,
    /// Plural, as in paths.
    pub(crate) plural: &'static str,
    /// Kind of an object.
    pub(crate) kind: &'static str,
    /// Whether its objects are in namespaces.
    pub(crate) namespaced: bool,
}

const fn namespaced(group: &'static str, plural: &'static str, kind: &'static str) -> Resource {
    Resource { group, plural, kind, namespaced: true }
}

/// All of version v1. Events of the two groups are separate here; in a real API server they are the same objects in two
/// forms.
static RESOURCES: [Resource; 7] = [
    Resource { group: "", plural: "namespaces", kind: "Namespace", namespaced: false },
    namespaced("", "pods", "Pod"),
    namespaced("", "services", "Service"),
    namespaced("", "events", "Event"),
    namespaced("events.k8s.io", "events", "Event"),
    namespaced("apps", "statefulsets", "StatefulSet"),
    namespaced("discovery.k8s.io", "endpointslices", "EndpointSlice"),
];

/// Pods.
pub(crate) fn pods() -> &'static Resource {
    Resource::find("", "pods").expect("is in the table")
}

/// EndpointSlices.
pub(crate) fn slices() -> &'static Resource {
    Resource::find("discovery.k8s.io", "endpointslices").expect("is in the table")
}

impl Resource {
    /// The resource of that group and plural.
    pub(crate) fn find(group: &str, plural: &str) -> Option<&'static Resource> {
        RESOURCES.iter().find(|resource| resource.group == group && resource.plural == plural)
    }

    /// With its group, as in messages.
    pub(crate) fn qualified(&self) -> String {
        match self.group {
            "" => self.plural.to_owned(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// `apiVersion` of its objects.
    pub(crate) fn api_version(&self) -> String {
        match self.group {
            "" => "v1".to_owned(),
            group => format!("{group}/v1"),
        }
    }

    /// A list of it in a version.
    pub(crate) fn list(&self, version: u64, items: Vec<Value>) -> Value {
        json!({
            "kind": format!("{}List", self.kind), "apiVersion": self.api_version(),
            "metadata": { "resourceVersion": version.to_string() }, "items": items,
        })
    }

    /// The content of a bookmark: only a version.
    pub(crate) fn bookmark(&self, version: u64) -> Value {
        json!({
            "kind": self.kind, "apiVersion": self.api_version(),
            "metadata": { "resourceVersion": version.to_string(), "creationTimestamp": null },
        })
    }
}

/// Converts an object to its stored form.
pub(crate) fn normalized(resource: &Resource, object: &mut Value) {
    object["kind"] = json!(resource.kind);
    object["apiVersion"] = json!(resource.api_version());
    if resource.plural == "pods" && object["status"]["phase"].is_null() {
        object["status"]["phase"] = json!("Pending");
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in ["labels", "annotations"] {
            let empty =
                |value: &Value| value.is_null() || value.as_object().is_some_and(|map| map.is_empty());
            if metadata.get(field).is_some_and(empty) {
                metadata.remove(field);
            }
        }
    }
}

/// The checks of the API server that a member's request can fail.
pub(crate) fn check(resource: &Resource, name: &str, object: &Value) -> Result<(), Reply> {
    let invalid = |field: &str, why: String| Err(Reply::invalid(resource.kind, name, field, &why));
    for (_, value) in object["metadata"]["labels"].as_object().into_iter().flatten() {
        let Some(text) = value.as_str() else {
            return Err(Reply::bad_request("unable to decode: labels are texts"));
        };
        let ends = |letter: Option<char>| letter.is_none_or(|letter| letter.is_ascii_alphanumeric());
        let inner = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        let well = ends(text.chars().next()) && ends(text.chars().next_back()) && text.chars().all(inner);
        if !well || text.len() > 63 {
            let why = format!(
                "Invalid value: {value}: a valid label must be an empty string or consist of alphanumeric \
                 characters, '-', '_' or '.', and must start and end with an alphanumeric character"
            );
            return invalid("metadata.labels", why);
        }
    }
    if object["metadata"]["annotations"]
        .as_object()
        .into_iter()
        .flatten()
        .any(|(_, value)| !value.is_string())
    {
        return Err(Reply::bad_request("unable to decode: annotations are texts"));
    }
    let required: &[&str] = match (resource.group, resource.plural) {
        ("", "pods") => &["/spec/containers/0/name"],
        ("events.k8s.io", "events") => {
            &["/eventTime", "/reportingController", "/reportingInstance", "/action", "/reason", "/type"]
        }
        ("", "events") => &["/involvedObject"],
        ("discovery.k8s.io", "endpointslices") => &["/addressType", "/endpoints"],
        _ => &[],
    };
    for pointer in required {
        if object.pointer(pointer).is_none_or(Value::is_null) {
            let field = pointer.trim_start_matches('/').replace('/', ".");
            return invalid(&field, "Required value".to_owned());
        }
    }
    Ok(())
}
