//! Monitoring of a cluster: check_patroni, Prometheus, and the keys that vip-manager and pgbouncer templates read.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Cluster, Plan, python_program, until};

/// check_patroni finds a healthy cluster healthy, and names faults correctly.
#[tokio::test]
async fn check_patroni_reports_a_healthy_cluster() {
    let cluster = Plan::new(2).start().await;
    let timeline = cluster.first_timeline.to_string();
    for check in [
        &["cluster_has_leader"][..],
        &["cluster_has_replica", "--warning", "1:", "--critical", "1:"],
        &["cluster_node_count", "--warning", "2:", "--critical", "2:"],
        &["cluster_is_in_maintenance"],
        &["cluster_has_scheduled_action"],
        &["node_is_alive"],
        &["node_is_leader"],
        &["node_is_primary"],
        &["node_is_pending_restart"],
        &["node_patroni_version", "--patroni-version", &version(&cluster).await],
        &["node_tl_has_changed", "--timeline", &timeline],
    ] {
        let output = check_patroni(&cluster, 0, check).await;
        assert!(output.status.success(), "{check:?}: {output:?}");
    }
    assert!(check_patroni(&cluster, 1, &["node_is_replica"]).await.status.success());
    assert!(!check_patroni(&cluster, 1, &["node_is_primary"]).await.status.success());
}

/// Prometheus can read `/metrics`, and finds Patroni's metric names.
#[tokio::test]
async fn prometheus_reads_the_metrics() {
    let cluster = Plan::new(1).start().await;
    let metrics = cluster.members[0].get("/metrics").await.expect("it answers").body;
    for name in
        ["patroni_primary{", "patroni_postgres_running{", "patroni_xlog_location{", "patroni_dcs_last_seen{"]
    {
        assert!(metrics.contains(name), "{name} is missing:\n{metrics}");
    }
    promtool_accepts(&metrics);
}

/// A switchover and a killed postmaster are counted where they happened, with their reasons and the time they took.
#[tokio::test]
async fn a_switchover_and_a_crash_are_counted() {
    let cluster = Plan::new(2).start().await;
    let words = ["switchover", "--leader", "m1", "--candidate", "m2", "--force"];
    let output = cluster.members[1].command(&words).await;
    assert!(output.status.success(), "{output:?}\n{}", cluster.story());
    cluster.wait_until_well().await;
    let leads = [
        "matriarch_leadership_changes_total{scope=\"herd\",name=\"m2\",kind=\"switchover\",reason=\"operator\"} 1",
        "matriarch_outage_seconds_count{scope=\"herd\",name=\"m2\",kind=\"switchover\"} 1",
        "matriarch_outage_seconds_count{scope=\"herd\",name=\"m2\",kind=\"restart\"} 0",
        "matriarch_leadership_phase_seconds_count{scope=\"herd\",name=\"m2\",phase=\"promotion\"} 1",
        "matriarch_postgres_crashes_total{scope=\"herd\",name=\"m2\"} 0",
    ];
    wait_for_metrics(&cluster, 1, &leads).await;
    let led = [
        "matriarch_leadership_changes_total{scope=\"herd\",name=\"m1\",kind=\"first\",reason=\"new_cluster\"} 1",
        "matriarch_leadership_ends_total{scope=\"herd\",name=\"m1\",reason=\"handed_over\"} 1",
    ];
    wait_for_metrics(&cluster, 0, &led).await;
    cluster.members[1].kill_postmaster();
    let crashed = [
        "matriarch_postgres_crashes_total{scope=\"herd\",name=\"m2\"} 1",
        "matriarch_outage_seconds_count{scope=\"herd\",name=\"m2\",kind=\"restart\"} 1",
    ];
    promtool_accepts(&wait_for_metrics(&cluster, 1, &crashed).await);
}

/// The page, once it has all these lines.
async fn wait_for_metrics(cluster: &Cluster, index: usize, lines: &[&str]) -> String {
    let mut page = String::new();
    let seen = async || {
        page = cluster.members[index].get("/metrics").await.map(|answer| answer.body).unwrap_or_default();
        lines.iter().all(|line| page.lines().any(|other| other == *line)).then_some(())
    };
    let seen = until(Duration::from_secs(30), seen).await;
    assert!(seen.is_some(), "not all of {lines:#?} in\n{page}\n{}", cluster.story());
    page
}

fn promtool_accepts(metrics: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts: see `make setup`");
    let mut input = promtool.stdin.take().expect("it is piped");
    input.write_all(metrics.as_bytes()).expect("promtool reads");
    drop(input);
    let output = promtool.wait_with_output().expect("promtool ends");
    // 3 is promtool's opinion on style; Patroni's own names get the same remarks.
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(0 | 3)), "{complaint}\n{metrics}");
}

/// vip-manager compares the leader key byte for byte, or asks `//leader`; templates split `conn_url` and `api_url`.
#[tokio::test]
async fn vip_and_templates_find_their_keys() {
    let cluster = Plan::new(1).start().await;
    let member = &cluster.members[0];
    assert_eq!(cluster.etcd.get("/service/herd/leader").await.as_deref(), Some("m1"));
    assert_eq!(member.status("//leader").await, 200);
    let record = cluster.etcd.get("/service/herd/members/m1").await.expect("it is there");
    let record: serde_json::Value = serde_json::from_str(&record).expect("the record is JSON");
    let conn_url = record["conn_url"].as_str().expect("a string");
    let api_url = record["api_url"].as_str().expect("a string");
    assert!(conn_url.starts_with(&format!("postgres://127.0.0.1:{}/", member.postgres)), "{conn_url}");
    assert_eq!(api_url, format!("http://127.0.0.1:{}/patroni", member.api));
}

async fn version(cluster: &Cluster) -> String {
    let status = cluster.members[0].get("/patroni").await.expect("it answers").json();
    status["patroni"]["version"].as_str().expect("a version").to_owned()
}

async fn check_patroni(cluster: &Cluster, index: usize, words: &[&str]) -> std::process::Output {
    let mut command = Command::new(python_program("check_patroni"));
    command.args(["-e", &format!("http://127.0.0.1:{}", cluster.members[index].api)]).args(words);
    let done = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output()).await;
    done.expect("it is waited for").expect("check_patroni starts")
}
