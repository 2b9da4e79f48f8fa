//! The settings of a pod of each cluster, read by the program itself.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Service};
use matriarch::config::{self, Loaded, Sources};
use matriarch::model::SyncMode;
use serde_json::Value;

use super::CLUSTERS;
use super::objects::{Bundle, overlay};
use super::pods::{Pod, mount_of, pods};
use super::secrets;
use crate::support::Place;

/// The fields that the kubelet would fill in for the pod `pg-1`.
const FIELDS: [(&str, &str); 4] = [
    ("metadata.name", "pg-1"),
    ("metadata.namespace", "shop"),
    ("metadata.uid", "6f3b"),
    ("status.podIP", "10.1.2.3"),
];

/// The program accepts each cluster's settings without a fault and without a warning.
#[test]
fn the_program_takes_the_settings() {
    for name in CLUSTERS {
        let bundle = overlay(name);
        let (member, settings) = (member(&bundle), files(&bundle));
        let Loaded { config, warnings } = load(&member, &settings);
        assert!(warnings.is_empty(), "{name}: {warnings:?}");
        assert_eq!((config.scope.as_str(), config.name.as_str()), ("pg", "pg-1"), "{name}");
        assert_eq!(config.restapi.connect_address.to_string(), "10.1.2.3:8008");
        assert_eq!(config.postgresql.connect_address.to_string(), "10.1.2.3:5432");
        assert!(config.restapi.authentication.is_some(), "{name}: writes by REST want a password");
        let endpoints = &config.etcd.endpoints;
        assert_eq!(endpoints.len(), if name == "dev" { 1 } else { 3 }, "{name}: {endpoints:?}");
        assert!(endpoints.iter().all(|endpoint| endpoint.starts_with("https://")), "{name}: {endpoints:?}");
        let effective = config::effective(&config, Some(&dynamic(&config)), 17).expect("it is fit");
        assert!(effective.warnings.is_empty(), "{name}: {:?}", effective.warnings);
        assert_eq!(effective.settings.sync.mode, SyncMode::Quorum, "{name}: no acknowledged commit is lost");
        let rules = effective.pg_hba.expect("configured");
        assert!(!rules.iter().any(|line| line.starts_with("host ")), "{name}: without TLS: {rules:?}");
        assert!(rules.iter().all(|line| line.ends_with("scram-sha-256")), "{name}: {rules:?}");
    }
}

/// Ports in the settings are those of the containers, also in etcd's hosts.
#[test]
fn ports_of_settings_and_objects_agree() {
    for name in CLUSTERS {
        let bundle = overlay(name);
        let (member, settings) = (member(&bundle), files(&bundle));
        let config = load(&member, &settings).config;
        assert!(member.has_port(&config.restapi.listen.port.to_string()), "{name}");
        assert!(member.has_port(&config.postgresql.listen.port.to_string()), "{name}");
        let Some(etcd) = pods(&bundle).into_iter().find(|pod| pod.owner == "StatefulSet etcd") else {
            continue;
        };
        let replicas = bundle.one("StatefulSet", "etcd").json["spec"]["replicas"].as_u64().expect("a number");
        let expected: Vec<String> =
            (0..replicas).map(|ordinal| format!("https://etcd-{ordinal}:2379")).collect();
        assert_eq!(config.etcd.endpoints, expected, "{name}");
        assert!(etcd.has_port("2379"));
        members_have_addresses_that_stay(&bundle, replicas);
        let initial = environment(&etcd.spec.containers[0])["ETCD_INITIAL_CLUSTER"].clone();
        let peers: Vec<String> =
            (0..replicas).map(|ordinal| format!("etcd-{ordinal}=https://etcd-{ordinal}.etcd:2380")).collect();
        assert_eq!(initial, peers.join(","), "{name}");
    }
}

/// The labels that the controller of its StatefulSet sets on a pod.
pub(super) const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";

/// Each member of etcd, and no other pod, has its own Service, with an address even before it is ready; the certificate
/// is issued for its name.
fn members_have_addresses_that_stay(bundle: &Bundle, replicas: u64) {
    let services = bundle.all::<Service>("Service").into_iter();
    let mut own = BTreeMap::new();
    for service in services {
        let (name, spec) = (service.metadata.name.expect("a name"), service.spec.expect("a spec"));
        if let Some(pod) = spec.selector.as_ref().and_then(|selector| selector.get(POD_NAME)) {
            assert_eq!((&name, spec.cluster_ip.as_deref()), (pod, None), "{}", bundle.name);
            assert_eq!(spec.publish_not_ready_addresses, Some(true), "{}: {name}", bundle.name);
            own.insert(name, spec.ports.expect("ports")[0].port);
        }
    }
    let expected = (0..replicas).map(|ordinal| (format!("etcd-{ordinal}"), 2379));
    assert_eq!(own, expected.collect(), "{}", bundle.name);
}

/// Files that the settings name are mounted, and paths that are written to are writable.
#[test]
fn paths_in_the_settings_are_mounted() {
    for name in CLUSTERS {
        let bundle = overlay(name);
        let (member, settings) = (member(&bundle), files(&bundle));
        let container = &member.spec.containers[0];
        let config = load(&member, &settings).config;
        let parameter = |wanted: &str| {
            config.postgresql.parameters.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.clone())
        };
        let data = config.postgresql.data_dir.to_string_lossy().into_owned();
        for path in [data, parameter("unix_socket_directories").expect("it is set")] {
            let mount = mount_of(container, &path).unwrap_or_else(|| panic!("{name}: {path} is not mounted"));
            assert_ne!(mount.read_only, Some(true), "{name}: {path}");
        }
        let files =
            ["ssl_cert_file", "ssl_key_file", "ssl_ca_file"].map(|key| parameter(key).expect("it is set"));
        let trusted = config.postgresql.replication.options.iter().find(|(key, _)| *key == "sslrootcert");
        for path in files.iter().chain(trusted.map(|(_, path)| path)) {
            let mount = mount_of(container, path).unwrap_or_else(|| panic!("{name}: {path} is not mounted"));
            let file = path.rsplit('/').next().expect("a name");
            assert!(!secrets::text("pg-postgres-tls", file).is_empty(), "{name}: {path}");
            assert_eq!(mount.read_only, Some(true), "{name}: {path}");
        }
    }
}

/// WAL is limited by the size of the volume, and shared memory by that of the container.
#[test]
fn wal_and_shared_memory_fit_the_volume_and_the_container() {
    for name in CLUSTERS {
        let bundle = overlay(name);
        let (member, settings) = (member(&bundle), files(&bundle));
        let config = load(&member, &settings).config;
        let parameter = |wanted: &str| {
            let found = config.postgresql.parameters.iter().find(|(key, _)| key == wanted);
            bytes(&found.unwrap_or_else(|| panic!("{name}: {wanted}")).1)
        };
        let set = &bundle.one("StatefulSet", "pg").json["spec"];
        let quantity =
            |pointer: &str| bytes(set.pointer(pointer).and_then(Value::as_str).expect("a quantity"));
        let volume = quantity("/volumeClaimTemplates/0/spec/resources/requests/storage");
        assert!(parameter("max_wal_size") + parameter("max_slot_wal_keep_size") < volume * 2 / 5, "{name}");
        let memory = quantity("/template/spec/containers/0/resources/requests/memory");
        let buffers = parameter("shared_buffers");
        assert!(buffers <= memory / 4 && buffers >= memory / 8, "{name}: {buffers} of {memory}");
    }
}

/// `10GB`, `20Gi` and the like, as bytes.
fn bytes(text: &str) -> u64 {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let scale = match &text[digits..] {
        "MB" | "Mi" => 1 << 20,
        "GB" | "Gi" => 1 << 30,
        other => panic!("{other} is no unit that is used here"),
    };
    text[..digits].parse::<u64>().expect("digits") * scale
}

fn member(bundle: &Bundle) -> Pod {
    pods(bundle).into_iter().find(|pod| pod.owner == "StatefulSet pg").expect("it is there")
}

/// The files of the settings, by name.
pub(super) fn files(bundle: &Bundle) -> BTreeMap<String, String> {
    let settings = bundle.objects.iter().find(|object| object.name.starts_with("pg-settings-"));
    serde_json::from_value(settings.expect("it is there").json["data"].clone()).expect("texts")
}

/// As the program in that pod would read it.
fn load(member: &Pod, files: &BTreeMap<String, String>) -> Loaded {
    let place = Place::new();
    for (name, text) in files {
        std::fs::write(place.path().join(name), text).expect("our own place is writable");
    }
    let mut environment = environment(&member.spec.containers[0]);
    // The mounted Secret.
    for (_, path) in environment.iter_mut().filter(|(name, _)| name.ends_with("_PASSWORD_FILE")) {
        let key = path.rsplit('/').next().expect("a path").to_owned();
        let file = place.folder("credentials").join(&key);
        std::fs::write(&file, secrets::text("pg-credentials", &key)).expect("our own place is writable");
        *path = file.to_string_lossy().into_owned();
    }
    let sources = Sources { path: Some(place.path().to_owned()), environment, ..Sources::default() };
    config::load(&sources).unwrap_or_else(|faults| panic!("{faults}"))
}

/// The dynamic configuration that the first start writes.
fn dynamic(config: &config::Config) -> String {
    let bootstrap = config.bootstrap.as_ref().expect("the first member makes the cluster");
    Value::Object(bootstrap.dcs.clone()).to_string()
}

/// Plain values and fields of the pod; `$(X)` is replaced as the kubelet does, in order.
pub(super) fn environment(container: &Container) -> BTreeMap<String, String> {
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for variable in container.env.iter().flatten() {
        let field = variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
        let value = match (&variable.value, field) {
            (Some(value), _) => known
                .iter()
                .fold(value.clone(), |text, (name, value)| text.replace(&format!("$({name})"), value)),
            (None, Some(field)) => {
                let found = FIELDS.iter().find(|(path, _)| *path == field.field_path);
                found.unwrap_or_else(|| panic!("{field:?} is unknown here")).1.to_owned()
            }
            (None, None) => continue,
        };
        assert!(!value.contains("$("), "{}: {value} names a variable that comes later", variable.name);
        known.insert(variable.name.clone(), value);
    }
    known
}
