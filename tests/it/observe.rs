//! Who would lead, as somebody outside the cluster sees it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Cluster, Plan, until};

/// What `observe` prints, once it begins with `head`.
async fn observed(cluster: &Cluster, head: &str) -> String {
    let mut last = String::new();
    let said = async || {
        let output = cluster.members[1].command(&["observe", "--once"]).await;
        last = String::from_utf8_lossy(&output.stdout).into_owned();
        last.lines().next()?.ends_with(head).then_some(())
    };
    let told = until(Duration::from_secs(20), said).await;
    assert!(told.is_some(), "not `{head}` in\n{last}\n{}", cluster.story());
    last
}

#[tokio::test]
async fn observe_names_who_would_lead_if_the_leader_were_lost() {
    let shy = json!({ "tags": { "nofailover": true } });
    let cluster = Plan::new(3).member(2, shy).start().await;
    cluster.wait_until_well().await;
    let said = observed(&cluster, "m1 leads; if it were lost, m2 would lead").await;
    assert!(said.contains("    m3: ") && said.contains("nofailover"), "{said}");
    let output = cluster.members[1].command(&["observe", "--once", "-o", "json"]).await;
    let body: Value = serde_json::from_slice(&output.stdout).expect("one line of JSON");
    assert_eq!((&body["leader"], &body["members"][0]["would_lead"]), (&json!("m1"), &json!(true)), "{body}");
    let paused = cluster.members[0].command(&["pause", "--wait", "--force"]).await;
    assert!(paused.status.success(), "{paused:?}");
    observed(&cluster, "m1 leads; if it were lost, nobody would lead").await;
}
