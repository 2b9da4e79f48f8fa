//! The three kinds of patch: JSON merge patch (RFC 7396), Kubernetes' strategic merge, JSON patch (RFC 6902).

use serde_json::{Map, Value};

/// The kind of a patch, by its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `application/merge-patch+json`.
    Merge,
    /// `application/strategic-merge-patch+json`.
    Strategic,
    /// `application/json-patch+json`.
    Json,
}

impl Kind {
    /// The kind for a content type.
    pub(crate) fn of(content_type: &str) -> Option<Kind> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/merge-patch+json" => Some(Kind::Merge),
            "application/strategic-merge-patch+json" => Some(Kind::Strategic),
            "application/json-patch+json" => Some(Kind::Json),
            _ => None,
        }
    }

    /// The patched object; `None` when the patch cannot be applied to it.
    pub(crate) fn apply(self, object: &Value, patch: &Value) -> Option<Value> {
        let mut patched = object.clone();
        match self {
            Kind::Merge => merge(&mut patched, patch),
            Kind::Strategic => strategic(&mut patched, patch),
            Kind::Json => {
                for operation in patch.as_array()? {
                    operate(&mut patched, operation)?;
                }
            }
        }
        Some(patched)
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    for (key, value) in patch {
        let target = object(target);
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("made one")
}

/// The keys that identify the elements of a list, for the lists in a pod.
fn merge_key(list: &str) -> Option<&'static str> {
    match list {
        "conditions" => Some("type"),
        "containers" | "initContainers" | "volumes" | "env" => Some("name"),
        "ownerReferences" => Some("uid"),
        _ => None,
    }
}

fn strategic(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if patch.get("$patch").and_then(Value::as_str) == Some("replace") {
        *target = Value::Object(without_directives(patch));
        return;
    }
    for (key, value) in patch.iter().filter(|(key, _)| !key.starts_with('$')) {
        let target = object(target);
        match (value, merge_key(key)) {
            (Value::Null, _) => drop(target.remove(key)),
            (Value::Array(elements), Some(by)) => {
                let list = target.entry(key.clone()).or_insert(Value::Null);
                *list = merge_list(list, elements, by);
            }
            _ => strategic(target.entry(key.clone()).or_insert(Value::Null), value),
        }
    }
}

fn merge_list(list: &Value, elements: &[Value], by: &str) -> Value {
    let mut merged = list.as_array().cloned().unwrap_or_default();
    for element in elements {
        let found = merged.iter().position(|one| one[by] == element[by]);
        match (element["$patch"].as_str(), found) {
            (Some("delete"), Some(found)) => drop(merged.remove(found)),
            (Some("delete"), None) => {}
            (_, Some(found)) => strategic(&mut merged[found], element),
            (_, None) => merged.push(element.clone()),
        }
    }
    Value::Array(merged)
}

fn without_directives(patch: &Map<String, Value>) -> Map<String, Value> {
    patch
        .iter()
        .filter(|(key, _)| !key.starts_with('$'))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn operate(target: &mut Value, operation: &Value) -> Option<()> {
    let path = operation["path"].as_str()?;
    let value = || operation.get("value").cloned();
    match operation["op"].as_str()? {
        "test" => (target.pointer(path) == operation.get("value")).then_some(()),
        "add" => put(target, path, value()?),
        "remove" => take(target, path).map(drop),
        "replace" => {
            *target.pointer_mut(path)? = value()?;
            Some(())
        }
        "move" => {
            let moved = take(target, operation["from"].as_str()?)?;
            put(target, path, moved)
        }
        "copy" => {
            let copied = target.pointer(operation["from"].as_str()?)?.clone();
            put(target, path, copied)
        }
        _ => None,
    }
}

/// The parent of a pointer's target, and the last part of the pointer.
fn parent<'a>(target: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((target.pointer_mut(parent)?, last.replace("~1", "/").replace("~0", "~")))
}

fn put(target: &mut Value, path: &str, value: Value) -> Option<()> {
    match parent(target, path)? {
        (Value::Object(object), key) => drop(object.insert(key, value)),
        (Value::Array(list), key) if key == "-" => list.push(value),
        (Value::Array(list), key) => {
            let index = key.parse().ok().filter(|index| *index <= list.len())?;
            list.insert(index, value);
        }
        _ => return None,
    }
    Some(())
}

fn take(target: &mut Value, path: &str) -> Option<Value> {
    match parent(target, path)? {
        (Value::Object(object), key) => object.remove(&key),
        (Value::Array(list), key) => {
            let index = key.parse().ok().filter(|index| *index < list.len())?;
            Some(list.remove(index))
        }
        _ => None,
    }
}

#[test]
fn the_kinds_of_patches_change_an_object() {
    use serde_json::json;
    let object = json!({ "m": { "a": "1", "b": "2" }, "conditions": [{ "type": "x", "status": "True" }] });
    let patched = |kind: Kind, patch: Value| kind.apply(&object, &patch);
    let merged = patched(Kind::Merge, json!({ "m": { "a": null, "c": "3" }, "conditions": [] }));
    assert_eq!(merged, Some(json!({ "m": { "b": "2", "c": "3" }, "conditions": [] })));
    let conditions = |patch: Value| {
        patched(Kind::Strategic, json!({ "conditions": [patch] })).map(|object| object["conditions"].clone())
    };
    assert_eq!(
        conditions(json!({ "type": "y", "status": "False" })),
        Some(json!([{ "type": "x", "status": "True" }, { "type": "y", "status": "False" }]))
    );
    assert_eq!(conditions(json!({ "type": "x", "why": "z" })).expect("applies")[0]["status"], "True");
    assert_eq!(conditions(json!({ "type": "x", "$patch": "delete" })), Some(json!([])));
    let operations = json!([
        { "op": "test", "path": "/m/a", "value": "1" },
        { "op": "replace", "path": "/m/a", "value": "9" },
        { "op": "add", "path": "/m/d~1e", "value": "4" },
        { "op": "remove", "path": "/m/b" },
    ]);
    let patched_json = patched(Kind::Json, operations).expect("applies");
    assert_eq!(patched_json["m"], json!({ "a": "9", "d/e": "4" }));
    assert_eq!(patched(Kind::Json, json!([{ "op": "test", "path": "/m/a", "value": "2" }])), None);
    assert_eq!(patched(Kind::Json, json!([{ "op": "remove", "path": "/m/z" }])), None);
}
