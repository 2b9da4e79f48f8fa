//! Parameters that a standby must not have lower than its primary.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Cluster, Member, Plan};

const SOON: Duration = Duration::from_secs(30);
const HIGH: [(&str, u64); 5] = [
    ("max_connections", 150),
    ("max_worker_processes", 16),
    ("max_wal_senders", 20),
    ("max_prepared_transactions", 10),
    ("max_locks_per_transaction", 128),
];
const LOW: [(&str, u64); 5] = [
    ("max_connections", 60),
    ("max_worker_processes", 8),
    ("max_wal_senders", 10),
    ("max_prepared_transactions", 0),
    ("max_locks_per_transaction", 64),
];

fn configured(values: [(&str, u64); 5]) -> Value {
    let values: serde_json::Map<_, _> =
        values.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    json!({ "postgresql": { "parameters": values } })
}

async fn restart(member: &Member) {
    let answer = member.post("/restart", &json!({})).await;
    assert_eq!(answer.status, 200, "{}: {}", member.name, answer.body);
}

async fn runs_with(member: &Member, values: [(&str, u64); 5]) {
    for (name, value) in values {
        assert_eq!(
            member.value(&format!("SHOW {name}")).await,
            value.to_string(),
            "{name} of {}",
            member.name
        );
    }
}

/// Exactly these members wait for a restart because of all five.
async fn wait(cluster: &Cluster, pending: &[&str]) {
    let what = format!("a restart is pending at {pending:?}");
    let level = |seen: &crate::support::Seen| {
        ["m1", "m2"].iter().all(|name| {
            let member = seen.member(name);
            let reasons = member["pending_restart_reason"].as_object().map_or(0, serde_json::Map::len);
            (member["pending_restart"] == true, reasons)
                == (pending.contains(name), 5 * usize::from(pending.contains(name)))
        })
    };
    cluster.wait_for(SOON, &what, level).await;
}

/// Lower values are in force after a restart of each member, the leader first. A standby keeps the values of its
/// control file until the leader's new ones have arrived, and only then waits for a restart. A switchover changes
/// nothing.
#[tokio::test]
async fn lowered_parameters_apply_on_the_leader_first() {
    let cluster = Plan::new(2).dynamic(configured(HIGH)).start().await;
    let [m1, m2] = [&cluster.members[0], &cluster.members[1]];
    runs_with(m1, HIGH).await;
    let answer = m1.send("PATCH", "/config", Some(&configured(LOW))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    wait(&cluster, &["m1"]).await;
    restart(m2).await;
    runs_with(m2, HIGH).await;
    wait(&cluster, &["m1"]).await;
    restart(m1).await;
    runs_with(m1, LOW).await;
    wait(&cluster, &["m2"]).await;
    runs_with(m2, HIGH).await;
    restart(m2).await;
    runs_with(m2, LOW).await;
    wait(&cluster, &[]).await;
    cluster.wait_until_well().await;
    let answer = m1.post("/switchover", &json!({ "leader": "m1", "candidate": "m2" })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some("m2"));
    for member in [m1, m2] {
        runs_with(member, LOW).await;
    }
    wait(&cluster, &[]).await;
}
