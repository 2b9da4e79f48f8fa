//! `run`: the member itself.

use super::error::RunError;
use super::{member, owner};
use crate::agent::AgentError;
use crate::api::ApiError;
use crate::cli::context::Context;
use crate::cli::error::{CliError, CliResult};
use crate::cli::exit::Exit;
use crate::cli::run::RunArgs;
use crate::cli::target::environment;
use crate::config::{self, Sources};
use crate::etcd::EtcdError;
use crate::model::ExitBecause;
use crate::os::output;

/// Runs the member until it is asked to end.
pub(super) fn execute(context: &Context, args: &RunArgs, parameters: Vec<(String, String)>) -> CliResult {
    let path = args.file.clone().or_else(|| context.global.config_file.clone());
    let environment = environment();
    let secrets = config::secrets_digest(&config::secret_files(&environment));
    let sources = Sources { path, environment, parameters, secrets };
    let loaded = config::load(&sources).map_err(|faults| {
        CliError::failed(faults.to_string())
            .hint("`matriarch check FILE` reports every fault, and also checks this machine")
            .exit(Exit::Configuration)
    })?;
    output::prepare_for_children();
    // Before the first thread: a process has one user.
    owner::leave_root(&loaded.config).map_err(|error| explain(&error))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed("failed to start the runtime").because(&error))?;
    let ended = runtime.block_on(member::run(loaded, sources));
    ended.map(|()| Exit::Done).map_err(|error| explain(&error))
}

fn explain(error: &RunError) -> CliError {
    let explained = CliError::of(error).exit(exit_of(error));
    match hint_of(error) {
        Some(hint) => explained.hint(hint),
        None => explained,
    }
}

fn exit_of(error: &RunError) -> Exit {
    match error {
        RunError::Root { .. } => Exit::Root,
        RunError::Api(ApiError::PortInUse { .. }) => Exit::PortInUse,
        RunError::Programs(_) => Exit::MissingProgram,
        RunError::OtherVersion(_) => Exit::ForeignDataDirectory,
        RunError::BesideData { .. } | RunError::Certificates(_) => Exit::Configuration,
        RunError::Agent(error) => exit_of_agent(error),
        RunError::Api(_) | RunError::System { .. } => Exit::Failed,
    }
}

fn exit_of_agent(error: &AgentError) -> Exit {
    match error {
        AgentError::AlreadyRunning { .. }
        | AgentError::DuplicateName { .. }
        | AgentError::SameSlot { .. } => Exit::DuplicateName,
        AgentError::NotADatabase { .. } => Exit::ForeignDataDirectory,
        AgentError::Etcd(EtcdError::Setup(_)) | AgentError::Settings(_) => Exit::Configuration,
        AgentError::Etcd(_) => Exit::Etcd,
        AgentError::Ended(because) => exit_of_end(because),
        AgentError::System { .. } | AgentError::Postgres(_) | AgentError::Fence(_) => Exit::Failed,
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
