//! `check`: every fault of a configuration at once.

use std::path::PathBuf;

use clap::Args;

use super::dispatch::Context;
use super::error::CliResult;
use super::exit::Exit;
use super::target::environment;
use crate::config::{self, Faults, Sources};

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
    let path = args.file.clone().or_else(|| context.global.config_file.clone());
    let found = config::check(&Sources { path, environment: environment(), ..Sources::default() });
    for warning in &found.warnings {
        context.ui.say(&format!("warning: {warning}"));
    }
    if let Some(access) = found.write_access {
        context.ui.say(&access.to_string());
    }
    if !found.faults.is_empty() {
        context.ui.say(&Faults(found.faults).to_string());
        return Ok(Exit::Configuration);
    }
    if args.strict && !found.warnings.is_empty() {
        context.ui.say("Not good enough for --strict: every warning counts as a fault");
        return Ok(Exit::Configuration);
    }
    context.ui.say("The configuration is valid");
    Ok(Exit::Done)
}
