//! The real `patronictl` of Patroni against a Matriarch cluster.

use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Cluster, Plan, python_program};

/// `list`, `topology`, `show-config`, `switchover`, `history`, `pause` and `resume` behave as with Patroni.
#[tokio::test]
async fn patronictl_lists_switches_over_and_shows_the_history() {
    let cluster = Plan::new(3).start().await;
    let first = cluster.first_timeline;
    let listed = json_of(&cluster, &["list", "-f", "json"]).await;
    let rows = listed.as_array().expect("a list of members");
    assert_eq!(rows.len(), 3, "{listed}");
    let row = |rows: &[Value], name: &str| {
        let row = rows.iter().find(|row| row["Member"] == name).expect("every member is listed");
        (row["Role"].clone(), row["State"].clone(), row["TL"].clone())
    };
    assert_eq!(row(rows, "m1"), (json!("Leader"), json!("running"), json!(first)));
    assert_eq!(row(rows, "m2"), (json!("Replica"), json!("streaming"), json!(first)));
    let shown = text_of(&cluster, &["show-config"]).await;
    assert!(shown.contains("ttl: 5"), "{shown}");
    let tree = text_of(&cluster, &["topology"]).await;
    assert!(tree.contains("+ m2"), "{tree}");

    text_of(&cluster, &["switchover", "--leader", "m1", "--candidate", "m3", "--force"]).await;
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some("m3"));
    let history = json_of(&cluster, &["history", "-f", "json"]).await;
    let line = history.as_array().and_then(|lines| lines.last()).expect("a line for the switchover");
    assert_eq!((&line["TL"], &line["New Leader"]), (&json!(first), &json!("m3")), "{history}");
    let listed = json_of(&cluster, &["list", "-f", "json"]).await;
    let rows = listed.as_array().expect("a list of members");
    assert_eq!(row(rows, "m3"), (json!("Leader"), json!("running"), json!(first + 1)));

    text_of(&cluster, &["pause", "--wait"]).await;
    let tree = text_of(&cluster, &["list"]).await;
    assert!(tree.contains("Maintenance mode: on"), "{tree}");
    text_of(&cluster, &["resume", "--wait"]).await;
}

/// `edit-config`, `restart --pending`, `reload` and `reinit --wait`.
#[tokio::test]
async fn patronictl_edits_restarts_and_reinitializes() {
    let cluster = Plan::new(2).start().await;
    text_of(&cluster, &["edit-config", "-q", "-p", "max_connections=110", "--force"]).await;
    let pending = |seen: &crate::support::Seen| {
        ["m1", "m2"].iter().all(|name| seen.member(name)["pending_restart"] == true)
    };
    cluster.wait_for(Duration::from_secs(20), "both wait for a restart", pending).await;
    text_of(&cluster, &["restart", "herd", "--pending", "--force"]).await;
    cluster.wait_until_well().await;
    for member in &cluster.members {
        assert_eq!(member.value("SHOW max_connections").await, "110", "{}", member.name);
    }
    text_of(&cluster, &["reload", "herd", "--force"]).await;
    text_of(&cluster, &["reinit", "herd", "m2", "--force", "--wait"]).await;
    cluster.wait_until_well().await;
}

async fn run(cluster: &Cluster, words: &[&str]) -> Output {
    let mut command = std::process::Command::new(python_program("patronictl"));
    command.arg("-c").arg(cluster.members[0].config_file()).args(words).env("COLUMNS", "200");
    let done = tokio::task::spawn_blocking(move || command.stdin(std::process::Stdio::null()).output()).await;
    done.expect("it is waited for").expect("patronictl starts")
}

async fn text_of(cluster: &Cluster, words: &[&str]) -> String {
    let output = run(cluster, words).await;
    assert!(output.status.success(), "patronictl {words:?}: {output:#?}\n{}", cluster.story());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn json_of(cluster: &Cluster, words: &[&str]) -> Value {
    let text = text_of(cluster, words).await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("patronictl {words:?}: {error}\n{text}"))
}
