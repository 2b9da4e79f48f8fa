//! `show-config`: the dynamic configuration.

use clap::Args;
use serde_json::Value;

use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::output::{document, sorted};
use super::target::open;
use crate::model::ClusterView;

/// Options of `show-config`.
#[derive(Debug, Args)]
pub struct ShowConfigArgs {
    /// The cluster; default: the configured cluster.
    cluster: Option<String>,
}

/// Runs `show-config`.
pub async fn execute(context: &Context, args: &ShowConfigArgs) -> CliResult {
    let client = open(context, args.cluster.as_deref()).await?;
    let config = read(&client.view().await?, &client.scope)?.0;
    context.ui.data(&document(&sorted(&config), context.global.output)?);
    Ok(Exit::Done)
}

/// The dynamic configuration and its revision.
pub fn read(view: &ClusterView, scope: &str) -> Result<(Value, i64), CliError> {
    let Some(key) = &view.config else {
        return Err(CliError::failed(format!("the cluster {scope} has no dynamic configuration"))
            .hint("the bootstrap of a cluster writes it; is the cluster's name right?"));
    };
    let value = serde_json::from_str(&key.text)
        .map_err(|error| CliError::failed("the dynamic configuration is not valid JSON").because(&error))?;
    Ok((value, key.mod_revision))
}
