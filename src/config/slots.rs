//! The keys with the replication slots that outlive failovers, and those that the supervisor never touches.

use std::collections::BTreeMap;

use super::fault::Fault;
use super::reader::{ConfigFindings, Section, plain};
use super::tree::{Node, Value};
use super::units;
use crate::model::{SlotKind, SlotPattern, SlotSettings, nearest};

const IGNORED: &str = "ignore_slots";
/// The key, and its older names.
const PERMANENT: [&str; 3] = ["slots", "permanent_slots", "permanent_replication_slots"];
/// The keys of a permanent slot.
const PARTS: [&str; 4] = ["type", "database", "plugin", "cluster_type"];
/// The values of `cluster_type`.
const PRIMARY: &str = "primary";
const STANDBY: &str = "standby";
/// The longest name that PostgreSQL accepts.
const NAME_LETTERS: usize = 63;

/// `in_standby_cluster`: the slots of standby clusters are read, else those of others.
pub(super) fn read(
    top: &mut Section<'_>,
    in_standby_cluster: bool,
    findings: &mut ConfigFindings,
) -> SlotSettings {
    let other_type = if in_standby_cluster { PRIMARY } else { STANDBY };
    let mut permanent = BTreeMap::new();
    for key in PERMANENT {
        match top.get(key) {
            Some(Node { value: Value::Map(slots), .. }) => {
                let slots = slots.iter().filter_map(|(name, node)| {
                    let kind = permanent_slot((&format!("{key}.{name}"), name), node, other_type, findings)?;
                    Some((name.clone(), kind))
                });
                permanent.extend(slots);
            }
            Some(node) if is_off(node) => {}
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

/// A value that Patroni takes for none: nothing, `0`, an empty text or section.
fn is_off(node: &Node) -> bool {
    match &node.value {
        Value::Null => true,
        Value::Map(parts) => parts.is_empty(),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) | Value::List(_) => {
            plain(node).is_some_and(|text| text.is_empty() || units::boolean(&text) == Some(false))
        }
    }
}

fn fault(key: &str, node: &Node, expected: &str) -> Fault {
    Fault {
        origin: node.origin.clone(),
        key: key.to_owned(),
        found: node.found(),
        expected: expected.to_owned(),
    }
}

/// The slot under `key`; `None`: it belongs to other clusters than this one, or is faulty. Each fault is one of the
/// whole slot, so that the whole one before stays in force.
fn permanent_slot(
    (key, name): (&str, &str),
    node: &Node,
    other_type: &str,
    findings: &mut ConfigFindings,
) -> Option<SlotKind> {
    let mut refuse = |expected: &str| {
        findings.faults.push(fault(key, node, expected));
        None
    };
    let is_letter = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    if name.is_empty() || NAME_LETTERS < name.len() || !name.chars().all(is_letter) {
        return refuse("name a slot with 1 to 63 lower-case letters, digits and underscores");
    }
    if is_off(node) {
        return Some(SlotKind::Physical);
    }
    let Value::Map(parts) = &node.value else {
        return refuse("write type (physical or logical), and for a logical slot database and plugin");
    };
    let known = parts.iter().filter(|(part, _)| PARTS.contains(&part.as_str()));
    if let Some((part, _)) = known.clone().find(|(_, node)| is_no_text(node)) {
        return refuse(&format!("write a text as {part}"));
    }
    let part = |name: &str| known.clone().find(|(part, _)| part == name).and_then(|(_, node)| plain(node));
    let cluster_type = part("cluster_type");
    if cluster_type.as_deref().is_some_and(|of| of != PRIMARY && of != STANDBY) {
        return refuse("write primary or standby as cluster_type");
    }
    let kind = match (part("type").as_deref(), part("database"), part("plugin")) {
        (Some("logical") | None, Some(database), Some(plugin)) => SlotKind::Logical { database, plugin },
        (Some("physical") | None, _, _) => SlotKind::Physical,
        (Some("logical"), _, _) => return refuse("a logical slot needs database and plugin: write both"),
        (Some(_), _, _) => return refuse("write physical or logical as type"),
    };
    warn_of_unknown(key, parts, findings);
    let is_of_this_type = cluster_type.as_deref() != Some(other_type);
    // A standby cluster has no logical slots: its remote primary does not keep the catalogs for them.
    let can_be_here = kind == SlotKind::Physical || other_type != PRIMARY;
    (is_of_this_type && can_be_here).then_some(kind)
}

/// Neither nothing nor a text.
fn is_no_text(node: &Node) -> bool {
    node.value != Value::Null && plain(node).is_none_or(|text| text.is_empty())
}

fn warn_of_unknown(key: &str, parts: &[(String, Node)], findings: &mut ConfigFindings) {
    for (part, node) in parts.iter().filter(|(part, _)| !PARTS.contains(&part.as_str())) {
        let expected = match nearest(part, PARTS.into_iter()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "this key is not known and has no effect".to_owned(),
        };
        let warning = fault(&format!("{key}.{part}"), node, &expected);
        findings.warnings.push(Fault { found: "is not known".to_owned(), ..warning });
    }
}

fn pattern(item: &Node, findings: &mut ConfigFindings) -> Option<SlotPattern> {
    let mut refuse = |node: &Node, expected: &str| findings.faults.push(fault(IGNORED, node, expected));
    let Value::Map(entries) = &item.value else {
        refuse(item, "write name, type, database or plugin of the slot");
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
                refuse(node, &format!("`{key}` is not known here: write name, type, database or plugin"));
                return None;
            }
        };
        *part = plain(node).filter(|text| !text.is_empty());
        if part.is_none() && node.value != Value::Null {
            refuse(node, "write a text");
            return None;
        }
        if key == "type" && part.as_deref().is_some_and(|kind| kind != "physical" && kind != "logical") {
            refuse(node, "write physical or logical");
            return None;
        }
    }
    Some(pattern)
}

#[cfg(test)]
mod tests {
    use super::super::fault::ValueOrigin;
    use super::*;

    fn of(json: &serde_json::Value) -> (SlotSettings, ConfigFindings) {
        let node = Node::from_json(json, &ValueOrigin { source: "config".to_owned(), line: None });
        let mut findings = ConfigFindings::default();
        (read(&mut Section::root(&node), false, &mut findings), findings)
    }

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn reads_what_patroni_reads() {
        let (settings, findings) = of(&serde_json::json!({
            "slots": {
                "barman": { "type": "physical" }, "plain": null, "none": {}, "zero": 0,
                "lg": { "type": "logical", "database": "d", "plugin": "p", "cluster_type": "primary" },
                "implied": { "database": "d", "plugin": "p" },
                "elsewhere": { "type": "physical", "cluster_type": "standby" },
            },
            "permanent_slots": { "older": 0 },
            "permanent_replication_slots": { "oldest": null },
            "ignore_slots": [{ "name": "s", "type": "logical", "database": "d", "plugin": "p" }, { "type": "physical" }],
        }));
        assert!(findings.faults.is_empty() && findings.warnings.is_empty());
        let logical = SlotKind::Logical { database: "d".to_owned(), plugin: "p".to_owned() };
        let physical =
            ["barman", "none", "older", "oldest", "plain", "zero"].map(|name| (name, SlotKind::Physical));
        let permanent = physical.into_iter().chain(["implied", "lg"].map(|name| (name, logical.clone())));
        assert_eq!(
            settings.permanent,
            permanent.map(|(name, kind)| (name.to_owned(), kind)).collect::<BTreeMap<_, _>>()
        );
        let pattern =
            SlotPattern { name: text("s"), kind: text("logical"), database: text("d"), plugin: text("p") };
        assert_eq!(
            settings.ignored,
            [pattern, SlotPattern { kind: text("physical"), ..SlotPattern::default() }]
        );
    }

    #[test]
    fn an_invalid_slot_is_a_fault_that_names_its_key() {
        for (wrong, key) in [
            (serde_json::json!({ "slots": ["barman"] }), "slots"),
            (serde_json::json!({ "slots": { "Bar-man": null } }), "slots.Bar-man"),
            (serde_json::json!({ "slots": { "a".repeat(64): null } }), &format!("slots.{}", "a".repeat(64))),
            (serde_json::json!({ "slots": { "a": "physical" } }), "slots.a"),
            (serde_json::json!({ "slots": { "a": { "type": "both" } } }), "slots.a"),
            (serde_json::json!({ "slots": { "a": { "type": "logical", "plugin": "p" } } }), "slots.a"),
            (serde_json::json!({ "slots": { "a": { "cluster_type": "x" } } }), "slots.a"),
            (serde_json::json!({ "slots": { "a": { "database": ["d"], "plugin": "p" } } }), "slots.a"),
            (serde_json::json!({ "ignore_slots": { "name": "s" } }), "ignore_slots"),
            (serde_json::json!({ "ignore_slots": ["s"] }), "ignore_slots"),
            (serde_json::json!({ "ignore_slots": [{ "nmae": "s" }] }), "ignore_slots"),
            (serde_json::json!({ "ignore_slots": [{ "name": ["s"] }] }), "ignore_slots"),
            (serde_json::json!({ "ignore_slots": [{ "type": "fysical" }] }), "ignore_slots"),
        ] {
            let (settings, findings) = of(&wrong);
            let keys: Vec<&str> = findings.faults.iter().map(|fault| fault.key.as_str()).collect();
            assert_eq!((settings, keys), (SlotSettings::default(), vec![key]), "{wrong}");
        }
    }

    #[test]
    fn an_unknown_part_of_a_slot_is_a_warning() {
        let (settings, findings) = of(&serde_json::json!({ "slots": { "a": { "tpye": "physical" } } }));
        let said: Vec<String> = findings.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(said, ["config: slots.a.tpye: is not known; did you mean `type`?"]);
        assert_eq!(settings.permanent, [("a".to_owned(), SlotKind::Physical)].into());
    }
}
