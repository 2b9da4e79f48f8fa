//! `check`: every fault of a configuration at once.

use std::path::PathBuf;

use clap::Args;

use super::dispatch::Context;
use super::error::CliResult;
use super::exit::Exit;
use super::target::environment;
use crate::config::{self, Faults};

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
    let loaded = match config::load(path.as_deref(), &environment()) {
        Ok(loaded) => loaded,
        Err(faults) => {
            context.ui.say(&faults.to_string());
            return Ok(Exit::Configuration);
        }
    };
    let unfit = config::check_machine(&loaded.config);
    if !unfit.is_empty() {
        context.ui.say(&Faults(unfit).to_string());
        return Ok(Exit::Configuration);
    }
    for warning in &loaded.warnings {
        context.ui.say(&format!("warning: {warning}"));
    }
    if args.strict && !loaded.warnings.is_empty() {
        context.ui.say("Not good enough for --strict: every warning counts as a fault");
        return Ok(Exit::Configuration);
    }
    context.ui.say("The configuration is valid");
    Ok(Exit::Done)
}
