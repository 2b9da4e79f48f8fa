//! Patroni's callbacks: real scripts are told what becomes of PostgreSQL.

use std::time::Duration;

use serde_json::json;

use crate::support::{Cluster, Member, Plan};

const SOON: Duration = Duration::from_secs(30);

/// Two members whose scripts write down their arguments; `extra` is run by `sh` after that.
async fn cluster(extra: &str) -> Cluster {
    let mut cluster = Plan::new(2).prepare().await;
    for member in &cluster.members {
        let text = format!("echo \"$@\" >> {}; {extra}", calls_file(member));
        let command = format!("sh -c '{text}' script");
        let events = ["on_start", "on_stop", "on_restart", "on_reload", "on_role_change"];
        let mut config = member.read_config();
        config["postgresql"]["callbacks"] = events.iter().map(|event| (*event, json!(command))).collect();
        member.write_config(&config);
    }
    cluster.start().await;
    cluster
}

fn calls_file(member: &Member) -> String {
    member.folder.join("calls").display().to_string()
}

fn calls(member: &Member) -> Vec<String> {
    let text = std::fs::read_to_string(calls_file(member)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Waits for the calls after the first `known`.
async fn wait_for(cluster: &Cluster, index: usize, known: usize, expected: &[&str]) {
    let member = &cluster.members[index];
    let what = format!("{}: {expected:?}", member.name);
    let new = || calls(member).into_iter().skip(known).collect::<Vec<_>>();
    cluster.wait_until(SOON, &what, async || new().len() >= expected.len()).await;
    assert_eq!(new(), expected, "{}", member.name);
}

#[tokio::test]
async fn scripts_are_told_of_starts_roles_restarts_reloads_and_stops() {
    let cluster = cluster("").await;
    wait_for(&cluster, 0, 0, &["on_start primary herd"]).await;
    wait_for(&cluster, 1, 0, &["on_start replica herd"]).await;
    let answer = cluster.members[1].post("/restart", &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    wait_for(&cluster, 1, 1, &["on_restart replica herd"]).await;
    let change = json!({ "postgresql": { "parameters": { "work_mem": "7MB" } } });
    let answer = cluster.members[0].send("PATCH", "/config", Some(&change)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    wait_for(&cluster, 0, 1, &["on_reload primary herd"]).await;
    wait_for(&cluster, 1, 2, &["on_reload replica herd"]).await;
    let answer = cluster.members[0].post("/switchover", &json!({ "leader": "m1" })).await;
    assert_eq!(answer.status, 200, "{}\n{}", answer.body, cluster.story());
    wait_for(&cluster, 0, 2, &["on_stop primary herd", "on_role_change replica herd"]).await;
    wait_for(&cluster, 1, 3, &["on_role_change primary herd"]).await;
    cluster.wait_until_well().await;
    cluster.members[1].kill_postmaster();
    // It goes on leading, or m1 is faster.
    let after_crash = || calls(&cluster.members[1]).into_iter().nth(4);
    cluster.wait_until(SOON, "m2 runs again", async || after_crash().is_some()).await;
    let expected = ["on_start primary herd", "on_role_change replica herd"];
    assert!(
        expected.contains(&after_crash().unwrap_or_default().as_str()),
        "{:?}",
        calls(&cluster.members[1])
    );
    cluster.wait_until_well().await;
    let known = calls(&cluster.members[0]).len();
    cluster.members[0].terminate();
    let stopped =
        async || calls(&cluster.members[0]).get(known).is_some_and(|call| call.starts_with("on_stop"));
    cluster.wait_until(SOON, "the end of m1 is told", stopped).await;
}

/// A script that hangs is killed by the next event, with its children, and keeps nobody from leading.
#[tokio::test]
async fn a_script_that_hangs_is_replaced() {
    let cluster = cluster("if [ $1 = on_start ]; then sleep 3600 & wait; fi").await;
    wait_for(&cluster, 0, 0, &["on_start primary herd"]).await;
    let sleeps = |member: &Member| {
        let log = member.log_text();
        log.contains("a callback script was killed: another event followed")
    };
    let answer = cluster.members[0].post("/switchover", &json!({ "leader": "m1" })).await;
    assert_eq!(answer.status, 200, "{}\n{}", answer.body, cluster.story());
    wait_for(&cluster, 0, 1, &["on_stop primary herd", "on_role_change replica herd"]).await;
    wait_for(&cluster, 1, 1, &["on_role_change primary herd"]).await;
    let killed = async || cluster.members.iter().all(sleeps);
    cluster.wait_until(SOON, "both hanging scripts were killed", killed).await;
    cluster.wait_until_well().await;
}
