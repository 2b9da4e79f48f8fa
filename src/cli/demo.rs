//! `demo`: a whole cluster on this machine.

use std::path::PathBuf;

use clap::Args;

/// Options of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Number of members.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub members: u8,
    /// Directory for all files; default: a new directory under /tmp.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Keep the directory at the end.
    #[arg(long)]
    pub keep: bool,
    /// Break things in a fixed order, print the results and exit (needs no terminal).
    #[arg(long)]
    pub tour: bool,
    /// Number of rounds of the tour.
    #[arg(long, default_value_t = 1, requires = "tour", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rounds: u16,
    /// Print the results of the tour as JSON.
    #[arg(long, requires = "tour")]
    pub json: bool,
}
