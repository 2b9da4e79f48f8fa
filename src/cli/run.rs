//! `run`: the member itself. The only command that reaches into the agent.

use std::error::Error;
use std::path::PathBuf;

use clap::Args;

use super::dispatch::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::target::environment;
use crate::agent::{self, RunError};
use crate::api::ApiError;
use crate::config::{self, Sources};
use crate::etcd::EtcdError;
use crate::model::ExitBecause;
use crate::os::output;

/// Options of `run`.
#[derive(Debug, Args)]
#[command(override_usage = "matriarch run [OPTIONS] [FILE] [postgres] [-c NAME=VALUE | --NAME=VALUE]...")]
#[command(
    after_help = "PostgreSQL parameters may follow, for example `matriarch run postgres -c work_mem=8MB`."
)]
pub struct RunArgs {
    /// The configuration file; without a file, the environment and the pod supply all settings.
    file: Option<PathBuf>,
}

/// Runs the member until it is told to stop.
pub fn execute(context: &Context, args: &RunArgs, parameters: Vec<(String, String)>) -> CliResult {
    let path = args.file.clone().or_else(|| context.global.config_file.clone());
    let sources = Sources { path, environment: environment(), parameters };
    let loaded = config::load(&sources).map_err(|faults| {
        CliError::failed(faults.to_string())
            .hint("`matriarch check FILE` reports every fault, and also checks this machine")
            .exit(Exit::Configuration)
    })?;
    output::prepare_for_children();
    // Before the first thread: a process has one user.
    agent::leave_root(&loaded.config).map_err(|error| explain(&error))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed("failed to start the runtime").because(&error))?;
    let ended = runtime.block_on(agent::run(loaded, sources));
    ended.map(|()| Exit::Done).map_err(|error| explain(&error))
}

fn explain(error: &RunError) -> CliError {
    let mut explained = CliError::failed(error.to_string()).exit(exit_of(error));
    if let Some(cause) = error.source() {
        explained = explained.because(cause);
    }
    match hint_of(error) {
        Some(hint) => explained.hint(hint),
        None => explained,
    }
}

fn exit_of(error: &RunError) -> Exit {
    match error {
        RunError::Root { .. } => Exit::Root,
        RunError::AlreadyRunning { .. } | RunError::DuplicateName { .. } | RunError::SameSlot { .. } => {
            Exit::DuplicateName
        }
        RunError::NotADatabase { .. } => Exit::ForeignDataDirectory,
        RunError::Api(ApiError::PortInUse { .. }) => Exit::PortInUse,
        RunError::Programs(_) => Exit::MissingProgram,
        RunError::OtherVersion(_) => Exit::ForeignDataDirectory,
        RunError::Etcd(EtcdError::Setup(_))
        | RunError::Settings(_)
        | RunError::BesideData { .. }
        | RunError::Certificates(_) => Exit::Configuration,
        RunError::Etcd(_) => Exit::Etcd,
        RunError::Ended(because) => exit_of_end(because),
        RunError::Api(_) | RunError::System { .. } | RunError::Postgres(_) | RunError::Fence(_) => {
            Exit::Failed
        }
    }
}

fn exit_of_end(because: &ExitBecause) -> Exit {
    match because {
        ExitBecause::Asked => Exit::Done,
        ExitBecause::ForeignDataDirectory { .. } => Exit::ForeignDataDirectory,
        ExitBecause::BootstrapFailed { .. } => Exit::BootstrapFailed,
    }
}

fn hint_of(error: &RunError) -> Option<&'static str> {
    match exit_of(error) {
        Exit::PortInUse => Some("stop the program that listens on this port, or change `restapi.listen`"),
        Exit::Etcd => Some("check the user, password and certificates of the `etcd3` section"),
        Exit::MissingProgram => Some("set `postgresql.bin_dir` to the programs of PostgreSQL 13 to 18"),
        Exit::BootstrapFailed => Some("the broken data directory was renamed; its log shows the reason"),
        _ => None,
    }
}
