//! The section `postgresql`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::local::{self, Address, address, addresses};
use super::reader::{ConfigFindings, Section};
use super::{by_role, guc, scripts};
use crate::model::{CallbackEvent, ReplicaMethod, SettingsByRole, local_host};

/// The supported major versions.
pub const POSTGRES_MAJORS: std::ops::RangeInclusive<u32> = 13..=18;

/// The local PostgreSQL.
#[derive(Clone, Debug)]
pub struct Postgresql {
    /// `listen_addresses` and `port`.
    pub listen: Address,
    /// The address for other members and clients.
    pub connect_address: Address,
    /// A connection pooler in front of it.
    pub proxy_address: Option<Address>,
    /// The database to connect to.
    pub database: String,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The directory of `postgresql.conf`.
    pub config_dir: PathBuf,
    /// `<base>.conf`, `<base>.base.conf`.
    pub config_base_name: String,
    /// Included instead of `<base>.base.conf`.
    pub custom_conf: Option<PathBuf>,
    /// The directory of the programs; `PATH` when `None`.
    pub bin_dir: Option<PathBuf>,
    /// File names of programs.
    pub bin_name: BTreeMap<String, String>,
    /// The password file that the supervisor writes.
    pub pgpass: PathBuf,
    /// The superuser.
    pub superuser: Login,
    /// The user that streams.
    pub replication: Login,
    /// The user that rewinds; the superuser when `None`.
    pub rewind: Option<Login>,
    /// Parameters, before the dynamic configuration is added.
    pub parameters: Vec<(String, String)>,
    /// The whole `pg_hba.conf`.
    pub pg_hba: Option<Vec<String>>,
    /// The whole `pg_ident.conf`.
    pub pg_ident: Option<Vec<String>>,
    /// What holds in one role only.
    pub by_role: SettingsByRole,
    /// Further recovery settings.
    pub recovery_conf: Vec<(String, String)>,
    /// Connect through a Unix socket; the directory is in `parameters`, or libpq's default.
    pub use_unix_socket: bool,
    /// Repair a diverged member by pg_rewind; the dynamic configuration decides when `None`.
    pub use_pg_rewind: Option<bool>,
    /// Clone anew when pg_rewind fails.
    pub remove_data_directory_on_rewind_failure: Option<bool>,
    /// Clone anew when the timelines diverged and pg_rewind cannot be used.
    pub remove_data_directory_on_diverged_timelines: Option<bool>,
    /// Options of pg_basebackup.
    pub basebackup: Vec<String>,
    /// The ways to make a replica, in order; at least one.
    pub replica_methods: Vec<ReplicaMethod>,
    /// Scripts that make a replica and are not among the ways: a standby cluster can name them.
    pub other_methods: Vec<ReplicaMethod>,
    /// Options of pg_rewind.
    pub rewind_options: Vec<String>,
    /// Kerberos service name.
    pub krbsrvname: Option<String>,
    /// The scripts to call, as the words of a command line.
    pub callbacks: BTreeMap<CallbackEvent, Vec<String>>,
    /// The words of the script to run before a promotion.
    pub pre_promote: Option<Vec<String>>,
    /// The words of the script to run before a planned stop.
    pub before_stop: Option<Vec<String>>,
}

impl Postgresql {
    /// The way to make a replica that has this name: pg_basebackup, a script with a section, or a program of that name.
    pub fn method(&self, name: &str) -> Option<ReplicaMethod> {
        if name == BASEBACKUP {
            return Some(ReplicaMethod::Basebackup);
        }
        let known = self.replica_methods.iter().chain(&self.other_methods);
        known.into_iter().find(|method| method.name() == name).cloned().or_else(|| scripts::program(name))
    }
}

/// A user of PostgreSQL. `Debug` hides the password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub username: String,
    /// The password; `None` for certificates, peer or trust.
    pub password: Option<String>,
    /// Connection options of libpq.
    pub options: BTreeMap<String, String>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}

/// The libpq options that may accompany a login.
const LOGIN_OPTIONS: [&str; 10] = [
    "sslmode",
    "sslkey",
    "sslpassword",
    "sslcert",
    "sslrootcert",
    "sslcrl",
    "sslcrldir",
    "sslnegotiation",
    "gssencmode",
    "channel_binding",
];
/// Options with which the supervisor's own connections to other members differ from those of PostgreSQL's programs, the
/// values without a difference, and what holds for the former.
const NOT_BY_OWN: [(&str, &[&str], &str); 4] = [
    ("sslcrl", &[], "the supervisor's own connections do not look at revoked certificates"),
    ("sslcrldir", &[], "the supervisor's own connections do not look at revoked certificates"),
    ("gssencmode", &["disable", "prefer"], NO_GSS),
    ("channel_binding", &["disable", "prefer"], "the supervisor's own connections do not insist on it"),
];
const NO_GSS: &str = "the supervisor's own connections cannot use GSSAPI: the users `superuser` and `rewind` need a \
                      password or a certificate";
/// Programs that `bin_name` may rename.
const PROGRAMS: [&str; 7] =
    ["pg_ctl", "initdb", "pg_controldata", "pg_basebackup", "postgres", "pg_isready", "pg_rewind"];
/// Keys that have no effect in a member's own file.
const WITHOUT_EFFECT: [(&str, &str); 3] = [
    ("use_slots", "only the dynamic configuration sets it; use edit-config"),
    ("pg_ctl_timeout", "`primary_start_timeout` of the dynamic configuration bounds a start"),
    ("use_unix_socket_repl", "standbys connect to the leader by its `connect_address`"),
];
/// The name of the built-in method for replicas, and of the section with its options.
pub(super) const BASEBACKUP: &str = "basebackup";
/// Options of pg_basebackup that only the supervisor sets.
const BASEBACKUP_REFUSED: [&str; 11] = [
    "pgdata",
    "format",
    "wal-method",
    "xlog-method",
    "gzip",
    "version",
    "dbname",
    "host",
    "port",
    "username",
    "password",
];

/// Options of pg_rewind that only the supervisor sets. `dry-run` would rewind nothing.
const REWIND_REFUSED: [&str; 10] = [
    "target-pgdata",
    "source-pgdata",
    "source-server",
    "write-recovery-conf",
    "dry-run",
    "restore-target-wal",
    "config-file",
    "no-ensure-shutdown",
    "version",
    "help",
];

/// Reads the section.
pub(super) fn read(top: &mut Section<'_>, findings: &mut ConfigFindings) -> Postgresql {
    let mut section = top.section("postgresql", findings);
    let listen = addresses(&mut section, findings);
    let local = Address { host: local_host(&listen.host), port: listen.port };
    let connect_address = local::connect_address(&mut section, &listen, (local, Some(5432)), findings);
    let proxy = section
        .get("proxy_address")
        .map(|_| address(&mut section, "proxy_address", Some(5432), false, findings));
    let data_dir =
        absolute_path(section.required("data_dir", "write the path of the data directory", findings));
    let (superuser, replication, rewind) = logins(&mut section, findings);
    let custom_conf = section.text("custom_conf", findings).map(PathBuf::from);
    let basebackup = basebackup(&mut section, findings);
    let replica_methods = scripts::replica_methods(&mut section, findings);
    let optional = |section: &mut Section<'_>, key, findings: &mut ConfigFindings| {
        section.get(key).is_some().then(|| section.flag(key, false, findings))
    };
    let postgresql = Postgresql {
        config_dir: section.text("config_dir", findings).map_or_else(|| data_dir.clone(), absolute_path),
        config_base_name: section
            .text("config_base_name", findings)
            .unwrap_or_else(|| "postgresql".to_owned()),
        database: section.text("database", findings).unwrap_or_else(|| "postgres".to_owned()),
        bin_dir: section.text("bin_dir", findings).filter(|dir| !dir.is_empty()).map(PathBuf::from),
        bin_name: bin_names(section.section("bin_name", findings), findings),
        pgpass: section.text("pgpass", findings).map_or_else(|| beside(&data_dir, ".pgpass"), absolute_path),
        parameters: guc::parameters(&mut section, findings),
        pg_hba: section.list("pg_hba", false, findings),
        pg_ident: section.list("pg_ident", false, findings),
        by_role: by_role::read(&mut section, findings),
        recovery_conf: section.parameters("recovery_conf", findings),
        use_unix_socket: section.flag("use_unix_socket", false, findings),
        use_pg_rewind: optional(&mut section, "use_pg_rewind", findings),
        remove_data_directory_on_rewind_failure: optional(
            &mut section,
            "remove_data_directory_on_rewind_failure",
            findings,
        ),
        remove_data_directory_on_diverged_timelines: optional(
            &mut section,
            "remove_data_directory_on_diverged_timelines",
            findings,
        ),
        rewind_options: section.options("rewind", &REWIND_REFUSED, findings),
        callbacks: callbacks(section.section("callbacks", findings), findings),
        pre_promote: scripts::command(&mut section, "pre_promote", findings),
        before_stop: scripts::command(&mut section, "before_stop", findings),
        krbsrvname: krbsrvname(&mut section, findings),
        proxy_address: proxy,
        listen,
        connect_address,
        data_dir,
        custom_conf,
        superuser,
        replication,
        rewind,
        basebackup,
        replica_methods,
        other_methods: Vec::new(),
    };
    section.without_effect(&WITHOUT_EFFECT, findings);
    section.accept(&["name"]);
    let other_methods = scripts::other_methods(&mut section, findings);
    section.finish(findings);
    Postgresql { other_methods, ..postgresql }
}

/// An absolute path, resolved from the supervisor's working directory and without a trailing slash: names beside a
/// directory are derived from it.
fn absolute_path(path: String) -> PathBuf {
    std::path::absolute(&path).unwrap_or_else(|_| path.into()).components().collect()
}

/// The default password file: beside the data directory, since members may share a home directory.
fn beside(data_dir: &std::path::Path, ending: &str) -> PathBuf {
    let mut path = data_dir.as_os_str().to_owned();
    path.push(ending);
    PathBuf::from(path)
}

fn bin_names(mut section: Section<'_>, findings: &mut ConfigFindings) -> BTreeMap<String, String> {
    let names =
        PROGRAMS.iter().filter_map(|program| Some(((*program).to_owned(), section.text(program, findings)?)));
    let names = names.collect();
    section.finish(findings);
    names
}

fn callbacks(
    mut section: Section<'_>,
    findings: &mut ConfigFindings,
) -> BTreeMap<CallbackEvent, Vec<String>> {
    let mut callbacks = BTreeMap::new();
    for event in CallbackEvent::ALL {
        let words = scripts::command(&mut section, event.as_str(), findings);
        callbacks.extend(words.map(|words| (event, words)));
    }
    section.finish(findings);
    callbacks
}

/// The logins of the section `authentication`. Old files have the sections `superuser`, `replication` and `pg_rewind`
/// beside the others.
fn logins(postgresql: &mut Section<'_>, findings: &mut ConfigFindings) -> (Login, Login, Option<Login>) {
    let mut section = postgresql.section("authentication", findings);
    let mut login = |key: &'static str, old_key: &'static str, default: &str| {
        let mut login = section.section(key, findings);
        let mut old = postgresql.section(old_key, findings);
        if !login.is_there() {
            std::mem::swap(&mut login, &mut old);
        }
        let there = login.is_there();
        let username = login.text("username", findings).unwrap_or_else(|| default.to_owned());
        let password = login.text("password", findings);
        let options = LOGIN_OPTIONS
            .iter()
            .filter_map(|option| Some(((*option).to_owned(), login.text(option, findings)?)));
        let options: BTreeMap<String, String> = options.collect();
        for (option, same, instead) in NOT_BY_OWN {
            let differs = options.get(option).is_some_and(|value| !same.contains(&value.as_str()));
            // The user that streams does so by PostgreSQL's programs only.
            if let (true, true, Some(node)) = (differs, key != "replication", login.get(option)) {
                login.warn(option, node, instead, findings);
            }
        }
        login.finish(findings);
        (there, Login { username, password, options })
    };
    let (_, superuser) = login("superuser", "superuser", "postgres");
    let (has_replication, replication) = login("replication", "replication", "replicator");
    let (has_rewind, rewind) = login("rewind", "pg_rewind", "rewind_user");
    if !has_replication {
        section.missing("replication", "write `username` and `password` of the user that streams", findings);
    }
    section.finish(findings);
    (superuser, replication, has_rewind.then_some(rewind))
}

fn krbsrvname(section: &mut Section<'_>, findings: &mut ConfigFindings) -> Option<String> {
    let name = section.text("krbsrvname", findings);
    if let (Some(_), Some(node)) = (&name, section.get("krbsrvname")) {
        section.warn("krbsrvname", node, NO_GSS, findings);
    }
    name
}

/// Options of pg_basebackup, without those that only the supervisor sets.
fn basebackup(section: &mut Section<'_>, findings: &mut ConfigFindings) -> Vec<String> {
    let basebackup = section.options("basebackup", &BASEBACKUP_REFUSED, findings);
    let compresses = |option: &String| {
        option.split_once('=').is_some_and(|(name, how)| name == "compress" && !how.starts_with("server"))
    };
    if let (true, Some(node)) = (basebackup.iter().any(compresses), section.get("basebackup")) {
        let expected = "remove `compress`, or write `compress: server-…`: a data directory is not compressed";
        section.fault("basebackup", node, expected, findings);
    }
    basebackup
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_absolute() {
        let here = std::env::current_dir().expect("somewhere");
        let pairs = [("/x/m1/", "/x/m1".into()), ("/x//./m1", "/x/m1".into()), ("pg", here.join("pg"))];
        for (written, expected) in pairs {
            assert_eq!(absolute_path(written.to_owned()).as_os_str(), expected.as_os_str(), "{written}");
        }
    }
}
