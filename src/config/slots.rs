//! The keys with the replication slots that stay although no member uses them.

use std::collections::BTreeSet;

use super::fault::Fault;
use super::reader::{ConfigFindings, Section, plain};
use super::tree::{Node, Value};
use crate::model::{SlotPattern, SlotSettings};

const IGNORED: &str = "ignore_slots";
/// The key, and its older names.
const PERMANENT: [&str; 3] = ["slots", "permanent_slots", "permanent_replication_slots"];
/// The rule for a permanent slot.
const KEPT_ONLY: &str = "slots of these names are never dropped; they are not created or advanced: create each where it \
                         is needed, and anew on a new primary";

pub(super) fn read(top: &mut Section<'_>, findings: &mut ConfigFindings) -> SlotSettings {
    let mut permanent = BTreeSet::new();
    for key in PERMANENT {
        match top.get(key) {
            Some(node @ Node { value: Value::Map(slots), .. }) => {
                permanent.extend(slots.iter().map(|(name, _)| name.clone()));
                if !slots.is_empty() {
                    top.warn(key, node, KEPT_ONLY, findings);
                }
            }
            Some(node) if plain(node).and_then(|text| super::units::boolean(&text)) == Some(false) => {}
            Some(node) => top.fault(key, node, "write a section of slots by their names", findings),
            None => {}
        }
    }
    let ignored = match top.get(IGNORED) {
        Some(Node { value: Value::List(items), .. }) => {
            items.iter().filter_map(|item| pattern(item, findings)).collect()
        }
        Some(node) => {
            top.fault(
                IGNORED,
                node,
                "write a list of slots, each with name, type, database or plugin",
                findings,
            );
            Vec::new()
        }
        None => Vec::new(),
    };
    SlotSettings { permanent, ignored }
}

fn pattern(item: &Node, findings: &mut ConfigFindings) -> Option<SlotPattern> {
    let mut fault = |node: &Node, expected: &str| {
        findings.faults.push(Fault {
            origin: node.origin.clone(),
            key: IGNORED.to_owned(),
            found: node.found(),
            expected: expected.to_owned(),
        });
    };
    let Value::Map(entries) = &item.value else {
        fault(item, "write name, type, database or plugin of the slot");
        return None;
    };
    let mut pattern = SlotPattern::default();
    for (key, node) in entries {
        let part = match key.as_str() {
            "name" => &mut pattern.name,
            "type" => &mut pattern.kind,
            "database" => &mut pattern.database,
            "plugin" => &mut pattern.plugin,
            _other => {
                fault(node, &format!("`{key}` is not known here: write name, type, database or plugin"));
                return None;
            }
        };
        *part = plain(node).filter(|text| !text.is_empty());
        if part.is_none() && node.value != Value::Null {
            fault(node, "write a text");
            return None;
        }
    }
    Some(pattern)
}

#[cfg(test)]
mod tests {
    use super::super::fault::ValueOrigin;
    use super::*;

    fn of(json: &serde_json::Value) -> (SlotSettings, usize) {
        let node = Node::from_json(json, &ValueOrigin { source: "config".to_owned(), line: None });
        let mut findings = ConfigFindings::default();
        (read(&mut Section::root(&node), &mut findings), findings.faults.len())
    }

    #[test]
    fn reads_what_patroni_reads() {
        let (settings, faults) = of(&serde_json::json!({
            "slots": { "barman": { "type": "physical" }, "plain": null },
            "permanent_slots": { "older": 0 },
            "ignore_slots": [{ "name": "s", "type": "logical", "database": "d", "plugin": "p" }, { "type": "physical" }],
        }));
        assert_eq!(faults, 0);
        assert_eq!(settings.permanent, ["barman", "older", "plain"].map(str::to_owned).into());
        let text = |text: &str| Some(text.to_owned());
        let pattern =
            SlotPattern { name: text("s"), kind: text("logical"), database: text("d"), plugin: text("p") };
        assert_eq!(
            settings.ignored,
            [pattern, SlotPattern { kind: text("physical"), ..SlotPattern::default() }]
        );
    }

    #[test]
    fn an_invalid_slot_pattern_is_a_fault() {
        for wrong in [
            serde_json::json!({ "slots": ["barman"] }),
            serde_json::json!({ "ignore_slots": { "name": "s" } }),
            serde_json::json!({ "ignore_slots": ["s"] }),
            serde_json::json!({ "ignore_slots": [{ "nmae": "s" }] }),
            serde_json::json!({ "ignore_slots": [{ "name": ["s"] }] }),
        ] {
            assert_eq!(of(&wrong), (SlotSettings::default(), 1), "{wrong}");
        }
    }
}
