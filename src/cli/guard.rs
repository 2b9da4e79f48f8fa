//! `guard`: the process that `run` starts beside PostgreSQL.

use std::path::PathBuf;

use clap::Args;

/// Options of `guard`.
#[derive(Debug, Args)]
pub struct GuardArgs {
    /// The watchdog device.
    #[arg(long, value_name = "DEVICE")]
    pub watchdog: Option<PathBuf>,
    /// The device is a named pipe that records every operation (for tests).
    #[arg(long, requires = "watchdog")]
    pub testing: bool,
}
