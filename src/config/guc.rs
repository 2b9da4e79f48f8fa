//! Parameters of PostgreSQL: the controlled ones, which only the dynamic configuration sets, and the others.

use std::collections::BTreeMap;

use super::fault::{Fault, ValueOrigin};
use super::given::Given;
use super::local::Config;
use super::reader::{ConfigFindings, Section};
use super::units;

/// The valid values of a controlled parameter.
#[derive(Clone, Copy)]
enum Accepts {
    /// A number in this range.
    Within(i64, i64),
    /// A boolean.
    Boolean,
    /// One of these.
    OneOf(&'static [&'static str]),
}

/// Name, default and valid values, in the order of the postmaster's command line. Members must agree on them, and a
/// standby must not have lower values than its primary.
const CONTROLLED: [(&str, &str, Accepts); 10] = [
    ("wal_level", "replica", Accepts::OneOf(&["replica", "hot_standby", "logical"])),
    ("hot_standby", "on", Accepts::OneOf(&["on", "true", "yes", "1"])),
    ("max_connections", "100", Accepts::Within(25, BACKENDS_MAX)),
    ("max_wal_senders", "10", Accepts::Within(3, BACKENDS_MAX)),
    ("max_prepared_transactions", "0", Accepts::Within(0, BACKENDS_MAX)),
    ("max_locks_per_transaction", "64", Accepts::Within(32, i32::MAX as i64)),
    ("track_commit_timestamp", "off", Accepts::Boolean),
    ("max_replication_slots", "10", Accepts::Within(4, BACKENDS_MAX)),
    ("max_worker_processes", "8", Accepts::Within(2, BACKENDS_MAX)),
    ("wal_log_hints", "on", Accepts::Boolean),
];
/// PostgreSQL's `MAX_BACKENDS`.
const BACKENDS_MAX: i64 = 0x3_FFFF;
/// Parameters that only the supervisor sets.
const OURS: [&str; 10] = [
    "config_file",
    "data_directory",
    "listen_addresses",
    "port",
    "cluster_name",
    "restart_after_crash",
    "primary_conninfo",
    "primary_slot_name",
    "recovery_target_timeline",
    "promote_trigger_file",
];
/// Who sets a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetBy {
    /// The supervisor alone.
    Supervisor,
    /// The dynamic configuration alone.
    Cluster,
    /// The operator, anywhere.
    Operator,
}

/// Who sets the parameter `name`.
pub fn set_by(name: &str) -> SetBy {
    match is_controlled(name) {
        _ if is_ours(name) => SetBy::Supervisor,
        true => SetBy::Cluster,
        false => SetBy::Operator,
    }
}

/// The size of a WAL segment, for configurations that count in segments.
const SEGMENT_MB: i64 = 16;

/// The parameters, split by destination.
pub(super) struct Split {
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) command_line: Vec<(String, String)>,
}

/// Dynamic parameters, overridden by local ones; controlled parameters come from the dynamic configuration only.
pub(super) fn split(
    local: &Config,
    dynamic: &[(String, String)],
    major: u32,
    warnings: &mut Vec<String>,
) -> Split {
    let lower = |(name, value): &(String, String)| (name.to_ascii_lowercase(), value.clone());
    let mut parameters: BTreeMap<String, String> = dynamic.iter().map(lower).collect();
    let mut command_line = vec![
        ("listen_addresses".to_owned(), local.postgresql.listen.host.clone()),
        ("port".to_owned(), local.postgresql.listen.port.to_string()),
        ("cluster_name".to_owned(), local.scope.clone()),
    ];
    for (name, default, accepts) in CONTROLLED {
        let value = match parameters.remove(name) {
            Some(value) if accepted(&value, accepts) => value,
            Some(value) => {
                warnings.push(format!(
                    "config: postgresql.parameters.{name}: `{value}` cannot be used; {default} is"
                ));
                default.to_owned()
            }
            None => default.to_owned(),
        };
        let value = if value == "hot_standby" { "replica".to_owned() } else { value };
        command_line.push((name.to_owned(), value));
    }
    command_line.push(("restart_after_crash".to_owned(), "off".to_owned()));
    keep_wal(&mut parameters, major, warnings);
    for (name, value) in local.postgresql.parameters.iter().map(lower) {
        let (name, value) = (&name, &value);
        if is_controlled(name) {
            let set = command_line.iter().find(|(known, _)| known == name);
            if set.is_some_and(|(_, effective)| effective != value) {
                warnings.push(format!(
                    "postgresql.parameters.{name}: only the dynamic configuration sets this parameter; use edit-config"
                ));
            }
        } else {
            parameters.insert(name.clone(), value.clone());
        }
    }
    for name in OURS {
        parameters.remove(name);
    }
    Split { parameters, command_line }
}

/// Reads `parameters` of a section `postgresql`, with a warning about those that the operator cannot set.
pub(super) fn parameters(section: &mut Section<'_>, findings: &mut ConfigFindings) -> Vec<(String, String)> {
    let key = "parameters";
    let parameters = section.parameters(key, findings);
    let node = section.get(key);
    for (name, value) in &parameters {
        if let (true, Some(node)) = (OURS.contains(&name.to_ascii_lowercase().as_str()), node) {
            findings.warnings.push(Fault {
                origin: node.get(name).map_or_else(ValueOrigin::default, |node| node.origin.clone()),
                key: format!("postgresql.{key}.{name}"),
                found: format!("found `{value}`"),
                expected: "Matriarch sets this parameter itself: this one has no effect".to_owned(),
            });
        }
    }
    parameters
}

/// Reads the parameters of one role, under `key`, without those that are the same in every role.
pub(super) fn role_parameters(
    section: &mut Section<'_>,
    key: &'static str,
    findings: &mut ConfigFindings,
) -> BTreeMap<String, String> {
    let refused = |name: &str| match set_by(name) {
        SetBy::Supervisor if name.eq_ignore_ascii_case("wal_keep_segments") => Some("write `wal_keep_size`"),
        SetBy::Supervisor => Some("Matriarch sets this parameter itself: this one has no effect"),
        SetBy::Cluster => Some(
            "it has no effect here: all members must agree on it. Write it under `postgresql.parameters` of the \
             dynamic configuration",
        ),
        SetBy::Operator => None,
    };
    let mut parameters = section.parameters(key, findings);
    let node = section.get(key);
    parameters.retain(|(name, value)| {
        let expected = refused(name);
        findings.warnings.extend(expected.map(|expected| {
            Fault {
                origin: node
                    .and_then(|node| node.get(name))
                    .map_or_else(ValueOrigin::default, |node| node.origin.clone()),
                key: format!("postgresql.{key}.{name}"),
                found: format!("found `{value}`"),
                expected: expected.to_owned(),
            }
        }));
        expected.is_none()
    });
    parameters.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect()
}

/// Faults of controlled parameters at the place where they are set; elsewhere the default replaces them.
pub(super) fn faults(parameters: &[Given]) -> Vec<Fault> {
    let fault = |given: &Given| {
        let (_, _, accepts) = CONTROLLED.iter().find(|(name, ..)| given.name.eq_ignore_ascii_case(name))?;
        let allowed = match accepts {
            Accepts::Within(least, most) => format!("write a number from {least} to {most}"),
            Accepts::Boolean => "write on or off".to_owned(),
            Accepts::OneOf(values) => format!("write one of {}", values.join(", ")),
        };
        (!accepted(&given.value, *accepts)).then(|| given.fault(&allowed))
    };
    parameters.iter().filter_map(fault).collect()
}

/// Whether no configuration can set it, or it is written as another parameter.
pub(super) fn is_ours(name: &str) -> bool {
    OURS.iter().chain(&["wal_keep_segments"]).any(|known| known.eq_ignore_ascii_case(name))
}

/// Whether only the dynamic configuration can set it.
pub(super) fn is_controlled(name: &str) -> bool {
    CONTROLLED.iter().any(|(known, _, _)| known.eq_ignore_ascii_case(name))
}

fn accepted(value: &str, accepts: Accepts) -> bool {
    match accepts {
        Accepts::Within(least, most) => {
            units::integer(value).is_some_and(|number| (least..=most).contains(&number))
        }
        Accepts::Boolean => units::boolean(value).is_some(),
        Accepts::OneOf(values) => values.contains(&value.to_ascii_lowercase().as_str()),
    }
}

/// Converts `wal_keep_segments` of older files to `wal_keep_size`; 128 MB unless configured, at least 16 MB.
fn keep_wal(parameters: &mut BTreeMap<String, String>, major: u32, warnings: &mut Vec<String>) {
    if major < 13 {
        return;
    }
    if let Some(segments) = parameters.remove("wal_keep_segments").and_then(|text| units::integer(&text)) {
        parameters
            .entry("wal_keep_size".to_owned())
            .or_insert_with(|| format!("{}MB", segments * SEGMENT_MB));
    }
    // A number without a unit counts megabytes.
    let megabytes = |text: &String| units::integer(text).or(units::bytes(text).map(|bytes| bytes >> 20));
    match parameters.get("wal_keep_size").map(megabytes) {
        Some(Some(size)) if SEGMENT_MB <= size => {}
        Some(_) => {
            warnings.push(
                "config: postgresql.parameters.wal_keep_size: less than 16MB; 128MB is used".to_owned(),
            );
            parameters.insert("wal_keep_size".to_owned(), "128MB".to_owned());
        }
        None => drop(parameters.insert("wal_keep_size".to_owned(), "128MB".to_owned())),
    }
}
