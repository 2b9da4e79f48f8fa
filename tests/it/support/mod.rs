//! The foundation of the integration tests: real etcd, real Postgres, the real binary.
//!
//! ```text
//!  Cluster ── Etcd (1 or 3 processes)            all below one Place: a folder that is removed, with every
//!     │   └── Member × n (supervisor, Postgres)   process that works in it, when the test ends, however it ends
//!     ├── wait_for(level, deadline)               levels, never edges; no fixed sleeps
//!     └── Writer: numbered rows, and which of them the server acknowledged
//! ```
//!
//! A test owns everything that it starts and shares nothing: ports are locked across processes, processes are ended
//! by id and only when their working directory proves that they are the test's. An ERROR line in a supervisor's log
//! fails the test unless the test expects it.

mod browser;
mod cluster;
mod disk;
mod etcd;
mod freezer;
mod http;
pub(crate) mod kubernetes;
mod logs;
mod member;
mod patroni;
mod place;
mod ports;
pub(crate) mod processes;
mod proxy;
pub(crate) mod rbac;
mod sql;
pub(crate) mod user;
mod wait;
mod writer;

pub(crate) use browser::Browser;
pub(crate) use cluster::{Cluster, Plan, Seen};
pub(crate) use disk::Disk;
pub(crate) use etcd::{BlackHole, Etcd};
pub(crate) use freezer::Freezer;
pub(crate) use http::{Answer, request};
pub(crate) use member::{Member, binary_in, merge};
pub(crate) use place::Place;
pub(crate) use ports::free_port;
pub(crate) use proxy::Proxy;
pub(crate) use sql::{PASSWORD, connect, query, settings};
pub(crate) use user::{command_as, give};
pub(crate) use wait::{Deadline, until};
pub(crate) use writer::Writer;

use std::path::PathBuf;

/// The folder of a PostgreSQL's programs: the newest installed one, or `MATRIARCH_TEST_PG_BIN`.
pub(crate) fn postgres_bin() -> PathBuf {
    if let Some(folder) = std::env::var_os("MATRIARCH_TEST_PG_BIN") {
        return folder.into();
    }
    (13..=18)
        .rev()
        .map(|major| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")))
        .find(|folder| folder.join("postgres").exists())
        .expect("PostgreSQL 13 to 18 is installed: see `make setup`")
}

/// A program that `make setup` put beside the virtual environment, or one of this machine.
pub(crate) fn tool(name: &str) -> PathBuf {
    let ours = test_cache().join("tools").join(name);
    if ours.exists() { ours } else { name.into() }
}

/// A program of the virtual environment that `make setup` made.
pub(crate) fn python_program(name: &str) -> PathBuf {
    let venv =
        std::env::var_os("MATRIARCH_TEST_VENV").map_or_else(|| test_cache().join("venv"), PathBuf::from);
    let program = venv.join("bin").join(name);
    assert!(program.exists(), "{} is missing: run `make setup`", program.display());
    program
}

/// Where `make setup` puts what it does not install system-wide.
fn test_cache() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache");
    cache.unwrap_or_else(home).join("matriarch-test")
}
