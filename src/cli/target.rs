//! The target cluster of a command, and the connection to it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use crate::client::{Client, Target};

/// Prepares the connections to the cluster of the configuration, or to `cluster`.
pub async fn open(context: &Context, cluster: Option<&str>) -> Result<Client, CliError> {
    let (path, dcs_url) = (config_path(context)?, context.global.dcs_url.as_deref());
    let mut target = Target::find(path.as_deref(), &environment(), dcs_url, cluster)?;
    target.ctl.insecure |= context.global.insecure;
    Ok(Client::connect(target).await?)
}

/// The configuration file: the option, `MATRIARCH_CONFIG_FILE`, `PATRONICTL_CONFIG_FILE`, or patronictl's own. Only an
/// explicitly named file must exist.
pub fn config_path(context: &Context) -> Result<Option<PathBuf>, CliError> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let named = context
        .global
        .config_file
        .clone()
        .or_else(|| set("MATRIARCH_CONFIG_FILE"))
        .or_else(|| set("PATRONICTL_CONFIG_FILE"));
    if let Some(path) = named {
        return match path.try_exists() {
            Ok(true) => Ok(Some(path)),
            Ok(false) | Err(_) => Err(CliError::failed(format!("cannot read {}", path.display()))
                .hint("name the configuration with -c FILE or MATRIARCH_CONFIG_FILE")
                .exit(Exit::Configuration)),
        };
    }
    let default = set("HOME").map(|home| home.join(".config/patroni/patronictl.yaml"));
    Ok(default.filter(|path| path.exists()))
}

/// The environment, without variables that are not text.
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}
