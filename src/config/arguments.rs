//! Parameters of PostgreSQL from the command line, over everything else.

use super::fault::ValueOrigin;
use super::guc;
use super::tree::Node;

/// Lays them over `root`. Parameters on which all members must agree belong to the dynamic configuration: they become
/// part of a new cluster's first one, unless the configuration sets them.
pub(super) fn overlay(root: &mut Node, parameters: &[(String, String)]) {
    let origin = ValueOrigin { source: "the command line".to_owned(), line: None };
    for (name, value) in parameters {
        let node = Node::text(value, &origin);
        root.put(&["postgresql", "parameters", name], node.clone());
        if guc::is_controlled(name) && root.get("bootstrap").is_some() {
            let mut first = Node::default();
            first.put(&["bootstrap", "dcs", "postgresql", "parameters", name], node);
            root.fill(first);
        }
    }
}
