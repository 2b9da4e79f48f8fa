//! Ivory, a web interface that shows and operates clusters over the REST interface. There is no package of it, so its
//! requests are sent here as it sends them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Cluster, Plan};

const LATER: &str = "2099-01-01T00:00:00+00:00";
const SOON: Duration = Duration::from_secs(30);

/// One request: to a member, with a body, and the expected status. Ivory reads what is no JSON as text.
type Call = (usize, &'static str, &'static str, Option<Value>, u16);

async fn call(cluster: &Cluster, (member, method, path, body, status): Call) -> String {
    let answer = cluster.members[member].send(method, path, body.as_ref()).await;
    let told = format!("{method} {path} {body:?}: {} {}\n{}", answer.status, answer.body, cluster.story());
    assert_eq!(answer.status, status, "{told}");
    let is_json = matches!((method, path), ("GET" | "PATCH", _));
    let kind = if is_json { "application/json" } else { "text/html" };
    assert!(answer.head.to_lowercase().contains(&format!("content-type: {kind}")), "{told}");
    assert!(!is_json || answer.json().is_object(), "{told}");
    answer.body
}

async fn paused(cluster: &Cluster, wanted: bool) {
    call(cluster, (0, "PATCH", "/config", Some(json!({ "pause": wanted })), 200)).await;
    let shows = async || {
        let shown = cluster.members[1].get("/cluster").await.map(|answer| answer.json());
        shown.is_some_and(|shown| shown["pause"].as_bool().unwrap_or_default() == wanted)
    };
    cluster.wait_until(SOON, "the pause is shown", shows).await;
}

/// What its overview needs of each member: a state and a role that it knows, the lag of standbys as a number, and host
/// and port of both servers.
#[tokio::test]
async fn ivory_shows_a_cluster() {
    let cluster = Plan::new(2).start().await;
    let shown = call(&cluster, (1, "GET", "/cluster", None, 200)).await;
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    let members = shown["members"].as_array().expect("a list");
    assert_eq!(members.len(), 2);
    for (member, role) in members.iter().zip(["leader", "replica"]) {
        let state = member["state"].as_str().expect("text");
        assert!(["running", "streaming"].contains(&state) && member["role"] == role, "{member}");
        assert!(role == "leader" || member["lag"].is_u64(), "{member}");
        assert!(
            member["host"].is_string() && member["port"].is_u64() && member["name"].is_string(),
            "{member}"
        );
        let url = member["api_url"].as_str().and_then(|url| url.strip_prefix("http://")).expect("a URL");
        let (_, port) = url.split_once('/').expect("a path").0.rsplit_once(':').expect("a port");
        assert!(port.parse::<u16>().is_ok(), "{member}");
    }
}

#[tokio::test]
async fn ivory_operates_a_cluster() {
    let cluster = Plan::new(2).start().await;
    paused(&cluster, true).await;
    paused(&cluster, false).await;
    let parameters = json!({ "postgresql": { "parameters": { "work_mem": "5MB" } } });
    let switchover = json!({ "leader": "m1", "candidate": "m2" });
    let scheduled = json!({ "leader": "m1", "candidate": "m2", "scheduled_at": LATER });
    let calls: [Call; 10] = [
        (0, "GET", "/config", None, 200),
        (0, "PATCH", "/config", Some(parameters), 200),
        (1, "POST", "/reload", None, 202),
        (0, "POST", "/switchover", Some(scheduled), 202),
        (0, "DELETE", "/switchover", None, 200),
        (0, "DELETE", "/switchover", None, 404),
        (1, "POST", "/restart", Some(json!({ "schedule": LATER })), 202),
        (1, "DELETE", "/restart", None, 200),
        (1, "DELETE", "/restart", None, 404),
        (1, "POST", "/restart", None, 200),
    ];
    for one in calls {
        call(&cluster, one).await;
    }
    let copied_before = cluster.members[1].created_at();
    call(&cluster, (1, "POST", "/reinitialize", Some(json!({ "force": true })), 200)).await;
    let is_new = async || ![None, copied_before].contains(&cluster.members[1].created_at());
    cluster.wait_until(SOON, "m2 is a new copy", is_new).await;
    cluster.wait_until_well().await;
    call(&cluster, (0, "POST", "/switchover", Some(switchover), 200)).await;
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some("m2"), "{}", cluster.story());
    call(&cluster, (1, "POST", "/failover", Some(json!({ "candidate": "m1" })), 200)).await;
    assert_eq!(cluster.wait_until_well().await.leader(), Some("m1"), "{}", cluster.story());
}
