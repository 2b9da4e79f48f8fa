//! Alert rules and dashboard: promtool accepts them, the alerts fire when they should, and the metrics exist.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::objects::{overlay, run};
use super::{folder, foreign};
use crate::support::kubernetes::Kubernetes;
use crate::support::{Place, Plan};

/// Metrics of other exporters: the kubelet, kube-state-metrics, etcd.
const FOREIGN: [&str; 4] = [
    "etcd_server_has_leader",
    "kube_cronjob_status_last_successful_time",
    "kubelet_volume_stats_available_bytes",
    "kubelet_volume_stats_capacity_bytes",
];

fn rules() -> Value {
    overlay("monitoring").one("PrometheusRule", "pg").json["spec"].clone()
}

/// The rules as a file, and the scenarios beside them.
#[test]
fn alerts_fire_when_they_should() {
    let place = Place::new();
    let path = place.path().join("rules.yml");
    std::fs::write(&path, rules().to_string()).expect("our own place is writable");
    run(Command::new("promtool").args(["check", "rules"]).arg(&path));
    let scenarios = place.path().join("alerts.yml");
    std::fs::write(&scenarios, include_str!("alerts.yml")).expect("our own place is writable");
    run(Command::new("promtool").args(["test", "rules"]).arg(&scenarios));
}

/// Each alert that pages has a scenario, and each names a runbook that exists.
#[test]
fn every_alert_has_a_scenario_and_a_runbook() {
    let scenarios = include_str!("alerts.yml");
    let readme = std::fs::read_to_string(folder().join("README.md")).expect("it is there");
    for group in overlay("monitoring").all::<foreign::PrometheusRule>("PrometheusRule")[0].spec.groups.iter()
    {
        for rule in &group.rules {
            let severity = &rule.labels["severity"];
            assert!(["page", "ticket"].contains(&severity.as_str()), "{}: {severity}", rule.alert);
            let tested = scenarios.contains(&format!("alertname: {}\n", rule.alert));
            assert!(tested || severity == "ticket", "{} pages and has no scenario", rule.alert);
            let title =
                rule.annotations["runbook"].strip_prefix("deploy/README.md, ").expect("a place in it");
            assert!(readme.contains(&format!("# {title}\n")), "{}: no runbook `{title}`", rule.alert);
            assert!(readme.contains(&rule.alert), "{} is not in the README", rule.alert);
        }
    }
}

/// An alert on a metric that does not exist never fires. This member finds no pod of its name.
#[tokio::test]
async fn alerts_and_dashboard_ask_for_metrics_that_exist() {
    let kubernetes = Kubernetes::double().await;
    let section = json!({ "namespace": kubernetes.namespace });
    let mut cluster = Plan::new(1).all(json!({ "kubernetes": section })).prepare().await;
    let member = &mut cluster.members[0];
    let kubeconfig = kubernetes.kubeconfig(&member.folder, &member.name);
    member.environment.push(("KUBECONFIG".to_owned(), kubeconfig.into()));
    cluster.start().await;
    let member = &cluster.members[0];
    let mut exported = BTreeSet::new();
    member.sql("SELECT pg_create_physical_replication_slot('backup', true)").await.expect("it leads");
    let late = [
        "matriarch_liveness_proof_age_seconds",
        "matriarch_kubernetes_trouble_seconds",
        "matriarch_slot_wal_bytes",
    ];
    cluster
        .wait_until(Duration::from_secs(30), "the primary lives, and its pod is missed", async || {
            let page = member.get("/metrics").await.map(|answer| answer.body).unwrap_or_default();
            exported = page.lines().filter_map(|line| Some(line.split_once('{')?.0.to_owned())).collect();
            late.iter().all(|name| exported.contains(*name))
        })
        .await;
    let asked: BTreeSet<String> = expressions().iter().flat_map(|expression| metrics(expression)).collect();
    assert!(asked.len() > 12, "{asked:?}");
    let unknown: Vec<&String> =
        asked.iter().filter(|name| !exported.contains(*name) && !FOREIGN.contains(&name.as_str())).collect();
    assert!(unknown.is_empty(), "nobody exports {unknown:?}; there are {exported:?}");
}

/// All expressions of alerts and dashboard.
fn expressions() -> Vec<String> {
    let bundle = overlay("monitoring");
    let text =
        bundle.one("ConfigMap", "pg-dashboard").json["data"]["matriarch.json"].as_str().expect("a text");
    let dashboard: Value = serde_json::from_str(text).expect("Grafana reads JSON");
    let mut found = Vec::new();
    for value in [&rules(), &dashboard] {
        collect(value, &mut found);
    }
    found
}

fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let text = |key: &str| fields.get(key).and_then(Value::as_str).map(str::to_owned);
            found.extend(text("expr").or(text("query")));
            fields.values().for_each(|field| collect(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The names of metrics in an expression, found by their prefixes.
fn metrics(expression: &str) -> Vec<String> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    let ours = ["patroni_", "matriarch_", "etcd_", "kube_", "kubelet_"];
    words.filter(|word| ours.iter().any(|start| word.starts_with(start))).map(str::to_owned).collect()
}

#[test]
fn a_metric_is_found_wherever_it_stands() {
    let mut found = Vec::new();
    collect(
        &json!({"a": [{"expr": "max(patroni_primary{a=\"b\"}) - rate(matriarch_x_total[5m])"}]}),
        &mut found,
    );
    assert_eq!(metrics(&found[0]), ["patroni_primary", "matriarch_x_total"]);
}
