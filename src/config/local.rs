//! A member's own configuration, complete: every default is filled in.

use std::fmt;

use serde_json::Value as Json;

use super::bootstrap::{self, BootstrapConfig};
use super::etcd::{self, EtcdConfig};
use super::kubernetes::{self, Kubernetes};
use super::log::{self, Log};
use super::postgresql::{self, Postgresql};
use super::reader::{ConfigFindings, Section};
use super::restapi::{self, Ctl, RestApi};
use super::tree::Node;
use super::watchdog::{self, WatchdogConfig};
use crate::model::{MemberName, Tags};

/// A member's own configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's name.
    pub scope: String,
    /// Begins with a slash and does not end with one.
    pub namespace: String,
    /// The member's name.
    pub name: MemberName,
    /// The log.
    pub log: Log,
    /// The REST interface.
    pub restapi: RestApi,
    /// How the command line and members call members.
    pub ctl: Ctl,
    /// The connection to etcd.
    pub etcd: EtcdConfig,
    /// How to create a new cluster; `None`: this member must not create one.
    pub bootstrap: Option<BootstrapConfig>,
    /// The local PostgreSQL.
    pub postgresql: Postgresql,
    /// The permitted uses of this member.
    pub tags: Tags,
    /// The machine's watchdog.
    pub watchdog: WatchdogConfig,
    /// The pod this member runs in; `None`: no pod is labelled.
    pub kubernetes: Option<Kubernetes>,
}

/// Host and port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// A name or an address, IPv6 without brackets; for `listen` a comma-separated list.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Address {
    /// Parses `HOST,HOST:PORT`, as [`Address::parse`] does for one host.
    pub fn parse_list(text: &str, default_port: Option<u16>) -> Option<Address> {
        let (others, last) = match text.rsplit_once(',') {
            Some((others, last)) => (others.split(',').collect(), last),
            None => (Vec::new(), text),
        };
        let Address { host, port } = Address::parse(last, default_port)?;
        let parse =
            |other: &&str| Address::parse(&format!("[{}]:1", other.trim().trim_matches(['[', ']'])), None);
        let mut hosts: Vec<String> = Vec::new();
        for other in &others {
            hosts.push(parse(other)?.host);
        }
        hosts.push(host);
        let one_is_missing = 1 < hosts.len() && hosts.iter().any(String::is_empty);
        (!one_is_missing).then(|| Address { host: hosts.join(","), port })
    }

    /// Parses `HOST:PORT` or, with a default port, `HOST`.
    pub fn parse(text: &str, default_port: Option<u16>) -> Option<Address> {
        let text = text.trim();
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
            Some(_) | None => (text, default_port?),
        };
        let host = host.trim().trim_start_matches('[').trim_end_matches(']').to_owned();
        (port != 0 && !host.contains(['/', ' ', ','])).then_some(Address { host, port })
    }
}

/// A user and a password. `Debug` hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).field("password", &"***").finish()
    }
}

impl Config {
    /// User and password for calls to other members.
    pub fn member_login(&self) -> Option<&Credentials> {
        self.ctl.authentication.as_ref().or(self.restapi.authentication.as_ref())
    }
}

/// Reads the whole tree.
pub(super) fn read(root: &Node, findings: &mut ConfigFindings) -> Option<Config> {
    let mut top = Section::root(root);
    let scope = top.required("scope", "write the cluster's name, as in `scope: main`", findings);
    if let Some(node) = top.get("scope").filter(|_| scope.contains('/')) {
        top.fault("scope", node, "write a name without `/`: it is one level of the keys in etcd", findings);
    }
    let name = name(&mut top, findings);
    let namespace = top.text("namespace", findings).unwrap_or_else(|| "service".to_owned());
    let namespace =
        format!("/{}", namespace.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/"));
    let log = log::read(top.section("log", findings), findings);
    let restapi = restapi::read(&mut top, findings);
    let etcd = etcd::read(&mut top, findings);
    let bootstrap = bootstrap::read(&mut top, findings);
    let postgresql = postgresql::read(&mut top, findings);
    let tags = tags(&mut top, findings);
    let watchdog = watchdog::read(&mut top, findings);
    let kubernetes = kubernetes::read(&mut top, &scope, name.as_ref().map(MemberName::as_str), findings);
    let ctl = restapi::read_ctl(&mut top, findings);
    unbuilt(&mut top, findings);
    top.finish(findings);
    let name = name?;
    Some(Config {
        scope,
        namespace,
        name,
        log,
        restapi,
        ctl,
        etcd,
        bootstrap,
        postgresql,
        tags,
        watchdog,
        kubernetes,
    })
}

/// The longest name of a slot.
const SLOT_LETTERS: usize = 63;

/// The key `name`, which may also be under `postgresql`.
fn name(top: &mut Section<'_>, findings: &mut ConfigFindings) -> Option<MemberName> {
    let nested = top.get("postgresql").and_then(|node| node.get("name"));
    let expected = "write a name that no other member has, without `/`, as in `name: pg-1`";
    let node = top.get("name").or(nested);
    let Some(node) = node else {
        top.missing("name", expected, findings);
        return None;
    };
    let name = super::reader::plain(node).and_then(|text| MemberName::new(text).ok());
    if name.as_ref().is_some_and(|name| name.as_str().chars().count() > SLOT_LETTERS) {
        let slot = "a replication slot is called after its first 63 letters: in these it must differ from all others";
        top.warn("name", node, slot, findings);
    }
    if name.is_none() {
        top.fault("name", node, expected, findings);
    }
    name
}

/// `ADDRESS:PORT` under `key`.
pub(super) fn address(
    section: &mut Section<'_>,
    key: &'static str,
    default_port: Option<u16>,
    required: bool,
    findings: &mut ConfigFindings,
) -> Address {
    let parse = |text: &str| Address::parse(text, default_port);
    parsed(section, key, required, parse, findings)
}

/// `connect_address`, or `default` where there is none. An address that no other machine can mean is a warning.
pub(super) fn connect_address(
    section: &mut Section<'_>,
    listen: &Address,
    (default, default_port): (Address, Option<u16>),
    findings: &mut ConfigFindings,
) -> Address {
    let is_given = section.get("connect_address").is_some();
    let told = match is_given {
        true => address(section, "connect_address", default_port, false, findings),
        false => default,
    };
    let is_everywhere = |host: &str| matches!(host, "*" | "0.0.0.0" | "::");
    let key = if is_given { "connect_address" } else { "listen" };
    if let Some(node) = section.get(key)
        && (is_everywhere(&told.host) || (!is_given && is_everywhere(&listen.host)))
    {
        let expected = format!(
            "other members and clients are told `{told}`: write the address by which they reach this member under \
             `connect_address`"
        );
        section.warn(key, node, &expected, findings);
    }
    told
}

/// `ADDRESS,ADDRESS:PORT` under `listen`, for PostgreSQL.
pub(super) fn addresses(section: &mut Section<'_>, findings: &mut ConfigFindings) -> Address {
    parsed(section, "listen", true, |text| Address::parse_list(text, Some(5432)), findings)
}

fn parsed(
    section: &mut Section<'_>,
    key: &'static str,
    required: bool,
    parse: impl Fn(&str) -> Option<Address>,
    findings: &mut ConfigFindings,
) -> Address {
    let expected = "write ADDRESS:PORT, as in 127.0.0.1:8008";
    let Some(node) = section.get(key) else {
        if required {
            section.missing(key, expected, findings);
        }
        return Address::default();
    };
    match super::reader::plain(node).and_then(|text| parse(&text)) {
        Some(address) => address,
        None => {
            section.fault(key, node, expected, findings);
            Address::default()
        }
    }
}

/// User and password.
pub(super) fn credentials(mut section: Section<'_>, findings: &mut ConfigFindings) -> Option<Credentials> {
    if !section.is_there() {
        return None;
    }
    let username = section.required("username", "write the user's name", findings);
    let password = section.required("password", "write the password", findings);
    section.finish(findings);
    Some(Credentials { username, password })
}

fn tags(top: &mut Section<'_>, findings: &mut ConfigFindings) -> Tags {
    let Some(node) = top.get("tags") else { return Tags::default() };
    let Json::Object(tags) = node.to_json() else {
        top.fault("tags", node, "write a section of tags", findings);
        return Tags::default();
    };
    if tags.contains_key("nofailover") && tags.contains_key("failover_priority") {
        top.warn("tags", node, "both nofailover and failover_priority are set: nofailover wins", findings);
    }
    if tags.contains_key("nosync") && tags.contains_key("sync_priority") {
        top.warn("tags", node, "both nosync and sync_priority are set: nosync wins", findings);
    }
    Tags(tags)
}

/// Sections that only other tools or later versions use.
fn unbuilt(top: &mut Section<'_>, findings: &mut ConfigFindings) {
    let threads = "the number of threads follows the processors";
    top.without_effect(&[("thread_pool_size", threads), ("thread_stack_size", threads)], findings);
    if top.get("etcd3").is_some() {
        top.without_effect(&[("etcd", "the section `etcd3` is given too, and counts")], findings);
    }
    for key in ["citus", "consul", "exhibitor", "raft", "zookeeper"] {
        if let Some(node) = top.get(key) {
            top.warn(key, node, "this section is not acted on: etcd is the store", findings);
        }
    }
}
