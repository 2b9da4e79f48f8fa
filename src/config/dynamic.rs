//! The effective settings: the dynamic configuration takes precedence over the local one.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value as Json;

use super::fault::{Faults, ValueOrigin};
use super::local::Config;
use super::reader::{ConfigFindings, Section};
use super::standby_cluster::{self, StandbyRecovery};
use super::tree::Node;
use super::{by_role, guc, slots, synchronous};
use crate::model::{FailoverBy, RECOVERY_PARAMETERS, Settings, SettingsByRole, SyncSettings};

/// The settings in force.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The dynamic configuration from which they come.
    pub text: String,
    /// Settings for decisions.
    pub settings: Settings,
    /// Parameters for `postgresql.conf`.
    pub parameters: BTreeMap<String, String>,
    /// The controlled parameters in order, for the postmaster's command line.
    pub command_line: Vec<(String, String)>,
    /// The lines of `pg_hba.conf`; `None`: the file is not changed.
    pub pg_hba: Option<Vec<String>>,
    /// The lines of a first `pg_hba.conf`.
    pub first_pg_hba: Vec<String>,
    /// The lines of `pg_ident.conf`; `None`: the file is not changed.
    pub pg_ident: Option<Vec<String>>,
    /// What takes the place of parameters, access rules and user maps in one role.
    pub by_role: SettingsByRole,
    /// Recovery settings of a standby cluster, which take precedence over all others.
    pub recovery: BTreeMap<String, String>,
    /// Further recovery settings of the leader of a standby cluster.
    pub leader_recovery: BTreeMap<String, String>,
    /// Warnings for the operator.
    pub warnings: Vec<String>,
}

/// Keys without effect that an operator has to know of, each with the missing effect.
const NOT_BUILT: [(&str, &str); 1] =
    [("primary_race_backoff", "standbys always put the race off while WAL still arrives from a primary")];
/// Keys with the older name that counts if the key is absent.
const RENAMED: [(&str, &str); 2] =
    [("primary_start_timeout", "master_start_timeout"), ("primary_stop_timeout", "master_stop_timeout")];
/// Keys of `postgresql` that are read only in a member's own file.
const OWN_FILE: [(&str, &str); 14] = [
    ("basebackup", OWN_FILE_ONLY),
    ("before_stop", OWN_FILE_ONLY),
    ("bin_dir", OWN_FILE_ONLY),
    ("bin_name", OWN_FILE_ONLY),
    ("callbacks", OWN_FILE_ONLY),
    ("create_replica_method", OWN_FILE_ONLY),
    ("create_replica_methods", OWN_FILE_ONLY),
    ("pre_promote", OWN_FILE_ONLY),
    ("config_base_name", OWN_FILE_ONLY),
    ("custom_conf", OWN_FILE_ONLY),
    ("database", OWN_FILE_ONLY),
    ("krbsrvname", OWN_FILE_ONLY),
    ("rewind", OWN_FILE_ONLY),
    ("use_unix_socket", OWN_FILE_ONLY),
];
const OWN_FILE_ONLY: &str = "write it in each member's own file";
/// Keys of `postgresql` that have no effect anywhere.
const WITHOUT_EFFECT: [(&str, &str); 2] = [
    ("pg_ctl_timeout", "`primary_start_timeout` bounds a start"),
    ("use_unix_socket_repl", "standbys connect to the leader by its `connect_address`"),
];
/// Keys of `postgresql` that only the local file may set.
const LOCAL_ONLY: [&str; 7] =
    ["connect_address", "proxy_address", "listen", "config_dir", "data_dir", "pgpass", "authentication"];

/// Checks a dynamic configuration in `bootstrap.dcs`.
pub(super) fn check(node: &Node, path: &str, findings: &mut ConfigFindings) {
    let mut nested = ConfigFindings::default();
    let (settings, _) = read(node, &mut nested);
    if settings.ttl < Settings::TTL_MIN {
        let mut section = Section::root(node);
        if let Some(ttl) = section.get("ttl") {
            section.fault(
                "ttl",
                ttl,
                "write at least 3: a shorter lease cannot hold a renewal, a stop and a kill",
                &mut nested,
            );
        }
    }
    for (from, to) in [(nested.faults, &mut findings.faults), (nested.warnings, &mut findings.warnings)] {
        to.extend(
            from.into_iter().map(|fault| super::Fault { key: format!("{path}.{}", fault.key), ..fault }),
        );
    }
}

/// The settings that follow from the local configuration and the JSON text of the key `config`, for a server of this
/// major version.
///
/// Patroni's rule between `ttl`, `loop_wait` and `retry_timeout` does not apply. Here a task of its own renews the
/// lease, and neither a slow loop nor a slow etcd request can delay it.
///
/// # Errors
/// All faults of the dynamic configuration; the result of [`super::mended`] has none.
pub fn effective(local: &Config, dynamic_json: Option<&str>, major: u32) -> Result<Effective, Faults> {
    let origin = ValueOrigin { source: "config".to_owned(), line: None };
    let json: Json = match dynamic_json.map(serde_json::from_str) {
        None => Json::Object(serde_json::Map::new()),
        Some(Ok(json @ Json::Object(_))) => json,
        Some(Ok(_) | Err(_)) => {
            let fault =
                super::Fault::general("config", "it is no JSON object", "write one with `edit-config`");
            return Err(Faults(vec![fault]));
        }
    };
    let mut findings = ConfigFindings::default();
    let (mut settings, dynamic) = read(&Node::from_json(&json, &origin), &mut findings);
    if settings.ttl < Settings::TTL_MIN {
        settings.ttl = Settings::TTL_MIN;
        findings.warnings.push(super::Fault::general("config", "ttl is below 3", "3 is used"));
    }
    if !findings.faults.is_empty() {
        return Err(Faults(findings.faults));
    }
    let mine = &local.postgresql;
    let local_wins =
        |mine: Option<bool>, theirs: Option<bool>, default: bool| mine.or(theirs).unwrap_or(default);
    settings.use_pg_rewind = local_wins(mine.use_pg_rewind, dynamic.use_pg_rewind, true);
    settings.remove_data_directory_on_rewind_failure =
        local_wins(mine.remove_data_directory_on_rewind_failure, dynamic.remove_on_failure, false);
    settings.remove_data_directory_on_diverged_timelines =
        local_wins(mine.remove_data_directory_on_diverged_timelines, dynamic.remove_on_diverged, false);
    let mut warnings: Vec<String> = findings.warnings.iter().map(ToString::to_string).collect();
    let guc::Split { mut parameters, command_line } =
        guc::split(local, &dynamic.parameters, major, &mut warnings);
    let recovery =
        if mine.recovery_conf.is_empty() { dynamic.recovery_conf } else { mine.recovery_conf.clone() };
    // What `parameters`, those of a role, or `standby_cluster` say takes precedence.
    for (name, value) in recovery.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)) {
        if RECOVERY_PARAMETERS.contains(&name.as_str()) && !guc::is_ours(&name) {
            parameters.entry(name).or_insert(value);
        }
    }
    let some = |rules: &Vec<String>| !rules.is_empty();
    let pg_hba = mine.pg_hba.clone().filter(some).or(dynamic.pg_hba.filter(some));
    let pg_ident = mine.pg_ident.clone().or(dynamic.pg_ident);
    let by_role = by_role::merged(&mine.by_role, dynamic.by_role);
    warnings.extend(by_role::warning(&by_role, "pg_hba", pg_hba.as_ref(), |own| own.pg_hba.as_ref()));
    warnings.extend(by_role::warning(&by_role, "pg_ident", pg_ident.as_ref(), |own| own.pg_ident.as_ref()));
    Ok(Effective {
        text: dynamic_json.unwrap_or("{}").to_owned(),
        settings,
        first_pg_hba: first_pg_hba(local, &parameters),
        parameters,
        command_line,
        pg_hba,
        pg_ident,
        by_role,
        recovery: dynamic.standby.all.into_iter().collect(),
        leader_recovery: dynamic.standby.leader.into_iter().collect(),
        warnings,
    })
}

/// The JSON text of the key `config`, as a tree; what cannot be read counts as empty.
fn tree(dynamic_json: &str) -> Node {
    let json = serde_json::from_str(dynamic_json).unwrap_or(Json::Null);
    Node::from_json(&json, &ValueOrigin { source: "config".to_owned(), line: None })
}

/// The settings in the JSON text of the key `config`, for programs other than a member. Invalid values count as absent.
pub fn settings(dynamic_json: &str) -> Settings {
    read(&tree(dynamic_json), &mut ConfigFindings::default()).0
}

/// Synchronous replication in the JSON text of the key `config`, for programs other than a member. Invalid values count
/// as absent.
pub fn sync_settings(dynamic_json: &str) -> SyncSettings {
    let node = tree(dynamic_json);
    let (mut top, mut findings) = (Section::root(&node), ConfigFindings::default());
    let (standby_cluster, _) = standby_cluster::read(&mut top, &mut findings);
    synchronous::read(&mut top, standby_cluster.is_some(), &mut findings)
}

/// Whether the JSON text of the key `config` is that of a standby cluster, for programs other than a member.
pub fn is_of_standby_cluster(dynamic_json: &str) -> bool {
    let node = tree(dynamic_json);
    standby_cluster::read(&mut Section::root(&node), &mut ConfigFindings::default()).0.is_some()
}

/// Whether the JSON text of the key `config` pauses the cluster, for programs other than a member.
pub fn pauses(dynamic_json: &str) -> bool {
    Section::root(&tree(dynamic_json)).flag("pause", false, &mut ConfigFindings::default())
}

/// The access rules of a new cluster without a configured `pg_hba`: those of the bootstrap, or default rules under
/// which every role needs its password, in the form in which it is stored.
fn first_pg_hba(local: &Config, parameters: &BTreeMap<String, String>) -> Vec<String> {
    let of_bootstrap = local.bootstrap.as_ref().map(|bootstrap| &bootstrap.pg_hba);
    if let Some(rules) = of_bootstrap.filter(|rules| !rules.is_empty()) {
        return rules.clone();
    }
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let mine = &local.postgresql;
    let stored = parameters.get("password_encryption").map(String::as_str);
    let method = if stored == Some("md5") { "md5" } else { "scram-sha-256" };
    let superuser = quoted(&mine.superuser.username);
    let peer = mine.superuser.password.is_none().then(|| format!("local all {superuser} peer"));
    let others = [
        format!("local all all {method}"),
        format!("host replication {} all {method}", quoted(&mine.replication.username)),
        format!("host all all all {method}"),
    ];
    peer.into_iter().chain(others).collect()
}

/// The part of the dynamic configuration that concerns PostgreSQL.
#[derive(Default)]
pub(super) struct PostgresqlDynamic {
    parameters: Vec<(String, String)>,
    recovery_conf: Vec<(String, String)>,
    pg_hba: Option<Vec<String>>,
    pg_ident: Option<Vec<String>>,
    by_role: SettingsByRole,
    use_pg_rewind: Option<bool>,
    remove_on_failure: Option<bool>,
    remove_on_diverged: Option<bool>,
    standby: StandbyRecovery,
}

pub(super) fn read(node: &Node, findings: &mut ConfigFindings) -> (Settings, PostgresqlDynamic) {
    let mut top = Section::root(node);
    let default = Settings::default();
    let [start, stop] = RENAMED.map(|(name, older)| match top.get(name) {
        Some(_) => {
            top.without_effect(&[(older, "it is the former name of a key that is given too")], findings);
            name
        }
        None => older,
    });
    let stop = top.span(stop, default.primary_stop_timeout, findings);
    let (standby_cluster, standby) = standby_cluster::read(&mut top, findings);
    let mut settings = Settings {
        ttl: top.span("ttl", default.ttl, findings),
        loop_wait: top.span("loop_wait", default.loop_wait, findings).max(Duration::from_secs(1)),
        retry_timeout: top.span("retry_timeout", default.retry_timeout, findings).max(Duration::from_secs(1)),
        maximum_lag_on_failover: top.bytes(
            "maximum_lag_on_failover",
            default.maximum_lag_on_failover,
            findings,
        ),
        check_timeline: top.flag("check_timeline", default.check_timeline, findings),
        primary_start_timeout: top.span(start, default.primary_start_timeout, findings),
        primary_stop_timeout: if stop.is_zero() { default.primary_stop_timeout } else { stop },
        pause: top.flag("pause", default.pause, findings),
        failsafe_mode: top.flag("failsafe_mode", default.failsafe_mode, findings),
        failover: failover(&mut top, findings),
        suspect_after: top
            .span("suspect_after", default.suspect_after, findings)
            .clamp(Settings::SUSPECT_AFTER_MIN, Settings::SUSPECT_AFTER_MAX),
        member_slots_ttl: top.span("member_slots_ttl", default.member_slots_ttl, findings),
        slots: slots::read(&mut top, standby_cluster.is_some(), findings),
        max_timelines_history: top.bytes("max_timelines_history", 0, findings) as usize,
        sync: synchronous::read(&mut top, standby_cluster.is_some(), findings),
        standby_cluster,
        ..default
    };
    for (key, what) in NOT_BUILT {
        let off = |node: &Node| {
            super::reader::plain(node).and_then(|text| super::units::boolean(&text)) == Some(false)
        };
        if top.get(key).is_some_and(|node| !off(node)) {
            top.without_effect(&[(key, what)], findings);
        }
    }
    let dynamic = PostgresqlDynamic { standby, ..postgresql(&mut top, &mut settings, findings) };
    top.finish(findings);
    (settings, dynamic)
}

fn failover(top: &mut Section<'_>, findings: &mut ConfigFindings) -> FailoverBy {
    let key = "failover";
    let Some(node) = top.get(key) else { return FailoverBy::default() };
    match super::reader::plain(node).as_deref() {
        Some("lease") => FailoverBy::Lease,
        Some("recruit") => FailoverBy::Recruit,
        Some(_) | None => {
            top.fault(key, node, "write lease or recruit", findings);
            FailoverBy::default()
        }
    }
}

fn postgresql(
    top: &mut Section<'_>,
    settings: &mut Settings,
    findings: &mut ConfigFindings,
) -> PostgresqlDynamic {
    let mut section = top.section("postgresql", findings);
    settings.use_slots = section.flag("use_slots", settings.use_slots, findings);
    let optional = |section: &mut Section<'_>, key, findings: &mut ConfigFindings| {
        section.get(key).is_some().then(|| section.flag(key, false, findings))
    };
    let dynamic = PostgresqlDynamic {
        standby: StandbyRecovery::default(),
        parameters: guc::parameters(&mut section, findings),
        recovery_conf: section.parameters("recovery_conf", findings),
        pg_hba: section.list("pg_hba", false, findings),
        pg_ident: section.list("pg_ident", false, findings),
        by_role: by_role::read(&mut section, findings),
        use_pg_rewind: optional(&mut section, "use_pg_rewind", findings),
        remove_on_failure: optional(&mut section, "remove_data_directory_on_rewind_failure", findings),
        remove_on_diverged: optional(&mut section, "remove_data_directory_on_diverged_timelines", findings),
    };
    for key in LOCAL_ONLY {
        if let Some(node) = section.get(key) {
            section.warn(key, node, "only a member's own file may set this: it has no effect here", findings);
        }
    }
    for keys in [&OWN_FILE[..], &WITHOUT_EFFECT] {
        section.without_effect(keys, findings);
    }
    section.finish(findings);
    dynamic
}
