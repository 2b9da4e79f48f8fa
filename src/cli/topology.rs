//! `topology`: the members as a tree of replication.

use clap::Args;

use super::context::Context;
use super::error::CliResult;
use super::rows::Detail;
use super::watch::{self, WatchArgs};

/// Options of `topology`.
#[derive(Debug, Args)]
pub struct TopologyArgs {
    /// Clusters; default: the configured cluster.
    clusters: Vec<String>,
    #[command(flatten)]
    watch: WatchArgs,
}

/// Runs `topology`.
pub async fn execute(context: &Context, args: &TopologyArgs) -> CliResult {
    let detail = Detail { extended: false, tree: true };
    watch::show(context, &args.clusters, detail, false, &args.watch).await
}
