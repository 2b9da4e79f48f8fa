//! The inputs that every command gets.

use std::path::PathBuf;

use clap::Args;

use super::called::CalledAs;
use super::error::CliError;
use super::output::Format;
use super::ui::Ui;

/// The context of every command.
#[derive(Debug)]
pub struct Context {
    /// The options that identify the cluster and the output format.
    pub global: Global,
    /// The terminal.
    pub ui: Ui,
    /// The name of the program.
    pub called: CalledAs,
}

impl Context {
    /// The answer to a question that only patronictl asks, in its order; scripts send the answers through a pipe.
    pub fn patronictl_asks(
        &self,
        force: bool,
        what: &str,
        default: &str,
    ) -> Result<Option<String>, CliError> {
        if force || self.called != CalledAs::Patronictl {
            return Ok(None);
        }
        let answer = self.ui.ask(&format!("{what} [{default}]: "))?;
        Ok(Some(if answer.is_empty() { default.to_owned() } else { answer }))
    }
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
    /// Accept any certificate of the members' REST interfaces.
    #[arg(short = 'k', long, global = true)]
    pub insecure: bool,
    /// Output format.
    #[arg(short, long, visible_short_alias = 'f', visible_alias = "format", global = true, value_enum)]
    #[arg(default_value_t = Format::Table)]
    pub output: Format,
}
