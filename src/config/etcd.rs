//! The section `etcd3`, or `etcd`.

use std::path::PathBuf;

use super::local::{Address, Credentials};
use super::reader::{ConfigFindings, Section};

/// `etcd3`, or `etcd`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EtcdConfig {
    /// URLs.
    pub endpoints: Vec<String>,
    /// The domain whose SRV records name them, and the suffix of the service.
    pub srv: Option<(String, Option<String>)>,
    /// The URLs that etcd's members announce are used as well.
    pub with_announced: bool,
    /// User and password, if etcd requires them.
    pub credentials: Option<Credentials>,
    /// The authorities to trust.
    pub cacert: Option<PathBuf>,
    /// The client certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

impl EtcdConfig {
    /// Whether only the credentials differ.
    pub fn is_same_etcd(&self, other: &EtcdConfig) -> bool {
        EtcdConfig { credentials: other.credentials.clone(), ..self.clone() } == *other
    }
}

/// The key of the domain with SRV records, and its older names.
const SRV: [&str; 3] = ["srv", "discovery_srv", "srv_domain"];

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
    let mut login = None;
    let mut url = |host: &String| endpoint(&without_login(host, &mut login), &protocol);
    let proxy = etcd.text("proxy", findings);
    let mut hosts = etcd.list("hosts", true, findings).unwrap_or_default();
    hosts.extend(etcd.text("host", findings));
    hosts.extend(etcd.text("url", findings));
    let mut srv = None;
    for key in SRV {
        srv = srv.or(etcd.text(key, findings).filter(|domain| !domain.trim().is_empty()));
    }
    let suffix = etcd.text("srv_suffix", findings).filter(|suffix| !suffix.is_empty());
    let endpoints: Vec<String> = match &proxy {
        Some(proxy) => vec![url(proxy)],
        None => hosts.iter().map(url).collect(),
    };
    if proxy.is_some() {
        let instead = "the proxy is the only endpoint";
        let keys = ["hosts", "host", "url"].into_iter().chain(SRV).map(|key| (key, instead));
        etcd.without_effect(&keys.collect::<Vec<_>>(), findings);
        srv = None;
    } else if srv.is_none() {
        if suffix.is_some() {
            etcd.without_effect(&[("srv_suffix", "write the domain under `srv`")], findings);
        }
        if endpoints.is_empty() {
            etcd.missing("hosts", expected, findings);
        }
    }
    let given = etcd.text("username", findings).zip(etcd.text("password", findings));
    let given = given.map(|(username, password)| Credentials { username, password });
    let file = |text: Option<String>| text.map(PathBuf::from);
    let read = EtcdConfig {
        endpoints,
        srv: srv.map(|domain| (domain, suffix)),
        with_announced: !etcd.flag("use_proxies", false, findings) && proxy.is_none(),
        credentials: given.or(login),
        cacert: file(etcd.text("cacert", findings)),
        cert: file(etcd.text("cert", findings)),
        key: file(etcd.text("key", findings)),
    };
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
