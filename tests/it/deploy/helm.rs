//! The chart makes the objects of the overlays, and helm has nothing to say against it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use super::folder;
use super::objects::{Object, overlay, parse, render, run};
use crate::support::{Place, tool};

/// The chart's annotation for a change of the settings, for which kustomize changes the name of the ConfigMap.
const SETTINGS: &str = "/spec/template/metadata/annotations/matriarch.io~1settings";

fn chart() -> PathBuf {
    folder().join("helm/matriarch")
}

fn helm(words: &[&str]) -> Command {
    let mut command = Command::new(tool("helm"));
    command.current_dir(chart()).args(words);
    command
}

fn template(options: &[&str]) -> Vec<Object> {
    let output = run(helm(&["template", "any", "."]).args(options));
    parse(&String::from_utf8(output.stdout).expect("helm writes UTF-8"))
}

fn refused(options: &[&str]) -> String {
    let Output { status, stderr, .. } =
        helm(&["template", "any", "."]).args(options).output().expect("helm starts");
    assert!(!status.success(), "{options:?}");
    String::from_utf8_lossy(&stderr).into_owned()
}

/// Objects by kind and name, without what differs on purpose: the hash in the name of the ConfigMap, the annotation in
/// its place, the comments in 20-size.yml, and the order of named items, which kustomize changes.
fn comparable(objects: &[Object]) -> BTreeMap<String, Value> {
    let settings = objects.iter().find(|object| object.name.starts_with("pg-settings")).expect("it is there");
    let comparable = objects.iter().map(|object| {
        let text = object.json.to_string().replace(&settings.name, "pg-settings");
        let mut json: Value = serde_json::from_str(&text).expect("it was JSON");
        if let Some(annotations) = json.pointer_mut("/spec/template/metadata/annotations") {
            annotations.as_object_mut().expect("a map").remove("matriarch.io/settings");
        }
        if let Some(size) = json.pointer_mut("/data/20-size.yml") {
            *size = serde_saphyr::from_str(size.as_str().expect("a text")).expect("YAML");
        }
        sort(&mut json);
        (format!("{} {}", object.kind, json["metadata"]["name"]), json)
    });
    comparable.collect()
}

/// Sorts lists of named items, and the keys of maps.
fn sort(json: &mut Value) {
    match json {
        Value::Object(map) => {
            map.sort_keys();
            map.values_mut().for_each(sort);
        }
        Value::Array(items) => {
            items.iter_mut().for_each(sort);
            items.sort_by_key(|item| item["name"].as_str().map(str::to_owned));
        }
        _ => {}
    }
}

fn assert_same(options: &[&str], overlay: &[Object]) {
    let (ours, theirs) = (comparable(&template(options)), comparable(overlay));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{options:?}");
    for (name, json) in ours {
        let (ours, theirs) = (format!("{json:#}"), format!("{:#}", theirs[&name]));
        let diff = similar::TextDiff::from_lines(&theirs, &ours);
        assert!(ours == theirs, "{options:?}: {name}\n{}", diff.unified_diff());
    }
}

#[test]
fn the_chart_makes_the_objects_of_the_overlays() {
    assert_same(&[], &overlay("production").objects);
    assert_same(&["--values", "values-dev.yaml"], &overlay("dev").objects);
    assert_same(&["--values", "values-external-etcd.yaml"], &overlay("external-etcd").objects);
}

#[test]
fn the_chart_has_the_additions_of_monitoring_and_readiness() {
    let place = Place::new();
    let up = "../".repeat(place.path().components().count() - 1);
    let deploy = format!("{up}{}", folder().display().to_string().trim_start_matches('/'));
    let kustomization = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n\
         resources: [{deploy}/overlays/production, {deploy}/overlays/monitoring]\n\
         components: [{deploy}/components/readiness-gate]\n"
    );
    std::fs::write(place.path().join("kustomization.yaml"), kustomization)
        .expect("our own place is writable");
    let options = ["--set", "monitoring.enabled=true", "--set", "readinessGate.enabled=true"];
    assert_same(&options, &render(place.path()));
}

#[test]
fn helm_lints_the_chart() {
    for values in ["values.yaml", "values-dev.yaml", "values-external-etcd.yaml"] {
        let output = run(&mut helm(&["lint", "--strict", ".", "--values", values]));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("1 chart(s) linted, 0 chart(s) failed"), "{said}");
    }
}

#[test]
fn a_change_of_the_settings_is_a_rolling_update() {
    let annotation = |options: &[&str]| {
        let objects = template(options);
        let members = objects.iter().find(|object| object.kind == "StatefulSet" && object.name == "pg");
        members.expect("it is there").json.pointer(SETTINGS).expect("it is there").clone()
    };
    let changed = annotation(&["--set", "settings.postgresql.parameters.work_mem=8MB"]);
    assert_ne!(annotation(&[]), changed);
    assert_eq!(annotation(&["--set", "sharedMemory=2Gi"]), annotation(&[]));
}

#[test]
fn values_that_cannot_work_are_refused() {
    for (options, word) in [
        (&["--set", "replcas=3"][..], "replcas"),
        (&["--set", "replicas=10"], "replicas"),
        (&["--set", "etcd.replicas=2"], "etcd"),
        (&["--set", "etcd.enabled=false"], "hosts"),
    ] {
        let said = refused(options);
        assert!(
            said.contains("values don't meet the specifications of the schema") && said.contains(word),
            "{said}"
        );
    }
}

/// A package holds the manifests themselves, and renders the same.
#[test]
fn a_package_is_complete() {
    let place = Place::new();
    run(helm(&["package", ".", "--destination"]).arg(place.path()));
    let package = place.path().join("matriarch-0.1.0.tgz");
    let output = run(helm(&["template", "any"]).arg(package));
    let packaged = parse(&String::from_utf8(output.stdout).expect("helm writes UTF-8"));
    assert_eq!(comparable(&packaged), comparable(&template(&[])));
}
