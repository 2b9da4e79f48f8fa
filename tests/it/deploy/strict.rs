//! Every object has only the fields of its type: a field that the API server would drop is a fault.

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::api::storage::v1::StorageClass;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::foreign;
use super::objects::{BUNDLES, Object};

#[test]
fn every_object_matches_its_schema() {
    for bundle in BUNDLES.iter() {
        let faults: Vec<String> = bundle.objects.iter().filter_map(fault).collect();
        assert!(faults.is_empty(), "{}:\n{}", bundle.name, faults.join("\n"));
    }
}

/// Two objects of one kind and name would be merged without a message.
#[test]
fn no_object_comes_twice() {
    for bundle in BUNDLES.iter() {
        let mut names: Vec<_> = bundle.objects.iter().map(|object| (&object.kind, &object.name)).collect();
        names.sort();
        let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
        assert!(twice.is_empty(), "{}: {twice:?}", bundle.name);
    }
}

#[test]
fn an_unknown_field_is_seen() {
    let object = |json: Value| super::objects::parse(&json.to_string()).remove(0);
    let service = |spec: Value| {
        object(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": spec}))
    };
    assert_eq!(fault(&service(json!({"ports": [{"port": 1}]}))), None);
    assert!(fault(&service(json!({"ports": [{"prot": 1, "port": 1}]}))).is_some());
    assert!(fault(&service(json!({"port": [{"port": 1}]}))).is_some());
    assert!(fault(&service(json!({"ports": [{"port": "one"}]}))).is_some());
    let odd = json!({"apiVersion": "v2", "kind": "Service", "metadata": {"name": "x"}});
    assert!(fault(&object(odd)).is_some());
}

/// The faults of an object.
pub(super) fn fault(object: &Object) -> Option<String> {
    let check: fn(&Value) -> Result<Value, serde_json::Error> =
        match (object.api_version.as_str(), object.kind.as_str()) {
            ("v1", "ConfigMap") => through::<ConfigMap>,
            ("v1", "PersistentVolumeClaim") => through::<PersistentVolumeClaim>,
            ("v1", "Secret") => through::<Secret>,
            ("v1", "Service") => through::<Service>,
            ("v1", "ServiceAccount") => through::<ServiceAccount>,
            ("apps/v1", "Deployment") => through::<Deployment>,
            ("apps/v1", "StatefulSet") => through::<StatefulSet>,
            ("batch/v1", "CronJob") => through::<CronJob>,
            ("batch/v1", "Job") => through::<Job>,
            ("networking.k8s.io/v1", "NetworkPolicy") => through::<NetworkPolicy>,
            ("policy/v1", "PodDisruptionBudget") => through::<PodDisruptionBudget>,
            ("rbac.authorization.k8s.io/v1", "Role") => through::<Role>,
            ("rbac.authorization.k8s.io/v1", "RoleBinding") => through::<RoleBinding>,
            ("storage.k8s.io/v1", "StorageClass") => through::<StorageClass>,
            ("cert-manager.io/v1", "Certificate") => through::<foreign::Certificate>,
            ("cert-manager.io/v1", "Issuer") => through::<foreign::Issuer>,
            ("monitoring.coreos.com/v1", "PodMonitor") => through::<foreign::PodMonitor>,
            ("monitoring.coreos.com/v1", "PrometheusRule") => through::<foreign::PrometheusRule>,
            ("snapshot.storage.k8s.io/v1", "VolumeSnapshot") => through::<foreign::VolumeSnapshot>,
            ("snapshot.storage.k8s.io/v1", "VolumeSnapshotClass") => through::<foreign::VolumeSnapshotClass>,
            (version, kind) => return Some(format!("{version} {kind} is no kind that is known here")),
        };
    let what = format!("{} {}", object.kind, object.name);
    match check(&object.json) {
        Err(error) => Some(format!("{what}: {error}")),
        Ok(back) => {
            let (mut written, mut read) = (object.json.clone(), back);
            prune(&mut written);
            prune(&mut read);
            differing("", &written, &read).map(|place| format!("{what}: {place} is no field of its type"))
        }
    }
}

/// The object after it was parsed as its type and written again.
fn through<T: DeserializeOwned + Serialize>(json: &Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(serde_json::from_value::<T>(json.clone())?)
}

/// Removes values that mean the same as a missing one.
fn prune(value: &mut Value) {
    let nothing = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    };
    match value {
        Value::Array(items) => items.iter_mut().for_each(prune),
        Value::Object(fields) => {
            fields.values_mut().for_each(prune);
            fields.retain(|_, field| !nothing(field));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The first difference between two values.
fn differing(place: &str, written: &Value, read: &Value) -> Option<String> {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => written.iter().find_map(|(key, value)| {
            let place = format!("{place}/{key}");
            match read.get(key) {
                Some(found) => differing(&place, value, found),
                None => Some(place),
            }
        }),
        (Value::Array(written), Value::Array(read)) if written.len() == read.len() => {
            let mut pairs = written.iter().zip(read).enumerate();
            pairs.find_map(|(index, (left, right))| differing(&format!("{place}/{index}"), left, right))
        }
        (written, read) => (written != read).then(|| place.to_owned()),
    }
}
