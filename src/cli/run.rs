//! `run`: the member itself. The only command that reaches into the agent.

use std::path::PathBuf;

use clap::Args;

use super::dispatch::Context;
use super::error::{CliError, CliResult};

/// Options of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The configuration; without one, everything comes from the environment.
    file: Option<PathBuf>,
}

/// Runs the member until it is told to stop.
pub fn execute(context: &Context, args: &RunArgs) -> CliResult {
    let path = args.file.clone().or_else(|| context.global.config_file.clone());
    let _ = path;
    Err(CliError::failed("the agent is not joined yet"))
}
