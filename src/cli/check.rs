//! `check`: every fault of a configuration at once.

use std::path::PathBuf;

use clap::Args;

/// Options of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration; without one, the environment is checked.
    pub file: Option<PathBuf>,
    /// Warnings are faults too.
    #[arg(long)]
    pub strict: bool,
}
