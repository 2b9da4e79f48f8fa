//! `completions`: the script with which a shell completes the command line.

use clap::Args;
use clap_complete::Shell;

use super::context::Context;
use super::error::CliResult;
use super::exit::Exit;

/// Options of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "For the shell that runs now: `source <(matriarch completions bash)`. To keep it: \
    `matriarch completions bash >/etc/bash_completion.d/matriarch`.")]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs `completions` for the commands of `program`.
///
/// # Errors
/// Never.
pub fn execute(context: &Context, args: &CompletionsArgs, mut program: clap::Command) -> CliResult {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, "matriarch", &mut script);
    context.ui.data(&String::from_utf8_lossy(&script));
    Ok(Exit::Done)
}
