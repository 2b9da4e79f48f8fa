//! Synchronous replication in the REST API and the command line: roles, probes, metrics, refusals and texts.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Cluster, Plan, python_program};

/// The limit until all members see a change of mode.
const SETTLES_WITHIN: Duration = Duration::from_secs(20);

/// `m1` leads, `m2` is the only standby that may be synchronous, `m3` never is.
async fn start(mode: &str) -> Cluster {
    let never = json!({ "tags": { "nosync": true } });
    Plan::new(3).dynamic(json!({ "synchronous_mode": mode })).member(2, never).start().await
}

async fn has_role(cluster: &Cluster, role: &str) {
    let level = |seen: &crate::support::Seen| {
        seen.leader() == Some("m1")
            && seen.member("m2")["role"] == role
            && seen.member("m2")["state"] == "streaming"
            && seen.member("m3")["role"] == "replica"
    };
    cluster.wait_for(SETTLES_WITHIN, &format!("m2 is {role}"), level).await;
}

/// The paths among these that a member answers with 200.
async fn well(cluster: &Cluster, index: usize) -> Vec<&'static str> {
    let mut well = Vec::new();
    for path in ["/sync", "/synchronous", "/quorum", "/async", "/read-only-sync", "/read-only-quorum"] {
        if cluster.members[index].status(path).await == 200 {
            well.push(path);
        }
    }
    well
}

/// Waits until a member answers exactly these with 200: its own view lags behind the cluster's.
async fn answers(cluster: &Cluster, index: usize, expected: &[&str]) {
    let what = format!("{} answers {expected:?}", cluster.members[index].name);
    cluster.wait_until(SETTLES_WITHIN, &what, async || well(cluster, index).await == expected).await;
}

async fn metric(cluster: &Cluster, index: usize, name: &str) -> String {
    let page = cluster.members[index].get("/metrics").await.expect("it answers").body;
    let line = page.lines().find(|line| line.split('{').next() == Some(name)).unwrap_or_default();
    line.rsplit(' ').next().unwrap_or_default().to_owned()
}

async fn foreign(program: &str, words: Vec<String>) -> Output {
    let mut command = Command::new(python_program(program));
    command.args(words).env("COLUMNS", "200").stdin(Stdio::null());
    let done = tokio::task::spawn_blocking(move || command.output()).await;
    done.expect("it is waited for").expect("it starts")
}

async fn patronictl_role(cluster: &Cluster, name: &str) -> Value {
    let file = cluster.members[0].config_file().display().to_string();
    let words = ["-c", &file, "list", "-f", "json"].map(str::to_owned).to_vec();
    let output = foreign("patronictl", words).await;
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let row = rows.as_array().and_then(|rows| rows.iter().find(|row| row["Member"] == name));
    row.map_or(Value::Null, |row| row["Role"].clone())
}

async fn check_patroni(cluster: &Cluster, index: usize, words: &[&str]) {
    let url = format!("http://127.0.0.1:{}", cluster.members[index].api);
    let words: Vec<String> = ["-e", &url].iter().chain(words).map(|word| (*word).to_owned()).collect();
    let output = foreign("check_patroni", words.clone()).await;
    assert!(output.status.success(), "{words:?}: {output:?}");
}

/// The table for people; output for programs has no such line.
async fn listed(cluster: &Cluster, words: &[&str]) -> String {
    let output = cluster.members[1].command(words).await;
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn interfaces_name_the_kind_of_each_standby() {
    let cluster = start("on").await;
    has_role(&cluster, "sync_standby").await;
    answers(&cluster, 1, &["/sync", "/synchronous", "/read-only-sync"]).await;
    answers(&cluster, 2, &["/async"]).await;
    answers(&cluster, 0, &["/read-only-sync", "/read-only-quorum"]).await;
    let body = cluster.members[1].get("/patroni").await.expect("it answers").json();
    assert_eq!((&body["sync_standby"], body.get("quorum_standby")), (&json!(true), None), "{body}");
    assert_eq!(metric(&cluster, 1, "patroni_sync_standby").await, "1");
    assert_eq!(metric(&cluster, 2, "patroni_sync_standby").await, "0");
    assert_eq!(metric(&cluster, 0, "matriarch_failures_tolerated").await, "1");
    assert_eq!(patronictl_role(&cluster, "m2").await, "Sync Standby");
    assert_eq!(patronictl_role(&cluster, "m3").await, "Replica");
    let counts = ["cluster_has_replica", "-w", "2:", "-c", "2:", "--sync-warning", "1:1"];
    check_patroni(&cluster, 0, &[&counts[..], &["--sync-type", "sync"]].concat()).await;
    check_patroni(&cluster, 1, &["node_is_replica", "--is-sync", "--sync-type", "sync"]).await;
    check_patroni(&cluster, 2, &["node_is_replica", "--is-async"]).await;
    let table = listed(&cluster, &["list"]).await;
    let sentence = "Synchronous: m2 confirms each commit; no acknowledged commit is lost if 1 member is lost";
    assert!(table.contains(sentence) && table.contains("| Sync Standby |"), "{table}");
    assert!(!listed(&cluster, &["list", "-o", "json"]).await.contains("acknowledged"));

    let mode = json!({ "synchronous_mode": "quorum" });
    assert_eq!(cluster.members[0].send("PATCH", "/config", Some(&mode)).await.status, 200);
    has_role(&cluster, "quorum_standby").await;
    answers(&cluster, 1, &["/quorum", "/read-only-quorum"]).await;
    assert_eq!(metric(&cluster, 1, "patroni_quorum_standby").await, "1");
    assert_eq!(patronictl_role(&cluster, "m2").await, "Quorum Standby");
    check_patroni(&cluster, 0, &[&counts[..], &["--sync-type", "quorum"]].concat()).await;
    check_patroni(&cluster, 1, &["node_is_replica", "--is-sync", "--sync-type", "quorum"]).await;
    assert!(listed(&cluster, &["list"]).await.contains("Synchronous: quorum, m2 confirms each commit;"));

    let mode = json!({ "synchronous_mode": null });
    assert_eq!(cluster.members[0].send("PATCH", "/config", Some(&mode)).await.status, 200);
    has_role(&cluster, "replica").await;
    answers(&cluster, 1, &["/async"]).await;
    cluster
        .wait_until(SETTLES_WITHIN, "nothing is promised", async || {
            metric(&cluster, 0, "matriarch_failures_tolerated").await == "0"
        })
        .await;
    assert!(listed(&cluster, &["list"]).await.contains("Asynchronous: a failover may lose the last commits"));
}

/// In mode on a switchover goes to a synchronous standby or is refused, over REST and on the command line.
#[tokio::test]
async fn a_switchover_goes_to_a_synchronous_standby() {
    let cluster = start("on").await;
    has_role(&cluster, "sync_standby").await;
    let to_m3 = json!({ "leader": "m1", "candidate": "m3" });
    let answer = cluster.members[0].post("/switchover", &to_m3).await;
    assert_eq!((answer.status, answer.body.contains("sync_standby")), (412, true), "{}", answer.body);
    let refused = cluster.members[1].command(&["switchover", "--candidate", "m3", "--force"]).await;
    let words = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{refused:?}");
    assert!(
        words.contains("m3 is not a synchronous standby") && words.contains("candidates are: m2"),
        "{words}"
    );
    assert_eq!(cluster.seen().await.expect("it answers").leader(), Some("m1"));
    let answer = cluster.members[0].post("/switchover", &json!({ "leader": "m1" })).await;
    assert_eq!(answer.status, 200, "{}\n{}", answer.body, cluster.story());
    assert_eq!(cluster.wait_until_well().await.leader(), Some("m2"));
}

/// Another program may have written the key, such as Patroni before a migration: its content is shown unchanged.
#[tokio::test]
async fn a_foreign_sync_key_is_shown_without_a_leader() {
    let mut cluster = start("on").await;
    has_role(&cluster, "sync_standby").await;
    cluster.members[0].kill_all();
    cluster.members[1].kill_all();
    cluster
        .wait_until(SETTLES_WITHIN, "nobody leads", async || {
            cluster.etcd.get("/service/herd/leader").await.is_none()
        })
        .await;
    let key = r#"{"leader":"x1","quorum":"1","sync_standby":"x3, x2"}"#;
    cluster.etcd.put("/service/herd/sync", key).await;
    let sentence = "Synchronous: nobody leads; among any 2 of x1, x2, x3 one holds every acknowledged commit";
    cluster
        .wait_until(SETTLES_WITHIN, sentence, async || {
            cluster.members[2]
                .get("/patroni")
                .await
                .is_some_and(|answer| answer.json()["guarantee"] == sentence)
        })
        .await;
    assert_eq!(metric(&cluster, 2, "matriarch_failures_tolerated").await, "1");
}
