//! `list`: the members of a cluster.

use clap::Args;

use super::context::Context;
use super::error::CliResult;
use super::rows::Detail;
use super::watch::{self, WatchArgs};

/// Options of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Clusters; the configured one if none is named.
    clusters: Vec<String>,
    /// Show the columns about restarts even where they are empty.
    #[arg(short, long)]
    extended: bool,
    /// Print the time first.
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
