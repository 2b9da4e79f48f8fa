//! `run`: the member itself.

use std::path::PathBuf;

use clap::Args;

/// Options of `run`.
#[derive(Debug, Args)]
#[command(override_usage = "matriarch run [OPTIONS] [FILE] [postgres] [-c NAME=VALUE | --NAME=VALUE]...")]
#[command(
    after_help = "PostgreSQL parameters may follow, for example `matriarch run postgres -c work_mem=8MB`."
)]
pub struct RunArgs {
    /// The configuration file; without a file, the environment and the pod supply all settings.
    pub file: Option<PathBuf>,
}
