//! An operator's change of leadership as an operation: its identifier, its phases and its end, at any member.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Cluster, Plan, until};

/// The operation as this member tells it, once it has this state.
async fn operation(cluster: &Cluster, member: usize, id: &str, state: &str) -> Value {
    let mut last = None;
    let found = until(Duration::from_secs(30), async || {
        last = cluster.members[member].get(&format!("/operations/{id}")).await;
        let body = last.as_ref().filter(|answer| answer.status == 200)?.json();
        (body["state"] == state).then_some(body)
    });
    found.await.unwrap_or_else(|| panic!("not {state}: {:?}\n{}", last.map(|it| it.body), cluster.story()))
}

fn header(head: &str) -> String {
    let line = head.lines().find_map(|line| line.strip_prefix("operation: "));
    line.unwrap_or_else(|| panic!("no identifier in {head}")).to_owned()
}

/// A switchover over REST names its operation. Every member tells its phases in order, by the member that took each; so
/// does the command line, which ends with the operation.
#[tokio::test]
async fn a_switchover_can_be_told_by_every_member() {
    let cluster = Plan::new(2).start().await;
    let answer = cluster.members[0].post("/switchover", &json!({ "leader": "m1", "candidate": "m2" })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let id = header(&answer.head);
    for member in 0..2 {
        let done = operation(&cluster, member, &id, "done").await;
        assert_eq!((&done["kind"], &done["leader"]), (&json!("switchover"), &json!("m2")), "{done}");
        let phases = until(Duration::from_secs(20), async || {
            let told = operation(&cluster, member, &id, "done").await;
            let phases: Vec<String> =
                told["phases"].as_array()?.iter().map(|it| it["phase"].to_string()).collect();
            let both = ["\"hand_over\"", "\"promote\""].iter().all(|name| phases.iter().any(|it| it == name));
            both.then_some(phases)
        });
        let mut phases = phases.await.expect("both members keep their records");
        phases.dedup();
        let expected = ["preflight", "checkpoint", "stop", "verify", "hand_over", "promote"];
        assert_eq!(phases, expected.map(|name| format!("\"{name}\"")), "{done}");
    }
    let output = cluster.members[1].command(&["operations", "--id", &id]).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains(&format!("operation {id}: m2 leads")), "{output:?}");
    assert!(text.contains("m1  hand over") && text.contains("m2  promote"), "{text}");
    let output = cluster.members[1].command(&["operations", "-o", "json"]).await;
    let listed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(listed[0]["id"].to_string(), id, "{listed}");
}

/// A candidate whose replay waits never proves that it has all WAL: the switchover is given up, the old primary serves
/// again in its term and on its timeline, and the operation tells why.
#[tokio::test]
async fn a_switchover_that_is_given_up_tells_why_and_the_old_primary_serves_again() {
    let settings = json!({ "primary_stop_timeout": 5, "postgresql": { "recovery_conf": {
        "recovery_min_apply_delay": "1h" } } });
    let cluster = Plan::new(2).dynamic(settings).start().await;
    let m1 = &cluster.members[0];
    // Replay waits at this commit.
    m1.sql("CREATE TABLE waits ()").await.expect("m1 leads");
    let answer = m1.post("/switchover", &json!({ "leader": "m1", "candidate": "m2" })).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    let id = header(&answer.head);
    for member in 0..2 {
        let refused = operation(&cluster, member, &id, "refused").await;
        let why = refused["because"].as_str().expect("a reason");
        assert!(why.contains("m2 did not replay the shutdown checkpoint"), "{refused}");
        let phases: Vec<&Value> =
            refused["phases"].as_array().expect("a list").iter().map(|it| &it["phase"]).collect();
        assert_eq!(phases.last(), Some(&&json!("verify")), "{refused}");
    }
    cluster.wait_until_writable(0, Duration::from_secs(30)).await;
    assert_eq!(
        m1.value("SELECT timeline_id FROM pg_control_checkpoint()").await,
        cluster.first_timeline.to_string()
    );
    let output = m1.command(&["operations", "--id", &id]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
