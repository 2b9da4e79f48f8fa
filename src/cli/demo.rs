//! `demo`: a whole cluster on this machine.

use std::path::PathBuf;

use clap::Args;

/// Options of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// How many members.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub members: u8,
    /// Where to keep everything; a new directory under /tmp if none is named.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Leave the directory at the end.
    #[arg(long)]
    pub keep: bool,
    /// Show what happens when things break, and end: needs no terminal.
    #[arg(long)]
    pub tour: bool,
    /// How often the tour goes round.
    #[arg(long, default_value_t = 1, requires = "tour", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rounds: u16,
    /// Print the tour's figures as JSON.
    #[arg(long, requires = "tour")]
    pub json: bool,
}
