//! Patroni's environment variables, and Matriarch's own. They override the file.

use super::fault::{Fault, ValueOrigin};
use super::reader::{ConfigFindings, list_items};
use super::tree::{self, Node, Value};
use super::variables::Variables;

/// Prefixes of variables, with their sections.
const GROUPS: [(&str, &[&str]); 11] = [
    ("LOG_", &["log"]),
    ("RESTAPI_", &["restapi"]),
    ("CTL_", &["ctl"]),
    ("BOOTSTRAP_", &["bootstrap"]),
    ("POSTGRESQL_", &["postgresql"]),
    ("REPLICATION_", &["postgresql", "authentication", "replication"]),
    ("SUPERUSER_", &["postgresql", "authentication", "superuser"]),
    ("REWIND_", &["postgresql", "authentication", "rewind"]),
    ("ETCD3_", &["etcd3"]),
    ("ETCD_", &["etcd"]),
    ("KUBERNETES_", &["kubernetes"]),
];

/// Old names of variables, with their present ones.
const RENAMED: [(&str, &str); 3] =
    [("LOGLEVEL", "LOG_LEVEL"), ("LOGFORMAT", "LOG_FORMAT"), ("LOG_DATEFMT", "LOG_DATEFORMAT")];

/// Variables outside all sections.
const TOP: [&str; 3] = ["NAME", "SCOPE", "NAMESPACE"];
/// Variables with YAML: lists and maps.
const STRUCTURED: [&str; 10] = [
    "HOSTS",
    "ALLOWLIST",
    "HTTP_EXTRA_HEADERS",
    "HTTPS_EXTRA_HEADERS",
    "STATIC_FIELDS",
    "LOGGERS",
    "LABELS",
    "BOOTSTRAP_LABELS",
    "PORTS",
    "RETRIABLE_HTTP_CODES",
];

/// Variables with a whole section of YAML, as in the file.
const SECTIONS: [&str; 2] = ["DCS", "PARAMETERS"];
/// Variables with a list, one entry for each line.
const LINES: [&str; 2] = ["PG_HBA", "PG_IDENT"];

/// Sections with user and password under `authentication` in the file.
const AUTHENTICATED: [&str; 2] = ["RESTAPI_", "CTL_"];

/// The present name of a variable, without its prefix; `None`: it has no effect.
pub(super) fn known(name: &str) -> Option<&str> {
    let name = RENAMED.iter().find(|(old, _)| *old == name).map_or(name, |(_, present)| present);
    let of_group = |(prefix, _): &(&str, _)| name.len() > prefix.len() && name.starts_with(prefix);
    (name == "CONFIGURATION" || TOP.contains(&name) || GROUPS.iter().any(of_group)).then_some(name)
}

/// Lays the variables over `node`.
pub(super) fn overlay(node: &mut Node, variables: &Variables, findings: &mut ConfigFindings) {
    for (name, variable) in variables {
        let Some(rest) = name.strip_prefix("PATRONI_") else { continue };
        let (text, origin) = (&variable.text, &variable.origin);
        if TOP.contains(&rest) {
            node.put(&[rest.to_ascii_lowercase().as_str()], Node::text(text, origin));
            continue;
        }
        let Some((prefix, section)) = GROUPS.iter().find(|(prefix, _)| rest.starts_with(prefix)) else {
            continue;
        };
        let key = &rest[prefix.len()..];
        let is_list_of_fields = *prefix == "LOG_" && key == "FORMAT" && !text.contains("%(");
        let value = if STRUCTURED.contains(&key) || is_list_of_fields {
            structured(text, origin, findings)
        } else if SECTIONS.contains(&key) {
            whole_section(text, origin, findings)
        } else if LINES.contains(&key) {
            lines(text, origin)
        } else {
            Node::text(text, origin)
        };
        let lower = key.to_ascii_lowercase();
        let mut path = section.to_vec();
        match key.strip_prefix("BIN_") {
            Some(program) if *prefix == "POSTGRESQL_" && key != "BIN_DIR" => {
                let program = program.to_ascii_lowercase();
                path.push("bin_name");
                path.push(&program);
                node.put(&path, value);
            }
            Some(_) | None => {
                if AUTHENTICATED.contains(prefix) && matches!(key, "USERNAME" | "PASSWORD") {
                    path.push("authentication");
                }
                path.push(&lower);
                node.put(&path, value);
            }
        }
    }
}

/// A YAML map.
fn whole_section(text: &str, origin: &ValueOrigin, findings: &mut ConfigFindings) -> Node {
    tree::parse(text, &origin.source, &mut findings.warnings).unwrap_or_else(|fault| {
        findings.faults.push(fault);
        Node::default()
    })
}

/// A list, one entry for each line.
fn lines(text: &str, origin: &ValueOrigin) -> Node {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let items = lines.map(|line| Node::text(line, origin)).collect();
    Node { value: Value::List(items), origin: origin.clone() }
}

/// A YAML list or map; a comma-separated list or a map without braces is accepted, too.
fn structured(text: &str, origin: &ValueOrigin, findings: &mut ConfigFindings) -> Node {
    let trimmed = text.trim();
    let is_yaml = trimmed.starts_with(['[', '{', '-']);
    if !is_yaml && !trimmed.contains(": ") {
        let items = list_items(trimmed).iter().map(|item| Node::text(item, origin)).collect();
        return Node { value: Value::List(items), origin: origin.clone() };
    }
    let yaml = if is_yaml { trimmed.to_owned() } else { format!("{{{trimmed}}}") };
    // On lines of its own, because a block list cannot follow its key on one line.
    let yaml = format!("value:\n {}", yaml.replace('\n', "\n "));
    match tree::parse(&yaml, &origin.source, &mut findings.warnings) {
        Ok(node) => {
            node.get("value").map(|value| Node::from_json(&value.to_json(), origin)).unwrap_or_default()
        }
        Err(fault) => {
            findings.faults.push(Fault {
                origin: origin.clone(),
                expected: "write a YAML list or map".to_owned(),
                ..fault
            });
            Node::default()
        }
    }
}
