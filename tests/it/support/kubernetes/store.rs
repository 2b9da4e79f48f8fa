//! The store of the API server double: objects, one version counter, and every change with its time.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::patch::Kind;
use super::resource::{Resource, check, normalized};
use super::selector::Selector;
use super::status::Reply;

/// Namespace and name of an object.
type Key = (&'static Resource, String, String);

/// All objects, and their history.
#[derive(Default)]
pub(crate) struct Store {
    version: u64,
    objects: BTreeMap<Key, Value>,
    changes: Vec<Change>,
    /// Changes up to this version are no longer sent.
    compacted: u64,
}

/// One change of one object.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// The version of the change.
    pub(crate) version: u64,
    /// The time.
    pub(crate) at: SystemTime,
    /// The resource.
    pub(crate) resource: &'static Resource,
    /// The object before.
    pub(crate) before: Option<Value>,
    /// The object after.
    pub(crate) after: Option<Value>,
}

impl Store {
    /// The newest version.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The first version from which changes can be sent.
    pub(crate) fn oldest(&self) -> u64 {
        self.compacted
    }

    /// Discards the history for watches that start from now on.
    pub(crate) fn compact(&mut self) {
        self.compacted = self.version;
    }

    /// All changes, including discarded ones.
    pub(crate) fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// An object.
    pub(crate) fn get(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Value, Reply> {
        let found = self.objects.get(&(resource, namespace.to_owned(), name.to_owned()));
        found.cloned().ok_or_else(|| Reply::not_found(&resource.qualified(), name))
    }

    /// The selected objects; those of every namespace if `namespace` is empty.
    pub(crate) fn select(
        &self,
        resource: &'static Resource,
        namespace: &str,
        selector: &Selector,
    ) -> Vec<Value> {
        let here = |key: &Key| {
            key.0 == resource && (namespace.is_empty() || !resource.namespaced || key.1 == namespace)
        };
        let found = self.objects.iter().filter(|(key, object)| here(key) && selector.matches(object));
        found.map(|(_, object)| object.clone()).collect()
    }

    /// A new object.
    pub(crate) fn create(
        &mut self,
        resource: &'static Resource,
        namespace: &str,
        mut object: Value,
    ) -> Result<Value, Reply> {
        if !object["metadata"].is_object() {
            return Err(Reply::bad_request("Object 'Kind' is missing, or there is no metadata"));
        }
        if let (None, Some(prefix)) =
            (object["metadata"]["name"].as_str(), object["metadata"]["generateName"].as_str())
        {
            object["metadata"]["name"] = json!(format!("{prefix}{:05x}", self.version + 1));
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if name.is_empty() {
            let why = "Required value: name or generateName is required";
            return Err(Reply::invalid(resource.kind, "", "metadata.name", why));
        }
        check(resource, &name, &object)?;
        let key = (resource, namespace.to_owned(), name.clone());
        if self.objects.contains_key(&key) {
            return Err(Reply::exists(&resource.qualified(), &name));
        }
        if resource.namespaced {
            object["metadata"]["namespace"] = json!(namespace);
        }
        object["metadata"]["uid"] = json!(format!("5f0e0000-0000-4000-8000-{:012x}", self.version + 1));
        object["metadata"]["creationTimestamp"] = json!(timestamp());
        normalized(resource, &mut object);
        Ok(self.put(key, Some(object)))
    }

    /// Changes an object: a patch without effect makes no new version.
    pub(crate) fn patch(
        &mut self,
        resource: &'static Resource,
        (namespace, name): (&str, &str),
        status: bool,
        (kind, patch): (Kind, &Value),
    ) -> Result<Value, Reply> {
        let before = self.get(resource, namespace, name)?;
        let mut after = kind.apply(&before, patch).ok_or_else(Reply::inapplicable)?;
        let meta = |object: &Value, field: &str| object["metadata"][field].clone();
        if meta(&after, "resourceVersion") != meta(&before, "resourceVersion")
            && !meta(&after, "resourceVersion").is_null()
        {
            return Err(Reply::modified(&resource.qualified(), name));
        }
        for field in ["uid", "name"] {
            if !meta(&after, field).is_null() && meta(&after, field) != meta(&before, field) {
                let why = format!("Invalid value: {}: field is immutable", meta(&after, field));
                return Err(Reply::invalid(resource.kind, name, &format!("metadata.{field}"), &why));
            }
        }
        check(resource, name, &after)?;
        for field in ["uid", "name", "resourceVersion", "creationTimestamp", "deletionTimestamp"] {
            keep(&mut after["metadata"], &before["metadata"], field);
        }
        // Each subresource leaves the other's part unchanged; both write labels and annotations.
        keep(&mut after, &before, if status { "spec" } else { "status" });
        normalized(resource, &mut after);
        if after == before {
            return Ok(before);
        }
        Ok(self.put((resource, namespace.to_owned(), name.to_owned()), Some(after)))
    }

    /// Deletes an object: it is marked, and removed at once when it runs nowhere, or no grace period is left.
    pub(crate) fn delete(
        &mut self,
        resource: &'static Resource,
        (namespace, name): (&str, &str),
        options: &Value,
    ) -> Result<Value, Reply> {
        let mut object = self.get(resource, namespace, name)?;
        for (field, called) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
            let (wanted, there) = (&options["preconditions"][field], &object["metadata"][field]);
            if wanted.is_string() && wanted != there {
                let [wanted, there] = [wanted, there].map(|value| value.as_str().unwrap_or_default());
                let why = format!(
                    "Precondition failed: {called} in precondition: {wanted}, {called} in object meta: {there}"
                );
                return Err(Reply::conflict(&resource.qualified(), name, &why));
            }
        }
        let grace = options["gracePeriodSeconds"].as_u64();
        let grace = grace.or(object["spec"]["terminationGracePeriodSeconds"].as_u64()).unwrap_or(0);
        let key = (resource, namespace.to_owned(), name.to_owned());
        let lingers = grace > 0 && object["spec"]["nodeName"].is_string();
        object["metadata"]["deletionTimestamp"] = json!(timestamp());
        object["metadata"]["deletionGracePeriodSeconds"] = json!(if lingers { grace } else { 0 });
        let marked = self.put(key.clone(), Some(object));
        if lingers {
            return Ok(marked);
        }
        Ok(self.put(key, None))
    }

    /// Stores or removes an object in a new version; returns it in that version.
    fn put(&mut self, key: Key, object: Option<Value>) -> Value {
        self.version += 1;
        let versioned = |mut object: Value| {
            object["metadata"]["resourceVersion"] = json!(self.version.to_string());
            object
        };
        let after = object.map(versioned);
        let before = match &after {
            Some(object) => self.objects.insert(key.clone(), object.clone()),
            None => self.objects.remove(&key),
        };
        let shown = after.clone().or_else(|| before.clone().map(versioned)).unwrap_or_default();
        let change = Change { version: self.version, at: SystemTime::now(), resource: key.0, before, after };
        self.changes.push(change);
        shown
    }
}

fn keep(target: &mut Value, source: &Value, field: &str) {
    match (source.get(field), target.as_object_mut()) {
        (Some(value), _) => target[field] = value.clone(),
        (None, Some(target)) => drop(target.remove(field)),
        (None, None) => {}
    }
}

fn timestamp() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
