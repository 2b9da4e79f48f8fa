//! `remove`: delete everything that etcd holds of a cluster.

use clap::Args;

use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::rows::{Detail, members};
use super::selection::member_names;
use super::target::open;

/// The sentence to be typed.
const CONSENT: &str = "Yes I am aware";

/// Options of `remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The cluster.
    cluster: String,
}

/// Runs `remove`. Nothing skips the questions; answers may come from a pipe.
pub async fn execute(context: &Context, args: &RemoveArgs) -> CliResult {
    let client = open(context, Some(&args.cluster)).await?;
    let view = client.view().await?;
    context.ui.data(&members(&client.scope, &view, Detail::default()).render(context.global.output)?);
    if !view.members.is_empty() {
        context.ui.say(&format!(
            "These members still run: {}. A running primary writes the cluster to etcd again: stop them first",
            member_names(&view)
        ));
    }
    typed(context, "the name of the cluster to remove", &client.scope)?;
    let what = format!("\"{CONSENT}\" to delete everything that etcd holds of {}", client.scope);
    typed(context, &what, CONSENT)?;
    if let Some(leader) = &view.leader {
        typed(context, "the name of the leader, because the cluster has one", leader.name.as_str())?;
    }
    for (name, _) in view.unfenced(None) {
        let what = format!(
            "the name of {name}, whose PostgreSQL was left running in pause, if that PostgreSQL is down for certain"
        );
        typed(context, &what, name.as_str())?;
    }
    let deleted = client.remove().await?;
    context.ui.say(&format!("Removed the cluster {} from etcd: {deleted} keys", client.scope));
    Ok(Exit::Done)
}

fn typed(context: &Context, what: &str, expected: &str) -> Result<(), CliError> {
    if context.ui.ask(&format!("Please type {what}: "))? == expected {
        return Ok(());
    }
    Err(CliError::failed(format!("that is not `{expected}`: nothing was removed")))
}
