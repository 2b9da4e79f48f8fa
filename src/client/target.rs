//! The target cluster of a command: from `--dcs-url`, the configuration file and the environment.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::error::ClientError;
use crate::config::{self, Address, Ctl, KeyfilePassword};
use crate::etcd::{EtcdSetup, SrvDomain, TlsFiles};
use crate::model::json_one_line;

const NAMESPACE_DEFAULT: &str = "service";

/// The address of a cluster, and the login.
#[derive(Clone, Default)]
pub struct Target {
    /// The cluster's name.
    pub scope: String,
    /// Its etcd.
    pub etcd: EtcdSetup,
    /// User and password for the members' REST.
    pub credentials: Option<(String, String)>,
    /// The certificates for members' REST, and the client's own.
    pub ctl: Ctl,
}

impl Target {
    /// The cluster in the configuration at `path`, the environment, `dcs_url` or `cluster`. The file is read leniently:
    /// patronictl's own file has neither a member's name nor a PostgreSQL section, and `check` reports faults.
    ///
    /// # Errors
    /// The file cannot be read, or a required setting is missing.
    pub fn find(
        path: Option<&Path>,
        environment: &BTreeMap<String, String>,
        dcs_url: Option<&str>,
        cluster: Option<&str>,
    ) -> Result<Target, ClientError> {
        let document = path.map_or(Ok(Value::Null), document)?;
        let settings = TargetSettings { document, environment: config::canonical(environment) };
        from_settings(&settings, dcs_url, cluster)
    }

    /// The cluster `scope` in the default namespace of an etcd without credentials.
    pub fn plain(scope: &str, endpoints: Vec<String>, credentials: Option<(String, String)>) -> Target {
        let etcd = EtcdSetup { endpoints, base: base(NAMESPACE_DEFAULT, scope), ..EtcdSetup::default() };
        Target { scope: scope.to_owned(), etcd, credentials, ctl: Ctl::default() }
    }
}

fn document(path: &Path) -> Result<Value, ClientError> {
    let fault = |source: Box<dyn Error + Send + Sync>| ClientError::File { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(|error| fault(error.into()))?;
    // Of duplicate keys the last one counts, as where the member reads the file.
    let options = serde_saphyr::options! { duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins };
    serde_saphyr::from_str_with_options(&text, options).map_err(|error| fault(error.into()))
}

/// A configuration as written, and the environment that overrides it.
struct TargetSettings {
    document: Value,
    environment: BTreeMap<String, String>,
}

impl TargetSettings {
    /// The value at `path`, or of the variable `PATRONI_A_B`.
    fn get(&self, path: &[&str]) -> Option<Value> {
        let variable = format!("PATRONI_{}", path.join("_").to_uppercase());
        if let Some(text) = self.environment.get(&variable) {
            return Some(Value::String(text.clone()));
        }
        let mut node = &self.document;
        for key in path {
            node = node.get(key)?;
        }
        (!node.is_null()).then(|| node.clone())
    }

    fn text(&self, path: &[&str]) -> Option<String> {
        self.get(path).map(|value| json_one_line(&value)).filter(|text| !text.is_empty())
    }

    fn file(&self, path: &[&str]) -> Option<PathBuf> {
        self.text(path).map(PathBuf::from)
    }

    /// A pair of user and password.
    fn login(&self, section: &[&str]) -> Option<(String, String)> {
        let part = |name| self.text(&[section, &[name]].concat());
        Some((part("username")?, part("password")?))
    }

    /// The login of a section for REST. Old files have it as `auth: USER:PASSWORD`.
    fn rest_login(&self, section: &str) -> Option<(String, String)> {
        let in_one = || {
            let text = self.text(&[section, "auth"])?;
            text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
        };
        self.login(&[section, "authentication"]).or_else(in_one)
    }

    /// The domain with SRV records of etcd.
    fn srv(&self, section: &str) -> Option<SrvDomain> {
        if self.text(&[section, "proxy"]).is_some() {
            return None;
        }
        let keys = ["srv", "discovery_srv", "srv_domain"];
        let domain = keys.iter().find_map(|key| self.text(&[section, key]))?;
        Some(SrvDomain { domain, suffix: self.text(&[section, "srv_suffix"]) })
    }

    /// etcd's addresses, from `proxy`, `hosts`, `host` or `url`.
    fn endpoints(&self, section: &str) -> Vec<String> {
        let scheme = self.text(&[section, "protocol"]).unwrap_or_else(|| "http".to_owned());
        let proxy = self.text(&[section, "proxy"]);
        let listed = match proxy.map(Value::String).or_else(|| self.get(&[section, "hosts"])) {
            Some(Value::Array(hosts)) => hosts.iter().map(json_one_line).collect(),
            Some(hosts) => hosts.as_str().map_or_else(|| vec![json_one_line(&hosts)], config::list_items),
            None => ["host", "url"].iter().filter_map(|key| self.text(&[section, key])).take(1).collect(),
        };
        let url = |host: String| {
            let host = host.trim().trim_matches(['\'', '"']);
            if host.contains("://") { host.to_owned() } else { format!("{scheme}://{}", with_port(host)) }
        };
        let listed: Vec<String> = listed;
        listed.into_iter().filter(|host| !host.is_empty()).map(url).collect()
    }
}

fn from_settings(
    settings: &TargetSettings,
    dcs_url: Option<&str>,
    cluster: Option<&str>,
) -> Result<Target, ClientError> {
    let scope =
        cluster.map(str::to_owned).or_else(|| settings.text(&["scope"])).ok_or(ClientError::NoCluster)?;
    let mut namespace = settings.text(&["namespace"]).unwrap_or_else(|| NAMESPACE_DEFAULT.to_owned());
    let is_empty = |section| settings.endpoints(section).is_empty() && settings.srv(section).is_none();
    let section = if is_empty("etcd3") { "etcd" } else { "etcd3" };
    let mut endpoints = settings.endpoints(section);
    let srv = settings.srv(section).filter(|_| dcs_url.is_none());
    if let Some(url) = dcs_url {
        let (endpoint, named) = parse_url(url)?;
        endpoints = vec![endpoint];
        namespace = named.unwrap_or(namespace);
    }
    if endpoints.is_empty() && srv.is_none() {
        return Err(ClientError::NoEtcd);
    }
    // A URL replaces the section, with its login and its certificates.
    let file = |name| settings.file(&[section, name]).filter(|_| dcs_url.is_none());
    let tls = TlsFiles { ca: file("cacert"), cert: file("cert"), key: file("key") };
    let etcd = EtcdSetup {
        endpoints,
        srv,
        with_announced: false,
        credentials: settings.login(&[section]).filter(|_| dcs_url.is_none()),
        tls: (tls != TlsFiles::default()).then_some(tls),
        base: base(&namespace, &scope),
    };
    let rest = settings.rest_login("ctl").or_else(|| settings.rest_login("restapi"));
    let from_environment = || settings.login(&["restapi"]);
    Ok(Target { scope, etcd, credentials: rest.or_else(from_environment), ctl: ctl(settings) })
}

/// The certificates for calls to members; the default CA file is `restapi.cafile`.
fn ctl(settings: &TargetSettings) -> Ctl {
    let cacert = settings.file(&["ctl", "cacert"]).or_else(|| settings.file(&["restapi", "cafile"]));
    let insecure = settings.text(&["ctl", "insecure"]);
    Ctl {
        // The target has the login.
        authentication: None,
        insecure: insecure
            .is_some_and(|text| matches!(text.to_lowercase().as_str(), "true" | "on" | "yes" | "1")),
        cacert,
        certfile: settings.file(&["ctl", "certfile"]),
        keyfile: settings.file(&["ctl", "keyfile"]),
        keyfile_password: settings.text(&["ctl", "keyfile_password"]).map(KeyfilePassword),
    }
}

/// `etcd3://HOST:PORT/NAMESPACE` as an endpoint and a namespace.
fn parse_url(url: &str) -> Result<(String, Option<String>), ClientError> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("etcd3", url));
    let scheme = match scheme {
        "etcd" | "etcd3" | "http" => "http",
        "https" => "https",
        other => return Err(ClientError::UnknownStore(other.to_owned())),
    };
    let (host, namespace) = rest.split_once('/').unwrap_or((rest, ""));
    let namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
    Ok((format!("{scheme}://{}", with_port(host)), namespace))
}

/// A host with its port, which is etcd's where none is given.
fn with_port(host: &str) -> String {
    Address::parse(host, Some(2379)).map_or_else(|| host.to_owned(), |address| address.to_string())
}

/// `/NAMESPACE/SCOPE/`, with single slashes.
fn base(namespace: &str, scope: &str) -> String {
    let parts: Vec<&str> = namespace.split('/').filter(|part| !part.is_empty()).chain([scope]).collect();
    format!("/{}/", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_dcs_urls() {
        let read = |url: &str| parse_url(url).expect("a url");
        assert_eq!(read("etcd3://h:1/n"), ("http://h:1".into(), Some("n".into())));
        assert_eq!(read("h"), ("http://h:2379".into(), None));
        assert_eq!(read("https://[::1]/n"), ("https://[::1]:2379".into(), Some("n".into())));
        assert!(parse_url("zookeeper://h").is_err());
        assert_eq!(base("/a//b/", "c"), "/a/b/c/");
    }

    #[test]
    fn reads_files_and_the_environment_leniently() {
        let yaml = "scope: c\netcd3:\n  hosts: [a:1, b]\n  username: u\n  password: p\n\
                    restapi:\n  authentication: {username: r, password: s}\n";
        let document = serde_saphyr::from_str(yaml).expect("yaml");
        let mut settings = TargetSettings { document, environment: BTreeMap::new() };
        let target = from_settings(&settings, None, None).expect("a target");
        assert_eq!(target.etcd.endpoints, ["http://a:1", "http://b:2379"]);
        assert_eq!((target.scope.as_str(), target.etcd.base.as_str()), ("c", "/service/c/"));
        assert_eq!(target.etcd.credentials, Some(("u".into(), "p".into())));
        assert_eq!(target.credentials, Some(("r".into(), "s".into())));
        let elsewhere = from_settings(&settings, Some("etcd3://h:1"), None).expect("a target");
        assert_eq!((elsewhere.etcd.credentials, elsewhere.credentials), (None, target.credentials));
        settings.environment.insert("PATRONI_ETCD3_HOSTS".into(), "'x:1', y:2".into());
        let target = from_settings(&settings, None, Some("d")).expect("a target");
        assert_eq!(target.etcd.endpoints, ["http://x:1", "http://y:2"]);
        assert_eq!(target.etcd.base, "/service/d/");
        for (hosts, expected) in [
            ("[x:1, y:2]", ["http://x:1", "http://y:2"]),
            ("[::1]:1,[::2]", ["http://[::1]:1", "http://[::2]:2379"]),
            ("[::1],[::2]", ["http://[::1]:2379", "http://[::2]:2379"]),
            ("[[::1]:1, 'https://y:2']", ["http://[::1]:1", "https://y:2"]),
        ] {
            settings.environment.insert("PATRONI_ETCD3_HOSTS".into(), hosts.into());
            let target = from_settings(&settings, None, Some("d")).expect("a target");
            assert_eq!(target.etcd.endpoints, expected, "{hosts}");
        }
        settings.document = serde_saphyr::from_str("ctl: {auth: 'a:b:c'}").expect("yaml");
        let target = from_settings(&settings, None, Some("d")).expect("a target");
        assert_eq!(target.credentials, Some(("a".into(), "b:c".into())));
        settings.document = serde_saphyr::from_str("etcd3: {srv: example.org, srv_suffix: x}").expect("yaml");
        settings.environment.clear();
        let target = from_settings(&settings, None, Some("d")).expect("a target");
        let srv = SrvDomain { domain: "example.org".into(), suffix: Some("x".into()) };
        assert_eq!((target.etcd.srv, target.etcd.endpoints.len()), (Some(srv), 0));
        settings.environment.insert("PATRONI_ETCD3_PROXY".into(), "http://p:1".into());
        let target = from_settings(&settings, None, Some("d")).expect("a target");
        assert_eq!((target.etcd.srv, target.etcd.endpoints), (None, vec!["http://p:1".to_owned()]));
        let nothing = TargetSettings { document: Value::Null, environment: BTreeMap::new() };
        assert!(from_settings(&nothing, None, Some("d")).is_err());
        assert!(from_settings(&nothing, Some("etcd3://h:1"), Some("d")).is_ok());
    }
}
