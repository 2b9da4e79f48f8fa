//! Who may send unsafe requests: allowlist, then client certificate, then basic authentication; where none of these is
//! configured, this machine and the members.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use ipnet::IpNet;
use subtle::ConstantTimeEq;

use super::answer::HttpAnswer;
use super::dispatch::Caller;
use super::{ApiSetup, addresses, wire};
use crate::model::ClusterView;

/// The credentials of a request.
pub(super) struct RequestCredentials<'a> {
    pub(super) caller: Caller,
    /// The header `Authorization`.
    pub(super) authorization: Option<&'a str>,
    /// Whether this route admits members by their address.
    pub(super) members_welcome: bool,
    /// Whether a proxy, for example one beside this member, forwarded the request: the connection's address tells
    /// nothing then.
    pub(super) is_passed_on: bool,
}

/// Headers that proxies add (RFC 7239, RFC 9110 section 7.6.3, and custom).
const PASSED_ON: [&str; 5] = ["forwarded", "via", "x-forwarded-for", "x-real-ip", "x-envoy-external-address"];

/// Whether a proxy has forwarded the request.
pub(super) fn is_passed_on(headers: &HeaderMap) -> bool {
    PASSED_ON.iter().any(|name| headers.contains_key(*name))
}

/// Admits requests by the rules of `setup`; `view` has the members' addresses.
pub(super) async fn check(
    setup: &ApiSetup,
    credentials: &RequestCredentials<'_>,
    view: Option<&ClusterView>,
) -> Result<(), HttpAnswer> {
    if setup.names_nobody() {
        let near = async { !credentials.is_passed_on && is_near(credentials.caller, view).await };
        let welcome = setup.allow_unauthenticated_writes || near.await;
        return if welcome { Ok(()) } else { Err(HttpAnswer::text(403, unnamed(credentials))) };
    }
    if !listed(setup, credentials, view).await {
        return Err(HttpAnswer::text(403, "Access is denied"));
    }
    if setup.demands_certificate() && !credentials.caller.certified {
        return Err(HttpAnswer::text(403, "client certificate required"));
    }
    authenticate(setup, credentials.authorization)
}

/// Whether the caller is on this machine or on a member's.
async fn is_near(caller: Caller, view: Option<&ClusterView>) -> bool {
    if caller.is_local {
        return true;
    }
    let hosts = view.map(addresses::hosts).unwrap_or_default();
    any_resolves_to(hosts.iter(), caller.address).await
}

/// The refusal of a caller from elsewhere, if no setting admits any.
fn unnamed(credentials: &RequestCredentials<'_>) -> String {
    let who = if credentials.is_passed_on { "whoever sent this through a proxy at " } else { "" };
    format!(
        "Access is denied: {who}{} is neither this machine nor a member of the cluster, and no setting here says who else \
         may change something. Set restapi.authentication (and send its user and password), restapi.allowlist, \
         restapi.allowlist_include_members, or restapi.verify_client with TLS; or restapi.allow_unauthenticated_writes: true \
         where everybody may, as with Patroni",
        credentials.caller.address
    )
}

fn authenticate(setup: &ApiSetup, header: Option<&str>) -> Result<(), HttpAnswer> {
    let Some((user, password)) = &setup.credentials else {
        return Ok(());
    };
    let Some(header) = header else {
        return Err(HttpAnswer::unauthorized("no auth header received"));
    };
    let given = header.strip_prefix("Basic ").and_then(|text| STANDARD.decode(text.trim()).ok());
    match given {
        Some(given) if same(&given, format!("{user}:{password}").as_bytes()) => Ok(()),
        Some(_) | None => Err(HttpAnswer::unauthorized("not authenticated")),
    }
}

/// Compares in a time that depends on the lengths alone.
fn same(given: &[u8], expected: &[u8]) -> bool {
    given.ct_eq(expected).into()
}

async fn listed(setup: &ApiSetup, credentials: &RequestCredentials<'_>, view: Option<&ClusterView>) -> bool {
    let by_members = setup.allowlist_include_members && credentials.members_welcome;
    if setup.allowlist.is_empty() && !by_members {
        return true;
    }
    let address = credentials.caller.address;
    let mut hosts: Vec<String> = Vec::new();
    for entry in &setup.allowlist {
        match network(entry) {
            Some(network) if network.contains(&address) => return true,
            Some(_) => {}
            None => hosts.push(entry.clone()),
        }
    }
    if let Some(view) = view.filter(|_| by_members) {
        let urls = view.members.values().filter_map(|member| member.record.api_url.as_deref());
        hosts.extend(urls.filter_map(|url| Some(wire::address(url)?.0)));
    }
    any_resolves_to(hosts.iter(), address).await
}

async fn any_resolves_to(hosts: impl Iterator<Item = &String>, address: IpAddr) -> bool {
    futures::future::join_all(hosts.map(|host| resolves_to(host, address))).await.contains(&true)
}

async fn resolves_to(host: &str, address: IpAddr) -> bool {
    addresses::resolve(host).await.contains(&address)
}

/// `10.0.0.0/8`, `fd00::/8` or one address.
fn network(text: &str) -> Option<IpNet> {
    let text = text.trim();
    text.parse().ok().or_else(|| text.parse().map(IpAddr::into).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(address: &str, is_local: bool) -> Caller {
        Caller { address: address.parse().expect("an address"), is_local, is_member: false, certified: false }
    }

    async fn outcome(
        setup: &ApiSetup,
        caller: Caller,
        view: Option<&ClusterView>,
    ) -> Result<(), (u16, String)> {
        let credentials =
            RequestCredentials { caller, authorization: None, members_welcome: true, is_passed_on: false };
        check(setup, &credentials, view)
            .await
            .map_err(|answer| (answer.status, String::from_utf8_lossy(&answer.body).into_owned()))
    }

    /// Without a configuration, not everybody may set `archive_command`.
    #[tokio::test]
    async fn without_a_setting_only_this_machine_and_members_may_write() {
        let view = crate::api::tests::view();
        let setup = ApiSetup::default();
        for (from, is_local, may) in [
            ("192.0.2.7", false, false),
            ("192.0.2.7", true, true),
            // Hosts of `conn_url` of n1 and n2, and of both `api_url`s.
            ("10.0.0.1", false, true),
            ("fd00::2", false, true),
            ("127.0.0.1", false, true),
            ("10.0.0.2", false, false),
        ] {
            let found = outcome(&setup, caller(from, is_local), Some(&view)).await;
            match found {
                Ok(()) => assert!(may, "{from}"),
                Err((code, text)) => {
                    assert!(!may && code == 403, "{from}: {text}");
                    for word in [from, "restapi.authentication", "restapi.allow_unauthenticated_writes: true"]
                    {
                        assert!(text.contains(word), "{word}: {text}");
                    }
                }
            }
        }
        // While etcd is unavailable no address counts as a member's.
        assert_eq!(
            outcome(&setup, caller("10.0.0.1", false), None).await.map_err(|refusal| refusal.0),
            Err(403)
        );
        let open = ApiSetup { allow_unauthenticated_writes: true, ..ApiSetup::default() };
        assert_eq!(outcome(&open, caller("192.0.2.7", false), None).await, Ok(()));
    }

    /// A proxy beside this member forwards requests from anywhere.
    #[tokio::test]
    async fn a_proxied_request_is_not_local() {
        let headers = |name: &'static str| {
            HeaderMap::from_iter([(name.parse().expect("a name"), "x".parse().expect("a value"))])
        };
        assert!(is_passed_on(&headers("X-Forwarded-For")) && !is_passed_on(&headers("user-agent")));
        let setup = ApiSetup::default();
        for (is_passed_on, may) in [(false, true), (true, false)] {
            let credentials = RequestCredentials {
                caller: caller("127.0.0.1", true),
                authorization: None,
                members_welcome: true,
                is_passed_on,
            };
            assert_eq!(check(&setup, &credentials, None).await.is_ok(), may, "passed on: {is_passed_on}");
        }
    }

    /// The setting admits no request that credentials, a list or certificates refuse.
    #[tokio::test]
    async fn configured_access_counts_as_in_patroni() {
        let user = Some(("admin".to_owned(), "s3cret".to_owned()));
        let base = ApiSetup { allow_unauthenticated_writes: true, ..ApiSetup::default() };
        let closed = [
            (ApiSetup { credentials: user, ..base.clone() }, 401),
            (ApiSetup { allowlist: vec!["10.0.0.0/8".to_owned()], ..base.clone() }, 403),
            (ApiSetup { allowlist_include_members: true, ..base }, 403),
        ];
        let view = crate::api::tests::view();
        for (setup, code) in closed {
            let found = outcome(&setup, caller("192.0.2.7", true), Some(&view)).await;
            assert_eq!(found.map_err(|refusal| refusal.0), Err(code), "{setup:?}");
        }
    }

    #[test]
    fn networks_contain_only_their_addresses() {
        let cases = [
            ("10.0.0.0/8", "10.200.3.4", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            (" 10.9.9.9/8", "10.200.3.4", true),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "::1", false),
            ("fd00::/8", "fd12::1", true),
            ("::/0", "fe80::1", true),
        ];
        for (network, address, inside) in cases {
            let address: IpAddr = address.parse().expect("an address");
            let found = super::network(network).map(|network| network.contains(&address));
            assert_eq!(found, Some(inside), "{network} {address}");
        }
        assert!(network("10.0.0.0/33").is_none());
        assert!(network("host.example").is_none());
    }

    #[test]
    fn compares_whole_credentials() {
        assert!(same(b"user:secret", b"user:secret"));
        for given in [&b""[..], b"user:secre", b"user:secretu", b"user:secretuser:secret"] {
            assert!(!same(given, b"user:secret"));
        }
    }
}
