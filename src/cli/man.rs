//! `man`: the manual pages, one for the program and one for each command.

use std::fs;
use std::path::PathBuf;

use clap::Args;

use super::error::{CliError, CliResult};
use super::exit::Exit;

/// Options of `man`.
#[derive(Debug, Args)]
#[command(after_help = "To read one of them: `man ./matriarch-switchover.1`.")]
pub struct ManArgs {
    /// The folder to write them to; it is made if it does not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs `man` for the commands of `program`.
///
/// # Errors
/// When the folder cannot be written.
pub fn execute(args: &ManArgs, program: clap::Command) -> CliResult {
    let written = fs::create_dir_all(&args.out).and_then(|()| clap_mangen::generate_to(program, &args.out));
    let failed =
        |error| CliError::failed(format!("failed to write to {}", args.out.display())).because(&error);
    written.map_err(failed)?;
    Ok(Exit::Done)
}
