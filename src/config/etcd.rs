//! The section `etcd3`, or `etcd`.

use std::path::PathBuf;

use super::local::{Address, Credentials};
use super::reader::{ConfigFindings, Section};

/// `etcd3`, or `etcd`.
#[derive(Clone, Debug, Default)]
pub struct EtcdConfig {
    /// URLs.
    pub endpoints: Vec<String>,
    /// User and password, if etcd requires them.
    pub credentials: Option<Credentials>,
    /// The authorities to trust.
    pub cacert: Option<PathBuf>,
    /// The client certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// Reads the section.
pub(super) fn read(top: &mut Section<'_>, findings: &mut ConfigFindings) -> EtcdConfig {
    let key = if top.get("etcd3").is_some() || top.get("etcd").is_none() { "etcd3" } else { "etcd" };
    let mut etcd = top.section(key, findings);
    let expected = "write the addresses of etcd, as in `etcd3: {hosts: \"10.0.0.1:2379,10.0.0.2:2379\"}`";
    if !etcd.is_there() {
        if top.get(key).is_none() {
            top.missing(key, expected, findings);
        }
        return EtcdConfig::default();
    }
    let protocol = etcd.text("protocol", findings).unwrap_or_else(|| "http".to_owned());
    let mut hosts = etcd.list("hosts", true, findings).unwrap_or_default();
    hosts.extend(etcd.text("host", findings));
    hosts.extend(etcd.text("url", findings).or(etcd.text("proxy", findings)));
    let mut login = None;
    let endpoints: Vec<String> =
        hosts.iter().map(|host| endpoint(&without_login(host, &mut login), &protocol)).collect();
    for key in ["srv", "srv_suffix", "discovery_srv", "srv_domain"] {
        if let Some(node) = etcd.get(key) {
            etcd.fault(
                key,
                node,
                "discovery by DNS is not built: list the endpoints under `hosts`",
                findings,
            );
        }
    }
    if endpoints.is_empty() {
        etcd.missing("hosts", expected, findings);
    }
    let given = etcd.text("username", findings).zip(etcd.text("password", findings));
    let given = given.map(|(username, password)| Credentials { username, password });
    let file = |text: Option<String>| text.map(PathBuf::from);
    let read = EtcdConfig {
        endpoints,
        credentials: given.or(login),
        cacert: file(etcd.text("cacert", findings)),
        cert: file(etcd.text("cert", findings)),
        key: file(etcd.text("key", findings)),
    };
    etcd.accept(&["use_proxies"]);
    etcd.finish(findings);
    read
}

/// A URL without `USER:PASSWORD@`, which is stored separately so that it is never printed.
fn without_login(host: &str, login: &mut Option<Credentials>) -> String {
    let Some((scheme, rest)) = host.split_once("://") else { return host.to_owned() };
    let Some((who, place)) = rest.rsplit_once('@') else { return host.to_owned() };
    let (username, password) = who.split_once(':').unwrap_or((who, ""));
    *login = Some(Credentials { username: username.to_owned(), password: password.to_owned() });
    format!("{scheme}://{place}")
}

fn endpoint(host: &str, protocol: &str) -> String {
    let host = host.trim().trim_end_matches('/');
    match (host.contains("://"), Address::parse(host, Some(2379))) {
        (false, Some(address)) => format!("{protocol}://{address}"),
        (_, _) => host.to_owned(),
    }
}
