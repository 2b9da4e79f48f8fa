//! `list`: the members of a cluster.

use clap::Args;

use super::context::Context;
use super::error::CliResult;
use super::rows::Detail;
use super::watch::{self, WatchArgs};

/// Options of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Clusters; default: the configured cluster.
    clusters: Vec<String>,
    /// Show the restart columns even if they are empty.
    #[arg(short, long)]
    extended: bool,
    /// Print the current time above the table.
    #[arg(short, long)]
    timestamp: bool,
    #[command(flatten)]
    watch: WatchArgs,
}

/// Runs `list`.
pub async fn execute(context: &Context, args: &ListArgs) -> CliResult {
    let detail = Detail { extended: args.extended, tree: false };
    watch::show(context, &args.clusters, detail, args.timestamp, &args.watch).await
}
