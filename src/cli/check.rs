//! `check`: every fault of a configuration at once.

use std::path::PathBuf;

use clap::Args;

/// Options of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration file; without a file, the environment is checked.
    pub file: Option<PathBuf>,
    /// Treat warnings as faults.
    #[arg(long)]
    pub strict: bool,
    /// Accept ports in use.
    #[arg(short, long)]
    pub ignore_listen_port: bool,
    /// Do not ask etcd.
    #[arg(long)]
    pub ignore_etcd: bool,
    /// Print a valid configuration with what the environment adds, passwords included.
    #[arg(short, long)]
    pub print: bool,
}
