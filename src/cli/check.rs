//! `check`: every fault of a configuration at once.

use std::path::PathBuf;

use clap::Args;

use super::dispatch::Context;
use super::error::{CliError, CliResult};

/// Options of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration; without one, the environment is checked.
    file: Option<PathBuf>,
    /// Warnings are faults too.
    #[arg(long)]
    strict: bool,
}

/// Runs `check`.
pub fn execute(context: &Context, args: &CheckArgs) -> CliResult {
    let _ = (&args.file, args.strict, context);
    Err(CliError::failed("the configuration is not joined yet"))
}
