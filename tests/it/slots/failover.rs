//! Slots that PostgreSQL 17 itself synchronizes to standbys.

use std::time::Duration;

use serde_json::json;

use super::slots;
use crate::support::{Cluster, Plan, postgres_bin};

/// The first version with the option `failover` of a slot.
const FIRST: u32 = 17;

/// The options of a slot: its name, `failover` and `synced`.
const OPTIONS: &str =
    "SELECT string_agg(format('%s %s %s', slot_name, failover, synced), ', ' ORDER BY slot_name)
                         FROM pg_replication_slots WHERE slot_type = 'logical'";

/// A permanent slot and one that no setting names, both made with `failover => true`: PostgreSQL copies them, moves
/// them and removes them on the standby. On the former primary they would be in the way of that, and are dropped.
#[tokio::test]
async fn slots_with_the_option_failover_are_left_to_postgresql() {
    if major() < FIRST {
        println!("PostgreSQL {} has no such slots", major());
        return;
    }
    let settings = json!({
        "postgresql": { "parameters": { "wal_level": "logical", "sync_replication_slots": "on" } },
    });
    let cluster = Plan::new(2).dynamic(settings).start().await;
    let (m1, m2) = (&cluster.members[0], &cluster.members[1]);
    for slot in ["lg", "own"] {
        let make = format!(
            "SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding', false, false, true)"
        );
        m1.sql(&make).await.expect("m1 leads");
    }
    let lg = json!({ "slots": { "lg": { "type": "logical", "database": "postgres", "plugin": "test_decoding" } } });
    assert_eq!(m1.send("PATCH", "/config", Some(&lg)).await.status, 200);
    let synced = "lg t t, own t t";
    wait_for_options(&cluster, 1, synced, async || drop(m1.sql("CHECKPOINT").await)).await;
    // Several times `loop_wait`: an unused slot of a standby would be dropped, and a permanent one copied and moved.
    cluster
        .stays(Duration::from_secs(5), "the slots stay as PostgreSQL made them", async || {
            m1.value(OPTIONS).await == "lg t f, own t f" && m2.value(OPTIONS).await == synced
        })
        .await;
    let postmaster = m2.postmaster();
    let status = cluster.etcd.get("/service/herd/status").await.expect("m1 publishes");
    assert!(status.contains("\"lg\"") && status.contains("\"own\""), "those of the leader: {status}");

    let answer = m1.post("/switchover", &json!({ "leader": "m1", "candidate": "m2" })).await;
    assert_eq!(answer.status, 200, "{}\n{}", answer.body, cluster.story());
    cluster.wait_until_well().await;
    assert_eq!(m2.postmaster(), postmaster, "no restart for a copy");
    wait_for_options(&cluster, 0, synced, async || drop(m2.sql("CHECKPOINT").await)).await;
    assert_eq!(slots(&cluster, 1).await, "lg, m1, own");
}

async fn wait_for_options(cluster: &Cluster, index: usize, options: &str, meanwhile: impl AsyncFn()) {
    let member = &cluster.members[index];
    let what = format!("{} has the logical slots {options}", member.name);
    cluster
        .wait_until(Duration::from_secs(60), &what, async || {
            meanwhile().await;
            member.value(OPTIONS).await == options
        })
        .await;
}

/// The version of the PostgreSQL under test.
fn major() -> u32 {
    let program = postgres_bin().join("postgres");
    let shown = std::process::Command::new(program).arg("--version").output().expect("it starts").stdout;
    let shown = String::from_utf8_lossy(&shown).into_owned();
    let number: String =
        shown.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    number.parse().expect("a version")
}
