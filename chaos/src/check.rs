//! `chaos check`: judges a saved history again.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::history;
use crate::report::summary;

/// Judges a saved history again.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// `history.jsonl` of a run.
    history: PathBuf,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let oracle = history::judge(&arguments.history)?;
    println!("{}", summary(&oracle.verdict()));
    for what in oracle.told() {
        println!("found: {what}");
    }
    let violations = oracle.violations();
    for what in &violations {
        println!("BROKEN: {what}");
    }
    Ok(if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
