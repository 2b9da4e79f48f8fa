//! The section `standby_cluster`: the whole cluster follows a primary outside of it.
//!
//! A bad value in it is a warning, and never takes the section out of force: its members would promote one of them.

use super::fault::Fault;
use super::reader::{ConfigFindings, Section, UNKNOWN, is_empty, list_items, plain};
use super::tree::{Node, Value};
use crate::model::StandbyCluster;

const SECTION: &str = "standby_cluster";
/// The section is in force while one of these has a value.
const IN_FORCE: [&str; 3] = ["host", "port", "restore_command"];
/// The port of a remote primary without one.
const PORT: u16 = 5432;
/// The longest name of a slot that PostgreSQL accepts.
const SLOT_LETTERS: usize = 63;
/// Parameters of a recovery that hold on every member.
const ON_ALL: [&str; 2] = ["restore_command", "archive_cleanup_command"];
const DELAY: &str = "recovery_min_apply_delay";

/// What the section says about PostgreSQL's recovery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StandbyRecovery {
    /// Parameters for every member.
    pub all: Vec<(String, String)>,
    /// Parameters for the leader only.
    pub leader: Vec<(String, String)>,
}

/// Reads it; `None`: it is not in force.
pub(super) fn read(
    top: &mut Section<'_>,
    findings: &mut ConfigFindings,
) -> (Option<StandbyCluster>, StandbyRecovery) {
    let none = (None, StandbyRecovery::default());
    let Some(node) = top.get(SECTION).filter(|node| !is_empty(node)) else { return none };
    if !matches!(node.value, Value::Map(_)) {
        let expected = "write a section with host and port of the remote primary; without one this is a cluster of \
                        its own";
        top.warn(SECTION, node, expected, findings);
        return none;
    }
    let mut section = top.section(SECTION, findings);
    let given = IN_FORCE.iter().filter(|key| section.get(key).is_some_and(|node| !is_empty(node)));
    let in_force = given.count() > 0;
    let hosts = hosts(&mut section, findings);
    let slot = slot(&mut section, findings);
    let methods = methods(&mut section, findings);
    let mut texts = |keys: &[&'static str]| -> Vec<(String, String)> {
        let text = |key: &&'static str| {
            let text = text(&mut section, key, "write a text", findings)?;
            Some(((*key).to_owned(), text))
        };
        keys.iter().filter_map(text).collect()
    };
    let recovery = StandbyRecovery { all: texts(&ON_ALL), leader: texts(&[DELAY]) };
    section.finish(findings);
    if !in_force {
        let expected = "write host and port of the remote primary, or restore_command; without one of them this is a \
                        cluster of its own";
        top.warn(SECTION, node, expected, findings);
        return none;
    }
    let following = hosts.and_then(|hosts| StandbyCluster::following(&hosts, slot));
    (Some(StandbyCluster { methods, ..following.unwrap_or_default() }), recovery)
}

/// Whether this warning is about a bad value of the section, and not about an unknown key.
pub(super) fn is_bad_value(warning: &Fault) -> bool {
    let of_section = warning.key.strip_prefix(SECTION).is_some_and(|key| key.starts_with('.'));
    of_section && warning.found != UNKNOWN
}

/// A scalar that is not empty.
fn text(
    section: &mut Section<'_>,
    key: &'static str,
    expected: &str,
    findings: &mut ConfigFindings,
) -> Option<String> {
    let node = section.get(key).filter(|node| !is_empty(node))?;
    let text = plain(node);
    if text.is_none() {
        section.warn(key, node, expected, findings);
    }
    text
}

/// The hosts with their ports: as many ports as hosts, or one for all. `None`: there is no remote primary.
fn hosts(section: &mut Section<'_>, findings: &mut ConfigFindings) -> Option<Vec<(String, u16)>> {
    let host = text(section, "host", "write the host of the remote primary, or several as in a,b", findings);
    let ports = ports(section, findings);
    let Some(host) = host else {
        if let Some(node) = section.get("port").filter(|node| !is_empty(node)) {
            let expected = "write host, too: without one nothing is streamed";
            section.warn("port", node, expected, findings);
        }
        return None;
    };
    let hosts = list_items(&host);
    let ports = ports?;
    match (hosts.len(), ports.len()) {
        (_, 1) => Some(hosts.into_iter().map(|host| (host, ports[0])).collect()),
        (hosts_count, ports_count) if hosts_count == ports_count => {
            Some(hosts.into_iter().zip(ports).collect())
        }
        (_, _) => {
            let node = section.get("port")?;
            section.warn("port", node, "write one port, or as many as there are hosts", findings);
            None
        }
    }
}

/// `None`: they are no ports.
fn ports(section: &mut Section<'_>, findings: &mut ConfigFindings) -> Option<Vec<u16>> {
    let Some(node) = section.get("port").filter(|node| !is_empty(node)) else { return Some(vec![PORT]) };
    let port = |text: &String| text.parse::<u16>().ok().filter(|port| *port != 0);
    let ports: Option<Vec<u16>> = plain(node).and_then(|text| list_items(&text).iter().map(port).collect());
    let ports = ports.filter(|ports| !ports.is_empty());
    if ports.is_none() {
        section.warn("port", node, "write a port from 1 to 65535, or one for each host", findings);
    }
    ports
}

fn slot(section: &mut Section<'_>, findings: &mut ConfigFindings) -> Option<String> {
    let key = "primary_slot_name";
    let expected =
        "write the name of a slot on the remote primary: 1 to 63 lower-case letters, digits and underscores";
    let name = text(section, key, expected, findings)?;
    let is_letter = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    if name.len() <= SLOT_LETTERS && name.chars().all(is_letter) {
        return Some(name);
    }
    if let Some(node) = section.get(key) {
        section.warn(key, node, expected, findings);
    }
    None
}

fn methods(section: &mut Section<'_>, findings: &mut ConfigFindings) -> Vec<String> {
    let (key, older) = ("create_replica_methods", "create_replica_method");
    let key = if section.get(key).is_some() { key } else { older };
    section.accept(&[older]);
    let Some(node) = section.get(key).filter(|node| !is_empty(node)) else { return Vec::new() };
    let names = match &node.value {
        Value::List(items) => items.iter().map(plain).collect::<Option<Vec<String>>>(),
        _one => plain(node).map(|text| list_items(&text)),
    };
    names.unwrap_or_else(|| {
        refuse_methods(section, key, node, findings);
        Vec::new()
    })
}

fn refuse_methods(section: &Section<'_>, key: &str, node: &Node, findings: &mut ConfigFindings) {
    let expected =
        "write a list of methods, each basebackup or a section of `postgresql` in the members' own files";
    section.warn(key, node, expected, findings);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree;

    fn read_text(text: &str) -> (Option<StandbyCluster>, StandbyRecovery, Vec<String>) {
        let node = tree::parse(text, "test", &mut Vec::new()).expect("YAML");
        let (mut top, mut findings) = (Section::root(&node), ConfigFindings::default());
        let (cluster, recovery) = read(&mut top, &mut findings);
        assert_eq!(findings.faults, []);
        (cluster, recovery, findings.warnings.iter().map(ToString::to_string).collect())
    }

    fn url(cluster: &StandbyCluster) -> &str {
        cluster.remote.as_ref().map_or("none", |remote| remote.conn_url.as_str())
    }

    #[test]
    fn a_section_is_in_force_with_a_host_a_port_or_an_archive() {
        for text in ["ttl: 5", "standby_cluster: {}", "standby_cluster:", "standby_cluster: ''"] {
            assert_eq!(read_text(text), (None, StandbyRecovery::default(), vec![]), "{text}");
        }
        for (text, expected) in [
            ("standby_cluster: {host: a}", "postgres://a:5432/"),
            ("standby_cluster: {host: a, port: 6000, primary_slot_name: s}", "postgres://a:6000/"),
            ("standby_cluster: {host: 'a,b', port: '1,2'}", "postgres://a:1,b:2/"),
            ("standby_cluster: {host: 'a, b', port: 7}", "postgres://a:7,b:7/"),
            ("standby_cluster: {restore_command: cp}", "none"),
        ] {
            let (cluster, _, warnings) = read_text(text);
            assert_eq!(cluster.as_ref().map(url), Some(expected), "{text}");
            assert_eq!(warnings, [""; 0], "{text}");
        }
    }

    #[test]
    fn the_delay_is_for_the_leader() {
        let text = "standby_cluster: {host: a, restore_command: x, archive_cleanup_command: y,
            recovery_min_apply_delay: 5min, create_replica_methods: [wal_g, basebackup]}";
        let (cluster, recovery, _) = read_text(text);
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        assert_eq!(recovery.all, pairs(&[("restore_command", "x"), ("archive_cleanup_command", "y")]));
        assert_eq!(recovery.leader, pairs(&[("recovery_min_apply_delay", "5min")]));
        assert_eq!(cluster.expect("in force").methods, ["wal_g", "basebackup"]);
    }

    /// With a bad value for none the section would not be in force, and a member would be promoted.
    #[test]
    fn a_bad_value_is_named_and_leaves_the_section_in_force() {
        for (text, part) in [
            ("{host: [a]}", "standby_cluster.host: found a list; write the host"),
            ("{host: a, port: much}", "standby_cluster.port: found `much`; write a port from 1"),
            ("{host: a, port: 70000}", "standby_cluster.port: found 70000; write a port"),
            (
                "{host: 'a,b', port: '1,2,3'}",
                "standby_cluster.port: found `1,2,3`; write one port, or as many",
            ),
            ("{port: 5432}", "standby_cluster.port: found 5432; write host, too"),
            ("{host: a, primary_slot_name: A-b}", "primary_slot_name: found `A-b`; write the name of a slot"),
            ("{host: a, create_replica_methods: [{x: 1}]}", "create_replica_methods: found a list; write"),
            ("{host: a, hots: b}", "standby_cluster.hots: is not known; did you mean `host`?"),
        ] {
            let (cluster, _, warnings) = read_text(&format!("standby_cluster: {text}"));
            assert!(cluster.is_some(), "{text}");
            assert!(warnings.iter().any(|warning| warning.contains(part)), "{part} in {warnings:?}");
        }
        for text in ["standby_cluster: perhaps", "standby_cluster: {primary_slot_name: a}"] {
            let (cluster, _, warnings) = read_text(text);
            assert_eq!((cluster, warnings.len()), (None, 1), "{text}: {warnings:?}");
        }
    }
}
