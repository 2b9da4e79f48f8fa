//! PostgreSQL parameters as the sources give them, for a check against PostgreSQL.

use serde_json::{Map, Value as Json};

use super::fault::{Fault, ValueOrigin};
use super::reader::parameter;
use super::tree::{Node, Value};
use super::{by_role, guc};

/// A parameter with its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The origin.
    pub origin: ValueOrigin,
    /// The key that sets it, dotted.
    pub key: String,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl Given {
    /// The fault of this parameter, for the reason `why`.
    pub fn fault(&self, why: &str) -> Fault {
        let found = format!("found `{}`", self.value);
        Fault { origin: self.origin.clone(), key: self.key.clone(), found, expected: why.to_owned() }
    }
}

/// The parameters that `after`, a dynamic configuration, sets to other values than `before`.
pub fn new_parameters(before: &Map<String, Json>, after: &Map<String, Json>) -> Vec<Given> {
    let origin = ValueOrigin { source: "config".to_owned(), line: None };
    let of = |config: &Map<String, Json>| given(&Node::from_json(&Json::Object(config.clone()), &origin), "");
    let known = of(before);
    of(after).into_iter().filter(|given| !known.contains(given)).collect()
}

/// The parameters in a member's own file.
pub(super) fn given_in_file(root: &Node) -> Vec<Given> {
    let first = root.get("bootstrap").and_then(|bootstrap| bootstrap.get("dcs"));
    let first = first.map_or_else(Vec::new, |dcs| given(dcs, "bootstrap.dcs."));
    // Controlled parameters have no effect in a member's own file.
    let own = given(root, "").into_iter().filter(|given| !guc::is_controlled(&given.name));
    own.chain(first).collect()
}

/// The server parameters in the section `postgresql` of `node`, which is at `path`.
fn given(node: &Node, path: &str) -> Vec<Given> {
    let mut all = Vec::new();
    for section in ["parameters", "recovery_conf"].into_iter().chain(by_role::parameter_keys()) {
        let node = node.get("postgresql").and_then(|postgresql| postgresql.get(section));
        let Some(Value::Map(entries)) = node.map(|node| &node.value) else { continue };
        // Controlled parameters have no effect for one role.
        let is_of_role = by_role::parameter_keys().any(|key| key == section);
        let has_no_effect = |name: &str| guc::is_ours(name) || is_of_role && guc::is_controlled(name);
        for (name, value) in entries.iter().filter(|(name, _)| !has_no_effect(name)) {
            let key = format!("{path}postgresql.{section}.{name}");
            let (origin, name) = (value.origin.clone(), name.clone());
            all.extend(parameter(value).map(|value| Given { origin, key, name, value }));
        }
    }
    all
}
