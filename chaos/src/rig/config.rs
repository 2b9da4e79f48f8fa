//! The system under test and its configuration: one file for both systems, because both read the same format.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::place::Place;

/// Every user's password; clients need none.
const PASSWORD: &str = "between elephants";

/// How commits wait for standbys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// They do not.
    Async,
    /// For any of a quorum.
    Quorum,
    /// For any of a quorum, and only the lease replaces a leader.
    QuorumLease,
    /// For a named standby.
    On,
    /// For a named standby, and only the lease replaces a leader.
    OnLease,
}

impl Mode {
    /// Whether a leader can be replaced before its lease ends.
    pub(crate) fn recruits(self) -> bool {
        matches!(self, Mode::Quorum | Mode::On)
    }
}

/// The supervisor under test, with its timing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum System {
    /// Ours.
    Matriarch {
        /// Of the lease, in seconds.
        ttl: u64,
    },
    /// The peer, from a Python environment.
    Patroni {
        /// Of the leader key, in seconds.
        ttl: u64,
        /// Seconds between two looks.
        loop_wait: u64,
        /// Seconds that an operation is tried for.
        retry_timeout: u64,
    },
}

impl System {
    /// The peer as it comes.
    pub(crate) const PATRONI: System = System::Patroni { ttl: 30, loop_wait: 10, retry_timeout: 10 };
    /// The peer as fast as it can be configured.
    pub(crate) const PATRONI_FAST: System = System::Patroni { ttl: 20, loop_wait: 1, retry_timeout: 9 };

    /// Its name in reports.
    pub(crate) fn name(&self) -> String {
        match self {
            System::Matriarch { .. } => format!("Matriarch, ttl {}", self.ttl()),
            System::Patroni { loop_wait, .. } => {
                format!("Patroni 4.1.5, ttl {}, loop_wait {loop_wait}", self.ttl())
            }
        }
    }

    /// Of the lease, in seconds.
    pub(crate) fn ttl(&self) -> u64 {
        match self {
            System::Matriarch { ttl } | System::Patroni { ttl, .. } => *ttl,
        }
    }

    /// Whether it is ours, and our promises count.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self, System::Matriarch { .. })
    }

    /// The program and its arguments before the configuration file.
    pub(crate) fn program(&self, place: &Place) -> Result<(PathBuf, Vec<String>)> {
        match self {
            System::Matriarch { .. } => Ok((place.program.clone(), vec!["run".to_owned()])),
            System::Patroni { .. } => python(place),
        }
    }

    /// Timing as the dynamic configuration spells it.
    fn timing(&self) -> Value {
        match self {
            System::Matriarch { ttl } => json!({ "ttl": ttl }),
            System::Patroni { ttl, loop_wait, retry_timeout } => {
                json!({ "ttl": ttl, "loop_wait": loop_wait, "retry_timeout": retry_timeout })
            }
        }
    }

    /// Makes the environment that the program needs visible in the place.
    pub(crate) fn furnish(&self, place: &Place) -> Result<()> {
        if self.is_ours() {
            return Ok(());
        }
        let venv = python_environment()?;
        for (name, folder) in [("python", interpreter(&venv)?), ("venv", venv)] {
            let inside = place.folder(name)?;
            super::tool("mount", &["--bind", &folder.to_string_lossy(), &inside.to_string_lossy()])?;
        }
        Ok(())
    }
}

/// Where the interpreter is installed that an environment was made with.
fn interpreter(venv: &Path) -> Result<PathBuf> {
    let text = std::fs::read_to_string(venv.join("pyvenv.cfg")).context("read pyvenv.cfg")?;
    let home = text.lines().find_map(|line| line.strip_prefix("home = ")).context("pyvenv.cfg has a home")?;
    Ok(Path::new(home.trim()).parent().context("the interpreter is in a folder")?.to_owned())
}

/// Python, which starts itself again, from where the unprivileged user can read it: its home may be somebody else's.
fn python(place: &Place) -> Result<(PathBuf, Vec<String>)> {
    let (home, libraries) = (place.folder.join("python"), place.folder.join("venv/lib"));
    let versions = std::fs::read_dir(&libraries).with_context(|| format!("read {}", libraries.display()))?;
    let version = versions.flatten().next().context("the environment has a version")?;
    let packages = version.path().join("site-packages");
    let arguments = vec![
        format!("PYTHONPATH={}", packages.display()),
        format!("LD_LIBRARY_PATH={}", home.join("lib").display()),
        home.join("bin/python3").display().to_string(),
        "-m".to_owned(),
        "patroni".to_owned(),
    ];
    Ok((PathBuf::from("env"), arguments))
}

/// The Python environment that `make setup` made.
pub(crate) fn python_environment() -> Result<PathBuf> {
    let given = std::env::var_os("MATRIARCH_TEST_VENV").map(PathBuf::from);
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let venv = given.or_else(|| Some(cache.or_else(home)?.join("matriarch-test/venv")));
    venv.filter(|venv| venv.join("bin/patroni").exists()).context("there is no Patroni: see `make setup`")
}

/// What differs between members.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Its address.
    pub(crate) address: &'a str,
    /// Its folder.
    pub(crate) folder: &'a Path,
}

/// A member's configuration. Written as JSON, which is YAML too.
pub(crate) fn member(
    system: &System,
    mode: Mode,
    place: &Place,
    etcd: &[String],
    identity: Identity<'_>,
) -> Value {
    let Identity { name, address, folder } = identity;
    let account = |user: &str| json!({ "username": user, "password": PASSWORD });
    let initdb = if place.in_memory {
        json!([{ "encoding": "UTF8" }, "data-checksums", "no-sync"])
    } else {
        json!([{ "encoding": "UTF8" }, "data-checksums"])
    };
    json!({
        "scope": "herd",
        "name": name,
        "etcd3": { "hosts": etcd },
        "restapi": {
            "listen": "0.0.0.0:8008", "connect_address": format!("{address}:8008"),
            // Operators are where the clients are.
            "allowlist": ["10.77.0.0/24"],
        },
        "bootstrap": { "dcs": dynamic(system, mode), "initdb": initdb },
        "postgresql": {
            "listen": format!("{address}:5432"),
            "connect_address": format!("{address}:5432"),
            "data_dir": folder.join("data"),
            "bin_dir": place.postgres_bin,
            "pgpass": folder.join("pgpass"),
            "authentication": {
                "superuser": account("postgres"),
                "replication": account("replicator"),
                "rewind": account("rewinder"),
            },
            "parameters": { "unix_socket_directories": folder, "shared_buffers": "32MB" },
            "pg_hba": [
                "local all all scram-sha-256",
                format!("host all all {}/32 trust", super::namespaces::CLIENTS),
                "host all all 127.0.0.1/32 scram-sha-256",
                "host all all 10.77.0.0/24 scram-sha-256",
                "host replication replicator 10.77.0.0/24 scram-sha-256",
            ],
        },
    })
}

fn dynamic(system: &System, mode: Mode) -> Value {
    let mut dynamic = system.timing();
    match mode {
        Mode::Async => {}
        Mode::Quorum | Mode::QuorumLease => dynamic["synchronous_mode"] = json!("quorum"),
        Mode::On | Mode::OnLease => dynamic["synchronous_mode"] = json!(true),
    }
    if matches!(mode, Mode::QuorumLease | Mode::OnLease) {
        dynamic["failover"] = json!("lease");
    }
    dynamic["postgresql"] = json!({
        "use_pg_rewind": true,
        "parameters": {
            "max_connections": 300,
            "wal_log_hints": "on",
            "wal_keep_size": "128MB",
            "max_wal_size": "256MB",
            // Clients that try to write on standbys would fill the log with their refusals.
            "log_min_messages": "log",
        },
    });
    dynamic
}
