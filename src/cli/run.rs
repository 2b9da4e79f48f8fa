//! `run`: the member itself. The only command that reaches into the agent.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;

use super::dispatch::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use crate::agent::{self, RunError};
use crate::config;
use crate::etcd::EtcdError;
use crate::model::ExitBecause;

/// Options of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The configuration; without one, everything comes from the environment.
    file: Option<PathBuf>,
}

/// Runs the member until it is told to stop.
pub fn execute(context: &Context, args: &RunArgs) -> CliResult {
    let path = args.file.clone().or_else(|| context.global.config_file.clone());
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    let loaded = config::load(path.as_deref(), &environment)
        .map_err(|faults| CliError::failed(faults.to_string()).exit(Exit::Configuration))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| CliError::failed("failed to start the runtime").because(&error))?;
    match runtime.block_on(agent::run(loaded, path, environment)) {
        Ok(()) => Ok(Exit::Done),
        Err(error) => Err(CliError::failed("the member ended").because(&error).exit(exit(&error))),
    }
}

fn exit(error: &RunError) -> Exit {
    match error {
        RunError::Root { .. } => Exit::Root,
        RunError::AlreadyRunning { .. } | RunError::DuplicateName { .. } => Exit::DuplicateName,
        RunError::Api(_) => Exit::PortInUse,
        RunError::Programs(_) => Exit::MissingProgram,
        RunError::Settings(_) => Exit::Configuration,
        RunError::Etcd(EtcdError::Authentication(_)) => Exit::Etcd,
        RunError::Ended(ExitBecause::ForeignDataDirectory { .. }) => Exit::ForeignDataDirectory,
        RunError::Ended(ExitBecause::BootstrapFailed { .. }) => Exit::BootstrapFailed,
        RunError::Etcd(_) | RunError::Ended(ExitBecause::Asked) | RunError::System { .. } | RunError::Postgres(_) => {
            Exit::Failed
        }
    }
}
