//! The way to a cluster from outside: etcd for what is, the members' REST for what should be.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::dispatch::Context;
use super::error::CliError;
use super::exit::Exit;
use crate::model::{ClusterView, MemberName};

/// How long one read or write of etcd may take.
const ETCD_WITHIN: Duration = Duration::from_secs(5);
/// How long a quick question to a member may take.
pub const ASK_WITHIN: Duration = Duration::from_secs(3);
/// How long a member may work on an order before it answers: a restart or switchover blocks until it is done.
pub const ORDER_WITHIN: Duration = Duration::from_secs(900);

/// A cluster that can be read and asked.
pub struct Client {
    /// The cluster's name.
    pub scope: String,
}

/// A member's answer over REST.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
}

impl Answer {
    /// Whether it was accepted.
    pub fn is_accepted(&self) -> bool {
        matches!(self.status, 200 | 202)
    }

    /// The body without the line's end.
    pub fn text(&self) -> &str {
        self.body.trim()
    }
}

impl Client {
    /// Connects to the cluster that the configuration, or `cluster`, names.
    pub async fn open(context: &Context, cluster: Option<&str>) -> Result<Client, CliError> {
        let _ = (config_path(context)?, environment(), cluster, ETCD_WITHIN);
        Err(CliError::failed("etcd is not joined yet").exit(Exit::Etcd))
    }

    /// Reads the cluster.
    pub async fn view(&self) -> Result<ClusterView, CliError> {
        Err(CliError::failed("etcd is not joined yet").exit(Exit::Etcd))
    }

    /// Writes the dynamic configuration if its revision is still this one; false: it is not.
    pub async fn write_config(&self, text: String, if_revision: Option<i64>) -> Result<bool, CliError> {
        let _ = (text, if_revision);
        Ok(false)
    }

    /// Calls `endpoint` (as `/switchover`) of the member whose `api_url` is given.
    pub async fn call(
        &self,
        method: &str,
        api_url: &str,
        endpoint: &str,
        body: Option<&Value>,
        within: Duration,
    ) -> Result<Answer, CliError> {
        let url = endpoint_url(api_url, endpoint);
        let _ = (method, body, within);
        Err(CliError::failed(format!("failed to reach {url}")).exit(Exit::Unreachable))
    }

    /// A member's `/patroni`, if it answers.
    pub async fn ask(&self, api_url: &str) -> Option<Value> {
        let answer = self.call("GET", api_url, "/patroni", None, ASK_WITHIN).await.ok()?;
        serde_json::from_str(&answer.body).ok()
    }

    /// Calls the leader, then every other member, until one answers.
    pub async fn call_any(
        &self,
        view: &ClusterView,
        method: &str,
        endpoint: &str,
        body: &Value,
    ) -> Result<Answer, CliError> {
        let leader = view.leader.as_ref().map(|leader| &leader.name);
        let mut order: Vec<(&MemberName, &str)> = view
            .members
            .iter()
            .filter_map(|(name, member)| Some((name, member.record.api_url.as_deref()?)))
            .collect();
        order.sort_by_key(|(name, _)| Some(*name) != leader);
        let mut last = None;
        for (_, api_url) in order {
            match self.call(method, api_url, endpoint, Some(body), ORDER_WITHIN).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| {
            CliError::failed("the cluster has no member that could be asked").exit(Exit::Unreachable)
        }))
    }
}

/// The URL of `endpoint` at the host of `api_url`, which ends in `/patroni`.
fn endpoint_url(api_url: &str, endpoint: &str) -> String {
    let (scheme, rest) = api_url.split_once("://").unwrap_or(("http", api_url));
    let host = rest.split('/').next().unwrap_or(rest);
    format!("{scheme}://{host}{endpoint}")
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
    fn endpoints_hang_on_the_host() {
        assert_eq!(endpoint_url("https://a:8008/patroni", "/restart"), "https://a:8008/restart");
        assert_eq!(endpoint_url("http://[::1]:8008/patroni", "/"), "http://[::1]:8008/");
    }
}
