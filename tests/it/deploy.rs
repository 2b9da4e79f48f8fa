//! The manifests of `deploy/`: rendered as by `kubectl apply -k`, parsed strictly, and compared with each other, with
//! the program's settings and metrics, with the production checklist, and with
//! the chart.

mod alerts;
mod checklist;
mod encrypted;
mod foreign;
mod helm;
mod network;
mod objects;
mod pods;
mod programs;
mod references;
mod rights;
mod runbooks;
mod scripts;
mod secrets;
mod settings;
mod started;
mod strict;
mod texts;

use std::path::PathBuf;

/// Overlays that are whole clusters.
const CLUSTERS: [&str; 4] = ["dev", "production", "backup-pgbackrest", "external-etcd"];
/// Overlays that are applied beside a cluster.
const ADDED: [&str; 5] = ["cert-manager", "pooler", "backup-dump", "monitoring", "volumesnapshot"];

/// The overlay that is applied beside `backup-pgbackrest`, only for a restore.
const RESTORE: &str = "restore-pgbackrest";

/// `deploy/` of this repository.
fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// No overlay is forgotten here.
#[test]
fn every_overlay_is_tested() {
    let entries = std::fs::read_dir(folder().join("overlays")).expect("it is there");
    let mut found: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let mut known: Vec<&str> = CLUSTERS.into_iter().chain(ADDED).chain([RESTORE]).collect();
    found.sort();
    known.sort_unstable();
    assert_eq!(found, known);
}
