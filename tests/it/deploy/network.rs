//! The network policies, played through: which pods can reach which pods on which port.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::objects::{BUNDLES, Bundle};
use super::pods::{Pod, picks, pods};
use super::references::port_name;

/// Policies name ports that the pods behind them have. All other ports belong to services outside: DNS, the API server,
/// an object store, an external etcd.
#[test]
fn policies_name_ports_that_are_there() {
    const OUTSIDE: [&str; 4] = ["53", "443", "6443", "2379"];
    for bundle in BUNDLES.iter() {
        let pods = pods(bundle);
        for policy in policies(bundle) {
            let all: Vec<&Pod> = pods.iter().filter(|pod| picks(&policy.subject, &pod.labels)).collect();
            assert!(!all.is_empty(), "{}: {} is for nobody", bundle.name, policy.name);
            for rule in &policy.ingress {
                for port in &rule.ports {
                    let open = all.iter().all(|pod| pod.has_port(port));
                    assert!(open, "{}: {}: nobody has the port {port}", bundle.name, policy.name);
                }
            }
            for rule in &policy.egress {
                let behind = |pod: &&Pod| rule.peers.iter().any(|peer| peer.is_pod(&pod.labels));
                let behind: Vec<&Pod> = pods.iter().filter(behind).collect();
                for port in &rule.ports {
                    let known = match behind.is_empty() {
                        true => OUTSIDE.contains(&port.as_str()),
                        false => behind.iter().all(|pod| pod.has_port(port)),
                    };
                    // Without an etcd in the namespace that rule selects no pod, and allows nothing.
                    let external = bundle.name == "external-etcd" && port == "client";
                    assert!(known || external, "{}: {}: {port}", bundle.name, policy.name);
                }
            }
        }
    }
}

/// Every pod is the subject of a policy for both directions, so nothing is open by omission.
#[test]
fn every_pod_has_a_policy() {
    for bundle in BUNDLES.iter() {
        let policies = policies(bundle);
        for pod in pods(bundle) {
            for direction in ["Ingress", "Egress"] {
                let limits = |policy: &Policy| {
                    picks(&policy.subject, &pod.labels) && policy.types.iter().any(|kind| kind == direction)
                };
                assert!(policies.iter().any(limits), "{}: {}: {direction}", bundle.name, pod.owner);
            }
        }
    }
}

/// Pods that have to communicate can, by the policies of both sides; other pods cannot.
#[test]
fn network_policies_permit_exactly_the_needed_connections() {
    let bundle =
        BUNDLES.iter().find(|bundle| bundle.name == "production with all additions").expect("it is there");
    let backup = BUNDLES.iter().find(|bundle| bundle.name == "backup-pgbackrest").expect("it is there");
    for (bundle, from, to, port, expected) in [
        (bundle, "StatefulSet pg", "StatefulSet pg", "postgres", true),
        (bundle, "StatefulSet pg", "StatefulSet pg", "rest", true),
        (bundle, "StatefulSet pg", "StatefulSet etcd", "client", true),
        (bundle, "StatefulSet pg", "StatefulSet etcd", "peer", false),
        (bundle, "StatefulSet etcd", "StatefulSet etcd", "peer", true),
        (bundle, "StatefulSet etcd", "StatefulSet pg", "postgres", false),
        (bundle, "Deployment pg-pooler", "StatefulSet pg", "postgres", true),
        (bundle, "Deployment pg-pooler", "StatefulSet pg", "rest", false),
        (bundle, "Deployment pg-pooler", "StatefulSet etcd", "client", false),
        (bundle, "Job pg-pooler-role", "StatefulSet pg", "postgres", true),
        (bundle, "CronJob pg-dump", "StatefulSet pg", "postgres", true),
        (bundle, "CronJob pg-dump", "StatefulSet etcd", "client", false),
        (backup, "CronJob pg-backup", "StatefulSet pg", "pgbackrest", true),
        (backup, "CronJob pg-backup", "StatefulSet pg", "postgres", false),
        (backup, "Job pg-stanza", "StatefulSet pg", "pgbackrest", true),
    ] {
        let pods = pods(bundle);
        let pod = |owner: &str| pods.iter().find(|pod| pod.owner == owner).expect("it is there");
        assert_eq!(reaches(&policies(bundle), pod(from), pod(to), port), expected, "{from} to {to}, {port}");
    }
}

fn reaches(policies: &[Policy], from: &Pod, to: &Pod, port: &str) -> bool {
    let lets = |rules: &[Rule], other: &Pod| {
        rules.iter().any(|rule| {
            rule.ports.iter().any(|open| open == port)
                && rule.peers.iter().any(|peer| peer.is_pod(&other.labels))
        })
    };
    let of =
        |pod: &Pod| policies.iter().filter(|policy| picks(&policy.subject, &pod.labels)).collect::<Vec<_>>();
    of(from).iter().any(|policy| lets(&policy.egress, to))
        && of(to).iter().any(|policy| lets(&policy.ingress, from))
}

struct Policy {
    name: String,
    subject: LabelSelector,
    types: Vec<String>,
    ingress: Vec<Rule>,
    egress: Vec<Rule>,
}

struct Rule {
    ports: Vec<String>,
    peers: Vec<Peer>,
}

enum Peer {
    Pods(LabelSelector),
    Elsewhere,
}

impl Peer {
    fn is_pod(&self, labels: &BTreeMap<String, String>) -> bool {
        matches!(self, Peer::Pods(selector) if picks(selector, labels))
    }
}

fn policies(bundle: &Bundle) -> Vec<Policy> {
    let policy = |policy: NetworkPolicy| {
        let spec = policy.spec.expect("a policy has a spec");
        let rules = spec.ingress.into_iter().flatten();
        let ingress = rules.map(|rule| self::rule(rule.ports, rule.from)).collect();
        let rules = spec.egress.into_iter().flatten();
        let egress = rules.map(|rule| self::rule(rule.ports, rule.to)).collect();
        Policy {
            name: policy.metadata.name.unwrap_or_default(),
            subject: spec.pod_selector.expect("it selects"),
            types: spec.policy_types.unwrap_or_default(),
            ingress,
            egress,
        }
    };
    bundle.all::<NetworkPolicy>("NetworkPolicy").into_iter().map(policy).collect()
}

fn rule(ports: Option<Vec<NetworkPolicyPort>>, peers: Option<Vec<NetworkPolicyPeer>>) -> Rule {
    let peer = |peer: NetworkPolicyPeer| match (peer.pod_selector, peer.namespace_selector) {
        (Some(selector), None) => Peer::Pods(selector),
        (_, _) => Peer::Elsewhere,
    };
    let ports: Vec<String> =
        ports.into_iter().flatten().filter_map(|port| port.port.as_ref().map(port_name)).collect();
    assert!(!ports.is_empty(), "a rule without ports opens all of them");
    Rule { ports, peers: peers.into_iter().flatten().map(peer).collect() }
}
