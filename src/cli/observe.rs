//! `observe`: watch a cluster from outside.

use clap::Args;

/// Options of `observe`.
#[derive(Debug, Args)]
pub struct ObserveArgs {
    /// The cluster; default: the configured cluster.
    pub cluster: Option<String>,
    /// The seconds between two looks.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub interval: u64,
    /// Look once.
    #[arg(long)]
    pub once: bool,
}
