//! The sections `restapi` and `ctl`.

use std::fmt;
use std::path::PathBuf;

use super::ciphers;
use super::local::{self, Address, Credentials};
use super::reader::{ConfigFindings, Section};

/// `restapi`.
#[derive(Clone, Debug)]
pub struct RestApi {
    /// The listen address.
    pub listen: Address,
    /// The address for other members and clients.
    pub connect_address: Address,
    /// User and password for changes; not required when `None`.
    pub authentication: Option<Credentials>,
    /// Networks and hosts that may make changes; all when empty.
    pub allowlist: Vec<String>,
    /// Members may always make changes, and others only if they are listed.
    pub allowlist_include_members: bool,
    /// Whether all clients may make changes if none of the three above is set, as in Patroni.
    pub allow_unauthenticated_writes: bool,
    /// Whether the web page at `/ui` is served.
    pub ui: bool,
    /// The `Server` header: `original`, `minimal` or `productonly`.
    pub server_tokens: String,
    /// Headers added to every answer.
    pub http_extra_headers: Vec<(String, String)>,
    /// Serve HTTPS; plain HTTP when `None`.
    pub tls: Option<RestTls>,
    /// The authorities of clients, and of members where `ctl.certfile` is set and `ctl.cacert` is not.
    pub cafile: Option<PathBuf>,
}

/// The files of `restapi` that make it HTTPS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestTls {
    /// The certificate, with its intermediate certificates.
    pub certfile: PathBuf,
    /// The key; by default in the same file.
    pub keyfile: PathBuf,
    /// The password of the key.
    pub keyfile_password: Option<KeyfilePassword>,
    /// The ciphers of TLS 1.2, by their names in OpenSSL; all when `None`.
    pub ciphers: Option<Vec<&'static str>>,
    /// The certificate that clients have to present.
    pub verify_client: VerifyClient,
}

/// The password of a private key. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyfilePassword(pub String);

impl fmt::Debug for KeyfilePassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// `restapi.verify_client`, with the authorities of `restapi.cafile`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyClient {
    /// None.
    No,
    /// A certificate for requests that make changes.
    Optional(PathBuf),
    /// A certificate for each connection.
    Required(PathBuf),
}

/// `ctl`: how the command line, and members, call members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ctl {
    /// User and password that members accept; `None`: those of `restapi`.
    pub authentication: Option<Credentials>,
    /// The certificates of members are not verified.
    pub insecure: bool,
    /// The authorities of members.
    pub cacert: Option<PathBuf>,
    /// The client certificate.
    pub certfile: Option<PathBuf>,
    /// Its key; by default in the same file.
    pub keyfile: Option<PathBuf>,
    /// The password of the key.
    pub keyfile_password: Option<KeyfilePassword>,
}

/// Which requests that make changes the REST interface accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteAccess {
    /// Those that the configured credentials, list or certificates admit.
    Configured,
    /// Those from this machine and from members, because nothing is configured.
    LocalAndMembers,
    /// All: nothing is configured, and `allow_unauthenticated_writes` confirms that.
    Everybody,
}

impl RestApi {
    /// The rule for requests that make changes.
    pub fn write_access(&self) -> WriteAccess {
        let certificates = self.tls.as_ref().is_some_and(|tls| tls.verify_client != VerifyClient::No);
        let listed = !self.allowlist.is_empty() || self.allowlist_include_members;
        let open = self.authentication.is_none() && !listed && !certificates;
        match (open, self.allow_unauthenticated_writes) {
            (false, _) => WriteAccess::Configured,
            (true, false) => WriteAccess::LocalAndMembers,
            (true, true) => WriteAccess::Everybody,
        }
    }
}

impl fmt::Display for WriteAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WriteAccess::Configured => {
                "REST requests that change something are taken as `restapi` says: with its credentials or a certificate, from its \
                 list"
            }
            WriteAccess::LocalAndMembers => {
                "REST requests that change something are taken from this machine and from members of the cluster only: \
                 set `restapi.authentication` or `restapi.allowlist` to take them from elsewhere"
            }
            WriteAccess::Everybody => {
                "REST requests that change something are taken from everybody who reaches the port, and \
                 `archive_command` is a program that they may choose: set `restapi.authentication`, and remove \
                 `restapi.allow_unauthenticated_writes`"
            }
        })
    }
}

/// Reads the section.
pub(super) fn read(top: &mut Section<'_>, findings: &mut ConfigFindings) -> RestApi {
    let mut rest = top.section("restapi", findings);
    let listen = local::address(&mut rest, "listen", None, true, findings);
    let connect_address = local::connect_address(&mut rest, &listen, (listen.clone(), None), findings);
    let authentication = authentication(&mut rest, findings);
    let http_extra_headers = rest.parameters("http_extra_headers", findings);
    let https_extra_headers = rest.parameters("https_extra_headers", findings);
    let cafile = rest.text("cafile", findings).map(PathBuf::from);
    let tls = tls(&mut rest, cafile.as_ref(), findings);
    let rest_api = RestApi {
        listen,
        connect_address,
        authentication,
        allowlist: rest.list("allowlist", true, findings).unwrap_or_default(),
        allowlist_include_members: rest.flag("allowlist_include_members", false, findings),
        allow_unauthenticated_writes: rest.flag("allow_unauthenticated_writes", false, findings),
        ui: rest.flag("ui", true, findings),
        server_tokens: rest.text("server_tokens", findings).unwrap_or_else(|| "original".to_owned()),
        http_extra_headers: match tls {
            // A later header replaces an earlier one with the same name.
            Some(_) => [http_extra_headers, https_extra_headers].concat(),
            None => http_extra_headers,
        },
        tls,
        cafile,
    };
    if let (WriteAccess::Configured, true, Some(node)) = (
        rest_api.write_access(),
        rest_api.allow_unauthenticated_writes,
        rest.get("allow_unauthenticated_writes"),
    ) {
        let expected = "remove it: credentials or a list are set, and they count";
        rest.warn("allow_unauthenticated_writes", node, expected, findings);
    }
    let sizes = "how many connections and requests are taken at once is fixed";
    rest.without_effect(&[("request_queue_size", sizes), ("thread_pool_size", sizes)], findings);
    rest.accept(&["keyfile", "keyfile_password", "verify_client", "ciphers"]);
    rest.finish(findings);
    rest_api
}

/// Without a certificate there is no TLS, whatever the other settings.
fn tls(rest: &mut Section<'_>, cafile: Option<&PathBuf>, findings: &mut ConfigFindings) -> Option<RestTls> {
    let wanted = rest.get("verify_client");
    let Some(certfile) = rest.text("certfile", findings).map(PathBuf::from) else {
        for key in ["keyfile", "keyfile_password", "verify_client", "ciphers"] {
            if let Some(node) = rest.get(key) {
                rest.warn(
                    key,
                    node,
                    "without `certfile` there is no TLS, and this key has no effect",
                    findings,
                );
            }
        }
        return None;
    };
    let keyfile = rest.text("keyfile", findings).map_or_else(|| certfile.clone(), PathBuf::from);
    let word = rest.text("verify_client", findings).unwrap_or_else(|| "none".to_owned());
    let verify_client = match (word.to_ascii_lowercase().as_str(), cafile) {
        ("none" | "", _) => VerifyClient::No,
        ("optional", Some(path)) => VerifyClient::Optional(path.clone()),
        ("required", Some(path)) => VerifyClient::Required(path.clone()),
        ("optional" | "required", None) => {
            let expected =
                "name a file with the authorities of the clients' certificates, for `verify_client`";
            rest.missing("cafile", expected, findings);
            VerifyClient::No
        }
        (_, _) => {
            if let Some(node) = wanted {
                rest.fault("verify_client", node, "write none, optional or required", findings);
            }
            VerifyClient::No
        }
    };
    let keyfile_password = rest.text("keyfile_password", findings).map(KeyfilePassword);
    let ciphers = ciphers(rest, findings);
    Some(RestTls { certfile, keyfile, keyfile_password, ciphers, verify_client })
}

/// The chosen ciphers of TLS 1.2. Those of TLS 1.3 are always spoken, as with OpenSSL.
fn ciphers(rest: &mut Section<'_>, findings: &mut ConfigFindings) -> Option<Vec<&'static str>> {
    let (node, list) = (rest.get("ciphers")?, rest.text("ciphers", findings)?);
    let choice = ciphers::choose(&list);
    if choice.chosen.is_empty() {
        let expected = format!("no cipher of TLS 1.2 is left: choose among {}", ciphers::known());
        rest.fault("ciphers", node, &expected, findings);
    } else if !choice.unknown.is_empty() {
        let expected =
            format!("{} is not spoken here; there are {}", choice.unknown.join(", "), ciphers::known());
        rest.warn("ciphers", node, &expected, findings);
    }
    Some(choice.chosen)
}

/// `authentication`, or in its place the older `auth`.
fn authentication(section: &mut Section<'_>, findings: &mut ConfigFindings) -> Option<Credentials> {
    local::credentials(section.section("authentication", findings), findings).or_else(|| {
        let auth = section.text("auth", findings)?;
        let (username, password) = auth.split_once(':')?;
        Some(Credentials { username: username.to_owned(), password: password.to_owned() })
    })
}

/// Reads the section `ctl`.
pub(super) fn read_ctl(top: &mut Section<'_>, findings: &mut ConfigFindings) -> Ctl {
    let mut ctl = top.section("ctl", findings);
    let mut file = |key| ctl.text(key, findings).map(PathBuf::from);
    let (cacert, certfile, keyfile) = (file("cacert"), file("certfile"), file("keyfile"));
    let keyfile_password = ctl.text("keyfile_password", findings).map(KeyfilePassword);
    let insecure = ctl.flag("insecure", false, findings);
    let authentication = authentication(&mut ctl, findings);
    let read = Ctl { authentication, insecure, cacert, certfile, keyfile, keyfile_password };
    ctl.finish(findings);
    read
}
