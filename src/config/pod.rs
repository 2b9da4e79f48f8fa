//! Settings of a member without a configuration file, derived from its pod or container.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use super::fault::{Fault, ValueOrigin};
use super::local::Address;
use super::postgresql::POSTGRES_MAJORS;
use super::reader::{ConfigFindings, plain};
use super::tree::{Node, Value};
use super::variables::Variables;

/// Programs that PATH has to contain to be used: some packages link only a few of them there.
const PROGRAMS: [&str; 5] = ["postgres", "initdb", "pg_controldata", "pg_basebackup", "pg_rewind"];

/// The facts about the pod, from inside.
#[derive(Clone, Debug, Default)]
pub(super) struct Pod {
    /// The host name.
    pub(super) hostname: String,
    /// The text of `/etc/hosts`, where the kubelet writes the pod's name under its headless Service.
    pub(super) hosts: String,
    /// The major versions whose programs are at Debian's location.
    pub(super) majors: Vec<u32>,
    /// Whether `PATH` has all programs.
    pub(super) has_programs: bool,
}

impl Pod {
    /// Collects the facts.
    pub(super) fn look(environment: &BTreeMap<String, String>) -> Pod {
        let path = environment.get("PATH").map(String::as_str).unwrap_or_default();
        Pod {
            hostname: nix::unistd::gethostname()
                .ok()
                .and_then(|name| name.into_string().ok())
                .unwrap_or_default(),
            hosts: std::fs::read_to_string("/etc/hosts").unwrap_or_default(),
            majors: POSTGRES_MAJORS.filter(|major| bin_dir(*major).join("postgres").is_file()).collect(),
            has_programs: PROGRAMS
                .iter()
                .all(|program| std::env::split_paths(path).any(|dir| dir.join(program).is_file())),
        }
    }

    /// The address for other members: the pod's name under the headless Service, its address, or the address of the
    /// container's own name.
    fn address(&self, environment: &BTreeMap<String, String>) -> Option<String> {
        let short = self.hostname.split('.').next().filter(|name| !name.is_empty())?;
        let mut mine = None;
        for line in self.hosts.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
            let names: Vec<&str> = words.filter(|name| name.split('.').next() == Some(short)).collect();
            // A loopback address is useless for others, whatever its name.
            if names.is_empty() || address.is_loopback() {
                continue;
            }
            if let Some(name) = names.iter().find(|name| name.contains('.')) {
                return Some((*name).to_owned());
            }
            mine = mine.or(Some(address.to_string()));
        }
        let names = ["POD_IP", "PATRONI_KUBERNETES_POD_IP"];
        let given =
            names.iter().filter_map(|name| environment.get(*name)).find(|address| !address.is_empty());
        given.cloned().or(mine)
    }

    /// The directory of PostgreSQL's programs: of the data directory's version, else of the newest.
    fn bin_dir(&self, data_dir: Option<String>) -> Option<PathBuf> {
        if self.has_programs {
            return None;
        }
        let made_by =
            data_dir.and_then(|dir| std::fs::read_to_string(PathBuf::from(dir).join("PG_VERSION")).ok());
        let made_by = made_by.and_then(|text| text.trim().parse().ok());
        let fits = made_by.filter(|major| self.majors.contains(major));
        fits.or(self.majors.iter().max().copied()).map(bin_dir)
    }
}

fn bin_dir(major: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"))
}

/// Sections with an address for other members, with its default port and its variable.
const ADDRESSES: [(&str, u16, &str); 2] = [
    ("postgresql", 5432, "MATRIARCH_POSTGRESQL_CONNECT_ADDRESS"),
    ("restapi", 8008, "MATRIARCH_RESTAPI_CONNECT_ADDRESS"),
];

/// Defaults for settings that `root`, which has all that was given, leaves open.
pub(super) fn defaults(
    root: &Node,
    pod: &Pod,
    environment: &BTreeMap<String, String>,
    findings: &mut ConfigFindings,
) -> Node {
    let origin = ValueOrigin { source: "this pod".to_owned(), line: None };
    let text = |text: &str| Node::text(text, &origin);
    let mut node = Node { value: Value::Map(Vec::new()), origin: origin.clone() };
    let name = environment.get("POD_NAME").filter(|name| !name.is_empty()).unwrap_or(&pod.hostname);
    node.put(&["name"], text(name));
    for (section, port, variable) in ADDRESSES {
        let said = |key| root.get(section).and_then(|node| node.get(key)).and_then(plain);
        let listen = said("listen").and_then(|text| Address::parse_list(&text, Some(port)));
        let everywhere = listen.as_ref().is_none_or(|listen| is_wildcard(&listen.host));
        node.put(&[section, "listen"], text(&format!("*:{port}")));
        if said("connect_address").is_some() || !everywhere {
            continue;
        }
        let port = listen.map_or(port, |listen| listen.port);
        match pod.address(environment) {
            Some(host) => {
                node.put(&[section, "connect_address"], text(&Address { host, port }.to_string()));
            }
            None => findings.faults.push(Fault {
                origin: origin.clone(),
                key: format!("{section}.connect_address"),
                found: "has no address that others could reach".to_owned(),
                expected: format!("set POD_IP to the field status.podIP, or set {variable}"),
            }),
        }
    }
    let data_dir = root.get("postgresql").and_then(|node| node.get("data_dir")).and_then(plain);
    if let Some(dir) = pod.bin_dir(data_dir) {
        node.put(&["postgresql", "bin_dir"], text(&dir.to_string_lossy()));
    }
    node
}

fn is_wildcard(host: &str) -> bool {
    matches!(host, "" | "*" | "0.0.0.0" | "::")
}

/// Options of initdb: the container's locale, as in the official image.
pub(super) fn locale(environment: &BTreeMap<String, String>) -> Vec<String> {
    let set = |name: &str| environment.get(name).filter(|text| !text.is_empty());
    let locale = set("LC_ALL").or(set("LANG")).map(|locale| format!("locale={locale}"));
    locale.into_iter().chain(["encoding=UTF8".to_owned()]).collect()
}

/// Settings that only a variable can give here, in the order in which one would look for them.
const SAID_BY: [(&str, &str); 7] = [
    ("scope", "set MATRIARCH_SCOPE to the cluster's name"),
    ("name", "set POD_NAME to the field metadata.name, or set MATRIARCH_NAME"),
    ("etcd3", "set MATRIARCH_ETCD3_HOSTS, as in `10.0.0.1:2379,10.0.0.2:2379`"),
    ("etcd3.hosts", "set MATRIARCH_ETCD3_HOSTS, as in `10.0.0.1:2379,10.0.0.2:2379`"),
    ("postgresql.data_dir", "set PGDATA to a directory on the pod's volume"),
    (
        "postgresql.authentication.superuser.password",
        "set POSTGRES_PASSWORD, or POSTGRES_PASSWORD_FILE to a file that holds it",
    ),
    (
        "postgresql.authentication.replication",
        "set MATRIARCH_REPLICATION_PASSWORD, or MATRIARCH_REPLICATION_PASSWORD_FILE to a file that holds it",
    ),
];

/// The superuser needs a password or a certificate, because members connect to each other over TCP.
pub(super) fn demand_superuser(variables: &Variables, findings: &mut ConfigFindings) {
    let proofs = ["POSTGRES_PASSWORD", "PATRONI_SUPERUSER_PASSWORD", "PATRONI_SUPERUSER_SSLCERT"];
    if !proofs.iter().any(|name| variables.contains_key(*name)) {
        findings.faults.push(Fault {
            key: "postgresql.authentication.superuser.password".to_owned(),
            ..Fault::general("environment", "is missing", "")
        });
    }
}

/// Names the variable for each missing setting.
pub(super) fn name_variables(findings: &mut ConfigFindings) {
    for fault in findings.faults.iter_mut().filter(|fault| fault.found == "is missing") {
        if let Some((_, expected)) = SAID_BY.iter().find(|(key, _)| *key == fault.key) {
            (*expected).clone_into(&mut fault.expected);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTS: &str = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n127.0.1.1 pg-0.local pg-0\n\
                         10.1.2.3\tpg-0.pg.ns.svc.cluster.local\tpg-0\n";

    fn address(hosts: &str, variables: &[(&str, &str)]) -> Option<String> {
        let pod = Pod { hostname: "pg-0".to_owned(), hosts: hosts.to_owned(), ..Pod::default() };
        let pairs = variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        pod.address(&pairs.collect())
    }

    #[test]
    fn the_pod_is_reached_by_its_service_or_its_address() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(address(HOSTS, &[("POD_IP", "10.9.9.9")]), some("pg-0.pg.ns.svc.cluster.local"));
        assert_eq!(address("10.1.2.3 pg-0", &[("POD_IP", "fd00::1")]), some("fd00::1"));
        assert_eq!(address("10.1.2.3 pg-0", &[]), some("10.1.2.3"));
        assert_eq!(address("127.0.1.1 pg-0.example.com pg-0\n10.1.2.4 pg-01.x", &[]), None);
    }

    #[test]
    fn the_programs_match_the_version_of_the_data_directory() {
        let folder = std::env::temp_dir().join(format!("matriarch-made-by-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        let pod = Pod { majors: vec![15, 17], ..Pod::default() };
        let found = || pod.bin_dir(Some(folder.to_string_lossy().into_owned()));
        assert_eq!(found(), Some(bin_dir(17)));
        std::fs::write(folder.join("PG_VERSION"), "15\n").expect("writable");
        assert_eq!(found(), Some(bin_dir(15)));
        std::fs::remove_dir_all(&folder).expect("it was just made");
        assert_eq!(Pod { has_programs: true, ..pod }.bin_dir(None), None);
    }
}
