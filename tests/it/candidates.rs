//! Candidates for a failover, and their order.

use std::time::Duration;

use serde_json::json;

use crate::support::{Cluster, Plan};

/// A member tagged `nofailover` never leads, not even on request.
#[tokio::test]
async fn a_member_with_nofailover_never_leads() {
    let shy = json!({ "tags": { "nofailover": true } });
    let mut cluster = Plan::new(3).member(1, shy).start().await;
    settle(&cluster).await;
    cluster.members[0].kill_all();
    assert_eq!(cluster.wait_for_successor(0, Duration::from_secs(30)).await, 2);
    let answer = cluster.members[2].post("/failover", &json!({ "candidate": "m2" })).await;
    assert_eq!(answer.status, 412, "{}", answer.body);
}

/// Of two standbys with the same position, the one with the higher priority takes over.
#[tokio::test]
async fn the_higher_priority_takes_over() {
    let first = json!({ "tags": { "failover_priority": 10 } });
    let second = json!({ "tags": { "failover_priority": 2 } });
    let mut cluster = Plan::new(3).member(1, second).member(2, first).start().await;
    settle(&cluster).await;
    cluster.members[0].kill_all();
    assert_eq!(cluster.wait_for_successor(0, Duration::from_secs(30)).await, 2);
}

/// `POST /failover` names its candidate, and also works without a leader.
#[tokio::test]
async fn a_failover_goes_to_the_named_candidate() {
    let cluster = Plan::new(3).start().await;
    assert_eq!(cluster.members[0].post("/failover", &json!({})).await.status, 400);
    let answer = cluster.members[1].post("/failover", &json!({ "candidate": "m3" })).await;
    assert_eq!(answer.status, 200, "{}\n{}", answer.body, cluster.story());
    assert_eq!(cluster.wait_until_well().await.leader(), Some("m3"));
}

/// Waits until both standbys have received all that the primary wrote.
async fn settle(cluster: &Cluster) {
    let behind = "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_flush_lsn()";
    cluster
        .wait_until(Duration::from_secs(20), "both standbys hold everything", async || {
            cluster.members[0].value(behind).await == "2"
        })
        .await;
}
