//! A member, from start to end: look at the machine, prepare the agent, build the REST interface beside it.

use std::sync::Arc;

use tokio::sync::watch;

use super::error::{RunError, system};
use super::preflight;
use super::rest::{RestServer, warn_of_access};
use crate::agent::{self, Agent};
use crate::config::{Loaded, Sources};

/// Runs a member until it is asked to end.
///
/// # Errors
/// Every condition that prevents a member from starting or continuing; each has an exit code of the command line.
pub(super) async fn run(loaded: Loaded, sources: Sources) -> Result<(), RunError> {
    agent::start_log(&loaded.config.log).map_err(|source| system("open the log", source))?;
    let ended = supervise(loaded, sources).await;
    agent::flush_log();
    ended
}

async fn supervise(loaded: Loaded, sources: Sources) -> Result<(), RunError> {
    let Loaded { config, warnings } = loaded;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    warn_of_access(config.restapi.write_access());
    tracing::info!(
        scope = config.scope,
        name = %config.name,
        etcd = config.etcd.endpoints.join(", "),
        data_dir = %config.postgresql.data_dir.display(),
        "starting"
    );
    let major = preflight::look(&config)?;
    // Kept until the REST interface has ended, too: the next supervisor needs its port.
    let _lock = agent::lock(&config.postgresql.data_dir)?;
    let Some((agent, handle)) = Agent::prepare(config.clone(), sources, major).await? else { return Ok(()) };
    let (local_sender, local) = watch::channel(Arc::new(config));
    let rest = RestServer::start(local, handle).await?;
    let ended = agent.run(rest.peers.clone(), local_sender).await;
    rest.end().await;
    Ok(ended?)
}
