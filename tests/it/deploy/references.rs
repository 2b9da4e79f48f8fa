//! References between objects resolve: selectors, ports, probes, and all mounted or named objects.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, EnvVar, Probe, Service, Volume};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::objects::{BUNDLES, Bundle};
use super::pods::{Pod, mount_of, picks, pods};
use super::{foreign, secrets, settings};

/// The label that the supervisor sets, with its values.
const ROLE: (&str, [&str; 2]) = ("role", ["primary", "replica"]);
/// The probe paths that the program answers.
const PROBES: [&str; 3] = ["/startup", "/liveness", "/readiness"];

pub(super) fn port_name(port: &IntOrString) -> String {
    match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    }
}

/// The Service without a selector: the leader writes its endpoints.
const PRIMARY: &str = "pg-rw";

/// A Service selects pods by labels and role, and names a port that they have.
#[test]
fn services_lead_to_pods_and_ports() {
    for bundle in BUNDLES.iter() {
        let pods = pods(bundle);
        for service in bundle.all::<Service>("Service") {
            let name = service.metadata.name.unwrap_or_default();
            let spec = service.spec.expect("a Service has a spec");
            let members = || bundle.one("StatefulSet", "pg").json["spec"]["selector"]["matchLabels"].clone();
            let mut selector = match (spec.selector, name.as_str()) {
                (None, PRIMARY) => serde_json::from_value(members()).expect("labels"),
                (selector, _) => selector.unwrap_or_default(),
            };
            if let Some(role) = selector.remove(ROLE.0) {
                assert!(ROLE.1.contains(&role.as_str()), "{name}: nobody sets role={role}");
            }
            if let Some(pod) = selector.remove(settings::POD_NAME) {
                let (set, ordinal) = pod.rsplit_once('-').expect("a set and an ordinal");
                let replicas = bundle.one("StatefulSet", set).json["spec"]["replicas"].as_u64();
                assert!(ordinal.parse().ok() < replicas, "{}: {name}: no pod {pod}", bundle.name);
            }
            let holds = |pod: &&Pod| selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value));
            let found: Vec<_> = pods.iter().filter(holds).collect();
            assert_eq!(found.len(), 1, "{}: {name} selects {found:?}", bundle.name);
            for port in spec.ports.iter().flatten() {
                let target = port.target_port.as_ref().map_or(port.port.to_string(), port_name);
                assert!(found[0].has_port(&target), "{}: {name}: no port {target}", bundle.name);
            }
        }
    }
}

/// The Services for clients follow the primary, or select by the role. The names of members and pods belong to one
/// Service.
#[test]
fn the_services_of_a_cluster_are_there() {
    for bundle in BUNDLES.iter() {
        let selector = |name| bundle.one("Service", name).json["spec"]["selector"].clone();
        let files = settings::files(bundle);
        let settings: serde_json::Value = serde_saphyr::from_str(&files["10-matriarch.yml"]).expect("YAML");
        assert!(selector(PRIMARY).is_null(), "a controller would write its slices, too");
        assert_eq!(settings["kubernetes"]["primary_service"], PRIMARY);
        assert_eq!(selector("pg-ro")["role"], "replica");
        let set = bundle.one("StatefulSet", "pg");
        let headless = &bundle.one("Service", set.json["spec"]["serviceName"].as_str().expect("a name")).json;
        assert_eq!(headless["spec"]["clusterIP"], "None");
        assert_eq!(headless["spec"]["publishNotReadyAddresses"], true);
    }
}

#[test]
fn budgets_and_monitors_pick_pods() {
    for bundle in BUNDLES.iter() {
        let pods = pods(bundle);
        for budget in bundle.all::<PodDisruptionBudget>("PodDisruptionBudget") {
            let selector = budget.spec.and_then(|spec| spec.selector).expect("it selects");
            assert_eq!(pods.iter().filter(|pod| picks(&selector, &pod.labels)).count(), 1, "{}", bundle.name);
        }
        for monitor in bundle.all::<foreign::PodMonitor>("PodMonitor") {
            let picked: Vec<_> =
                pods.iter().filter(|pod| picks(&monitor.spec.selector, &pod.labels)).collect();
            assert_eq!(picked.len(), 1, "{}: {:?}", bundle.name, monitor.metadata.name);
            for endpoint in &monitor.spec.pod_metrics_endpoints {
                assert!(picked[0].has_port(&endpoint.port), "{}", endpoint.port);
                assert_eq!(endpoint.path, "/metrics");
            }
        }
    }
}

/// Probes name existing ports, and paths that the program answers.
#[test]
fn probes_use_existing_paths() {
    for bundle in BUNDLES.iter() {
        for pod in pods(bundle) {
            for container in pod.containers() {
                for probe in [&container.startup_probe, &container.liveness_probe, &container.readiness_probe]
                {
                    let Some(probe) = probe else { continue };
                    let (port, path) = asked(probe);
                    assert!(pod.has_port(&port), "{}: {port}", pod.owner);
                    let known = container.name != "matriarch" || PROBES.contains(&path.as_str());
                    assert!(known, "{}: {path}", pod.owner);
                }
            }
        }
        let member = pods(bundle).into_iter().find(|pod| pod.owner == "StatefulSet pg").expect("it is there");
        let main = &member.spec.containers[0];
        let probes = [&main.startup_probe, &main.liveness_probe, &main.readiness_probe];
        let paths = probes.map(|probe| asked(probe.as_ref().expect("a member has all three")).1);
        assert_eq!(paths, PROBES);
    }
}

fn asked(probe: &Probe) -> (String, String) {
    if let Some(get) = &probe.http_get {
        return (port_name(&get.port), get.path.clone().unwrap_or_default());
    }
    let socket = probe.tcp_socket.as_ref().expect("a probe asks by HTTP or TCP");
    (port_name(&socket.port), String::new())
}

/// The ConfigMaps, Secrets, claims and accounts that a pod names exist, with the keys that it needs.
#[test]
fn objects_that_a_pod_names_exist() {
    for bundle in BUNDLES.iter() {
        let known = Known::of(bundle);
        for pod in pods(bundle) {
            let account = pod.spec.service_account_name.as_deref();
            assert!(account.is_none_or(|name| known.accounts.contains(name)), "{}: {account:?}", pod.owner);
            for volume in pod.spec.volumes.iter().flatten() {
                known.check_volume(volume, &pod);
            }
            for variable in pod.containers().flat_map(|container| container.env.iter().flatten()) {
                known.check_variable(variable, &pod);
            }
            for container in pod.containers() {
                mounts_are_volumes(container, &pod);
                files_are_mounted(container, &pod, &known);
            }
        }
    }
}

/// Keys of mountable objects, by name; and names of the rest.
struct Known {
    secrets: BTreeMap<String, BTreeSet<String>>,
    maps: BTreeMap<String, BTreeSet<String>>,
    claims: BTreeSet<String>,
    accounts: BTreeSet<String>,
}

impl Known {
    fn of(bundle: &Bundle) -> Known {
        let names = |kind: &str| {
            bundle
                .objects
                .iter()
                .filter(|object| object.kind == kind)
                .map(|object| object.name.clone())
                .collect()
        };
        let mut maps = BTreeMap::new();
        for object in bundle.objects.iter().filter(|object| object.kind == "ConfigMap") {
            let data = object.json["data"].as_object().expect("texts only");
            maps.insert(object.name.clone(), data.keys().cloned().collect());
        }
        let mut claims: BTreeSet<String> = names("PersistentVolumeClaim");
        for set in bundle.objects.iter().filter(|object| object.kind == "StatefulSet") {
            let replicas = set.json["spec"]["replicas"].as_u64().expect("a number");
            claims.extend((0..replicas).map(|ordinal| format!("data-{}-{ordinal}", set.name)));
        }
        Known { secrets: secrets::promised(), maps, claims, accounts: names("ServiceAccount") }
    }

    fn check_variable(&self, variable: &EnvVar, pod: &Pod) {
        let Some(secret) = variable.value_from.as_ref().and_then(|from| from.secret_key_ref.as_ref()) else {
            return;
        };
        let known = self.secrets.get(&secret.name).is_some_and(|keys| keys.contains(&secret.key));
        assert!(known, "{}: nobody makes {secret:?}", pod.owner);
    }

    fn check_volume(&self, volume: &Volume, pod: &Pod) {
        if let Some(claim) = &volume.persistent_volume_claim {
            assert!(self.claims.contains(&claim.claim_name), "{}: {claim:?}", pod.owner);
        }
        let _ = self.files_of(volume, pod);
    }

    /// The files that a ConfigMap or Secret provides in a volume; `None` for other volumes.
    fn files_of(&self, volume: &Volume, pod: &Pod) -> Option<BTreeSet<String>> {
        let (known, name, items) = match (&volume.config_map, &volume.secret) {
            (Some(map), _) => (&self.maps, map.name.as_str(), map.items.clone()),
            (_, Some(secret)) => {
                (&self.secrets, secret.secret_name.as_deref().expect("a name"), secret.items.clone())
            }
            (None, None) => return None,
        };
        let keys = known.get(name).unwrap_or_else(|| panic!("{}: nobody makes {name}", pod.owner));
        let Some(items) = items else { return Some(keys.clone()) };
        for item in &items {
            assert!(keys.contains(&item.key), "{}: {name} has no {}", pod.owner, item.key);
        }
        Some(items.into_iter().map(|item| item.path).collect())
    }
}

fn mounts_are_volumes(container: &Container, pod: &Pod) {
    let volumes: BTreeSet<_> = pod.spec.volumes.iter().flatten().map(|volume| &volume.name).collect();
    for mount in container.volume_mounts.iter().flatten() {
        let known = volumes.contains(&mount.name) || pod.claims.contains(&mount.name);
        assert!(known, "{}: {mount:?} is no volume", pod.owner);
    }
}

/// Every absolute path in the environment or the command line lies in a mount, and is a file of that mount if the files
/// are known.
fn files_are_mounted(container: &Container, pod: &Pod, known: &Known) {
    let variables = container.env.iter().flatten().filter_map(|variable| variable.value.as_ref());
    let words = container.args.iter().flatten().chain(container.command.iter().flatten());
    let values = variables.chain(words).map(|word| word.rsplit('=').next().unwrap_or_default());
    for path in values.filter(|value| value.starts_with('/')) {
        let mount =
            mount_of(container, path).unwrap_or_else(|| panic!("{}: {path} is not mounted", pod.owner));
        let volume = pod.spec.volumes.iter().flatten().find(|volume| volume.name == mount.name);
        let files = volume.and_then(|volume| known.files_of(volume, pod));
        let rest = path[mount.mount_path.len()..].trim_start_matches('/');
        if let Some(files) = files.filter(|_| !rest.is_empty()) {
            assert!(files.contains(rest), "{}: {path} is not among {files:?}", pod.owner);
        }
    }
}
