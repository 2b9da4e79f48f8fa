//! Replication slots that belong to no member.

use std::time::Duration;

use serde_json::json;

use crate::support::{Cluster, Plan};

/// Barman's slot and others on the primary; then another member leads. Unused slots that would retain WAL for ever are
/// dropped, and slots that a setting names stay. Until then a metric shows how much WAL each retains.
#[tokio::test]
async fn unused_slots_on_a_former_primary_are_dropped_unless_configured() {
    let settings = json!({
        "slots": { "kept": { "type": "physical" } },
        "ignore_slots": [{ "type": "logical", "plugin": "test_decoding" }, { "name": "ignored" }],
        "postgresql": { "parameters": { "wal_level": "logical" } },
    });
    let cluster = Plan::new(2).dynamic(settings).start().await;
    let m1 = &cluster.members[0];
    for slot in ["barman", "kept", "ignored"] {
        let made = m1.sql(&format!("SELECT pg_create_physical_replication_slot('{slot}', true)")).await;
        made.expect("m1 leads");
    }
    let made = "SELECT pg_create_logical_replication_slot('decoded', 'test_decoding')";
    m1.sql(made).await.expect("m1 leads");
    m1.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id").await.expect("m1 leads");
    let sample = "slot=\"barman\"} ";
    cluster
        .wait_until(Duration::from_secs(20), "the metric says what barman holds", async || {
            let page = m1.get("/metrics").await.map(|answer| answer.body).unwrap_or_default();
            let line = page
                .lines()
                .find(|line| line.starts_with("matriarch_slot_wal_bytes{") && line.contains(sample));
            line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
                .is_some_and(|bytes| bytes > 10_000)
        })
        .await;
    let answer = m1.post("/switchover", &json!({ "leader": "m1", "candidate": "m2" })).await;
    assert_eq!(answer.status, 200, "{}\n{}", answer.body, cluster.story());
    cluster.wait_until_well().await;
    wait_for_slots(&cluster, 0, "decoded, ignored, kept").await;
    let here = "the slots that a setting names stay";
    cluster
        .stays(Duration::from_secs(4), here, async || slots(&cluster, 0).await == "decoded, ignored, kept")
        .await;
    let log = m1.log_text();
    assert!(log.contains("nobody uses these replication slots") && log.contains("barman"), "{log}");
    assert!(log.contains("dropped a replication slot"), "{log}");
}

async fn slots(cluster: &Cluster, index: usize) -> String {
    let text = "SELECT string_agg(slot_name, ', ' ORDER BY slot_name) FROM pg_replication_slots";
    cluster.members[index].value(text).await
}

async fn wait_for_slots(cluster: &Cluster, index: usize, names: &str) {
    let what = format!("{} has the slots {names}", cluster.members[index].name);
    cluster.wait_until(Duration::from_secs(20), &what, async || slots(cluster, index).await == names).await;
}
