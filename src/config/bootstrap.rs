//! The section `bootstrap`: how a new cluster is made.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value as Json};

use super::reader::{ConfigFindings, Section};
use super::tree::Value;
use super::{dynamic, scripts, units};
use crate::model::{BootstrapRecovery, CustomBootstrap, RECOVERY_PARAMETERS, ScriptWords};

/// `bootstrap`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BootstrapConfig {
    /// The first dynamic configuration.
    pub dcs: Map<String, Json>,
    /// The script that makes it; `None`: initdb does.
    pub custom: Option<CustomBootstrap>,
    /// Options of `initdb`, without leading dashes.
    pub initdb: Vec<String>,
    /// The words of a command to run once in the new cluster.
    pub post_bootstrap: Option<Vec<String>>,
    /// A database to create besides those of initdb.
    pub database: Option<String>,
    /// A directory of scripts to run once in the new cluster, in the order of their names.
    pub init_scripts: PathBuf,
    /// Access rules if `postgresql.pg_hba` has none.
    pub pg_hba: Vec<String>,
    /// How long no other member must have registered before the cluster is created.
    pub wait_for_members: Duration,
}

/// The time within which members of a new cluster are started, together or by hand.
const WAIT_FOR_MEMBERS: Duration = Duration::from_secs(10);

/// The official image's directory of scripts.
const INIT_SCRIPTS: &str = "/docker-entrypoint-initdb.d";

/// Keys of a script's section that are no arguments.
const CUSTOM_KEYS: [&str; 3] = ["no_params", "keep_existing_recovery_conf", "recovery_conf"];

/// Reads the section; `None`: there is none.
pub(super) fn read(top: &mut Section<'_>, findings: &mut ConfigFindings) -> Option<BootstrapConfig> {
    let mut bootstrap = top.section("bootstrap", findings);
    if !bootstrap.is_there() {
        return None;
    }
    let dcs = match bootstrap.get("dcs").map(|node| (node, node.to_json())) {
        Some((node, Json::Object(dcs))) => {
            dynamic::check(node, "bootstrap.dcs", findings);
            dcs
        }
        Some((node, _)) => {
            bootstrap.fault("dcs", node, "write a section of keys here", findings);
            Map::new()
        }
        None => Map::new(),
    };
    let custom = custom(&mut bootstrap, findings);
    let initdb = initdb(&mut bootstrap, findings);
    let post_bootstrap = post_bootstrap(&mut bootstrap, findings);
    let pg_hba = bootstrap.list("pg_hba", false, findings).unwrap_or_default();
    if let Some(users) = bootstrap.get("users") {
        bootstrap.warn(
            "users",
            users,
            "users are made by `post_bootstrap`; this key has no effect",
            findings,
        );
    }
    let database = bootstrap.text("database", findings);
    let init_scripts =
        bootstrap.text("init_scripts", findings).map_or(PathBuf::from(INIT_SCRIPTS), PathBuf::from);
    let wait_for_members = bootstrap.span("wait_for_members", WAIT_FOR_MEMBERS, findings);
    bootstrap.finish(findings);
    Some(BootstrapConfig {
        dcs,
        custom,
        initdb,
        post_bootstrap,
        database,
        init_scripts,
        pg_hba,
        wait_for_members,
    })
}

/// The words of `post_bootstrap`, or of `post_init`.
fn post_bootstrap(bootstrap: &mut Section<'_>, findings: &mut ConfigFindings) -> Option<Vec<String>> {
    if bootstrap.get("post_bootstrap").is_none() {
        return scripts::command(bootstrap, "post_init", findings);
    }
    bootstrap.without_effect(&[("post_init", "`post_bootstrap` is given too, and counts")], findings);
    scripts::command(bootstrap, "post_bootstrap", findings)
}

fn initdb(bootstrap: &mut Section<'_>, findings: &mut ConfigFindings) -> Vec<String> {
    let refused = ["pgdata", "nosync", "pwfile", "sync-only", "version"];
    let mut initdb = bootstrap.options("initdb", &refused, findings);
    let decided = |option: &String| option == "data-checksums" || option == "no-data-checksums";
    if !initdb.iter().any(decided) {
        initdb.push("data-checksums".to_owned());
    }
    initdb
}

/// The script that `method` names. A name without a section is a fault: with initdb in its place an empty cluster would
/// be made, where the operator expects data.
fn custom(bootstrap: &mut Section<'_>, findings: &mut ConfigFindings) -> Option<CustomBootstrap> {
    let method = bootstrap.get("method")?;
    let name = bootstrap.text("method", findings).filter(|name| name != "initdb")?;
    if !bootstrap.get(&name).is_some_and(|node| matches!(node.value, Value::Map(_))) {
        let expected =
            format!("write a section `bootstrap.{name}` with `command`, or remove this key to run initdb");
        bootstrap.fault("method", method, &expected, findings);
        return None;
    }
    let mut section = bootstrap.section(&name, findings);
    if section.get("command").is_none() {
        section.missing("command", "write the command that makes the data directory", findings);
    }
    let words = scripts::command(&mut section, "command", findings);
    let is_told = !section.flag("no_params", false, findings);
    let keeps = section.flag("keep_existing_recovery_conf", false, findings);
    let recovery = match section.get("recovery_conf") {
        Some(_) => archive(&mut section, findings),
        None if keeps => BootstrapRecovery::AsMade,
        None => BootstrapRecovery::Crash,
    };
    let arguments = scripts::arguments(&section, &CUSTOM_KEYS, findings);
    let command = ScriptWords { words: words?, is_told, arguments };
    Some(CustomBootstrap { name, command, recovery })
}

/// `recovery_conf`. Recovery ends with a promotion, for which the bootstrap waits.
fn archive(section: &mut Section<'_>, findings: &mut ConfigFindings) -> BootstrapRecovery {
    let mut parameters = section.parameters("recovery_conf", findings);
    let standby = parameters.iter().find(|(name, _)| name == "standby_mode");
    let standby = standby.is_some_and(|(_, on)| units::boolean(on) == Some(true));
    let mut inner = section.section("recovery_conf", findings);
    if let Some(node) = inner.get("recovery_target_action")
        && parameters.iter().any(|(name, action)| name == "recovery_target_action" && action != "promote")
    {
        let expected = "write promote: the new cluster begins when recovery has ended";
        inner.fault("recovery_target_action", node, expected, findings);
    }
    for name in RECOVERY_PARAMETERS.iter().chain(&["standby_mode"]) {
        inner.get(name);
    }
    inner.finish(findings);
    parameters.retain(|(name, _)| RECOVERY_PARAMETERS.contains(&name.as_str()));
    BootstrapRecovery::Archive { parameters, standby }
}
