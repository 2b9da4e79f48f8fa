//! The section `restapi`.

use std::fmt;

use super::local::{self, Address, Credentials};
use super::reader::{Findings, Section};

/// `restapi`.
#[derive(Clone, Debug)]
pub struct RestApi {
    /// Where to listen.
    pub listen: Address,
    /// How others reach it.
    pub connect_address: Address,
    /// User and password that a change needs; none when `None`.
    pub authentication: Option<Credentials>,
    /// Networks and hosts that may change something; everybody when empty.
    pub allowlist: Vec<String>,
    /// Members may always change something, and others only if they are listed.
    pub allowlist_include_members: bool,
    /// Without any of the three above everybody may change something, as in Patroni.
    pub allow_unauthenticated_writes: bool,
    /// The `Server` header: `original`, `minimal` or `productonly`.
    pub server_tokens: String,
    /// Headers added to every answer.
    pub http_extra_headers: Vec<(String, String)>,
}

/// Which requests that change something the REST interface takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteAccess {
    /// Those that the configured credentials or list admit.
    Configured,
    /// Those of this machine and of the members: nothing is configured.
    LocalAndMembers,
    /// All: nothing is configured, and `allow_unauthenticated_writes` says that this is meant.
    Everybody,
}

impl RestApi {
    /// What the section says about requests that change something.
    pub fn write_access(&self) -> WriteAccess {
        let open =
            self.authentication.is_none() && self.allowlist.is_empty() && !self.allowlist_include_members;
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
                "REST requests that change something are taken as `restapi` says: with its credentials, from its list"
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
pub(super) fn read(top: &mut Section<'_>, findings: &mut Findings) -> RestApi {
    let mut rest = top.section("restapi", findings);
    let listen = local::address(&mut rest, "listen", None, true, findings);
    let connect_address = match rest.get("connect_address") {
        Some(_) => local::address(&mut rest, "connect_address", None, false, findings),
        None => listen.clone(),
    };
    let authentication =
        local::credentials(rest.section("authentication", findings), findings).or_else(|| {
            let (username, password) = rest
                .text("auth", findings)?
                .split_once(':')
                .map(|(user, word)| (user.into(), word.into()))?;
            Some(Credentials { username, password })
        });
    let http_extra_headers = rest.parameters("http_extra_headers", findings);
    for key in ["certfile", "cafile", "verify_client"] {
        if let Some(node) = rest.get(key) {
            rest.warn(key, node, "TLS for REST is not built yet: this key is not acted on", findings);
        }
    }
    let rest_api = RestApi {
        listen,
        connect_address,
        authentication,
        allowlist: rest.list("allowlist", true, findings).unwrap_or_default(),
        allowlist_include_members: rest.flag("allowlist_include_members", false, findings),
        allow_unauthenticated_writes: rest.flag("allow_unauthenticated_writes", false, findings),
        server_tokens: rest.text("server_tokens", findings).unwrap_or_else(|| "original".to_owned()),
        http_extra_headers,
    };
    if let (WriteAccess::Configured, true, Some(node)) = (
        rest_api.write_access(),
        rest_api.allow_unauthenticated_writes,
        rest.get("allow_unauthenticated_writes"),
    ) {
        let expected = "remove it: credentials or a list are set, and they count";
        rest.warn("allow_unauthenticated_writes", node, expected, findings);
    }
    rest.accept(&["keyfile", "keyfile_password", "ciphers", "https_extra_headers"]);
    rest.accept(&["request_queue_size", "thread_pool_size"]);
    rest.finish(findings);
    rest_api
}
