//! `dsn`: the address of a member's PostgreSQL.

use clap::Args;

use super::context::Context;
use super::error::CliResult;
use super::exit::Exit;
use super::selection::OneMemberArgs;
use super::target::open;

/// Options of `dsn`.
#[derive(Debug, Args)]
pub struct DsnArgs {
    /// The cluster; default: the configured cluster.
    cluster: Option<String>,
    #[command(flatten)]
    which: OneMemberArgs,
}

/// Runs `dsn`.
pub async fn execute(context: &Context, args: &DsnArgs) -> CliResult {
    let client = open(context, args.cluster.as_deref()).await?;
    let (_, host, port) = args.which.address(&client.view().await?)?;
    context.ui.data(&format!("host={host} port={port}\n"));
    Ok(Exit::Done)
}
