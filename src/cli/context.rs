//! The inputs that every command gets.

use std::path::PathBuf;

use clap::Args;

use super::output::Format;
use super::ui::Ui;

/// The context of every command.
#[derive(Debug)]
pub struct Context {
    /// The options that identify the cluster and the output format.
    pub global: Global,
    /// The terminal.
    pub ui: Ui,
}

/// Options that every command accepts.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Configuration file: the file of a member, or a file with only `scope` and `etcd3`.
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// etcd address and namespace, instead of those in the file: `etcd3://HOST:PORT/NAMESPACE`.
    #[arg(short, long, visible_alias = "dcs", env = "DCS_URL", global = true, value_name = "URL")]
    pub dcs_url: Option<String>,
    /// Output format.
    #[arg(short, long, visible_short_alias = 'f', visible_alias = "format", global = true, value_enum)]
    #[arg(default_value_t = Format::Table)]
    pub output: Format,
}
