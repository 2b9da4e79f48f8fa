//! Which cluster a command is about: from `--dcs-url`, the configuration file and the environment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::client::Target;
use super::dispatch::Context;
use super::error::CliError;
use super::exit::Exit;
use crate::etcd::EtcdSetup;

const NAMESPACE_DEFAULT: &str = "service";

/// The cluster that the configuration, or `cluster`, names.
pub fn find(context: &Context, cluster: Option<&str>) -> Result<Target, CliError> {
    let path = config_path(context)?;
    if let (None, Some(url)) = (&path, &context.global.dcs_url) {
        let scope = cluster.ok_or_else(|| {
            CliError::usage("which cluster?").hint("name it, or its configuration with -c FILE")
        })?;
        let (endpoint, namespace) = parse_url(url)?;
        let etcd =
            EtcdSetup { endpoints: vec![endpoint], base: base(&namespace, scope), ..EtcdSetup::default() };
        return Ok(Target { scope: scope.to_owned(), etcd, credentials: None });
    }
    let _ = environment();
    Err(CliError::failed("no configuration").exit(Exit::Configuration))
}

/// `etcd3://HOST:PORT/NAMESPACE` as an endpoint and a namespace.
fn parse_url(url: &str) -> Result<(String, String), CliError> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("etcd3", url));
    let scheme = match scheme {
        "etcd" | "etcd3" | "http" => "http",
        "https" => "https",
        other => {
            return Err(CliError::usage(format!("`{other}` is no store this program knows"))
                .hint("write etcd3://HOST:PORT/NAMESPACE"));
        }
    };
    let (host, namespace) = rest.split_once('/').unwrap_or((rest, ""));
    let host = if host.contains(':') { host.to_owned() } else { format!("{host}:2379") };
    let namespace = if namespace.is_empty() { NAMESPACE_DEFAULT } else { namespace };
    Ok((format!("{scheme}://{host}"), namespace.to_owned()))
}

/// `/NAMESPACE/SCOPE/`, with single slashes.
pub fn base(namespace: &str, scope: &str) -> String {
    let parts: Vec<&str> = namespace.split('/').filter(|part| !part.is_empty()).chain([scope]).collect();
    format!("/{}/", parts.join("/"))
}

/// The configuration file: the option, `MATRIARCH_CONFIG_FILE`, `PATRONICTL_CONFIG_FILE`, or patronictl's own.
/// Only a file that somebody named must exist.
fn config_path(context: &Context) -> Result<Option<PathBuf>, CliError> {
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

fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_dcs_urls() {
        let read = |url: &str| parse_url(url).expect("a url");
        assert_eq!(read("etcd3://h:1/n"), ("http://h:1".into(), "n".into()));
        assert_eq!(read("h"), ("http://h:2379".into(), "service".into()));
        assert!(parse_url("zookeeper://h").is_err());
        assert_eq!(base("/a//b/", "c"), "/a/b/c/");
    }
}
