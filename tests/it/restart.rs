//! The operator restarts PostgreSQL.

use std::time::Duration;

use serde_json::json;

use crate::support::{Plan, Writer};

/// A primary is the same one afterwards: unlogged tables keep their rows, and its timeline goes on.
#[tokio::test]
async fn a_restart_of_the_primary_keeps_unlogged_tables_and_the_timeline() {
    let cluster = Plan::new(2).start().await;
    cluster.members[0].sql("CREATE UNLOGGED TABLE scratch AS SELECT 7 AS id").await.expect("m1 leads");
    for member in ["m2", "m1"] {
        let output = cluster.members[0].command(&["restart", "herd", member, "--force"]).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}\n{}", cluster.story());
        let seen = cluster.wait_until_well().await;
        assert_eq!((seen.leader(), seen.timeline()), (Some("m1"), cluster.first_timeline), "{member}");
    }
    assert_eq!(cluster.members[0].value("SELECT count(*) FROM scratch").await, "1");
}

/// Each PostgreSQL is another one afterwards, writes go on, and a standby leads: the leader handed over before its own.
#[tokio::test]
async fn a_rolling_restart_serves_all_the_time() {
    let quorum = json!({ "synchronous_mode": "quorum", "synchronous_node_count": 1 });
    let cluster = Plan::new(3).dynamic(quorum).start().await;
    cluster.wait_until_well().await;
    let started = async |index: usize| {
        cluster.members[index].value("SELECT pg_catalog.pg_postmaster_start_time()").await
    };
    let before = [started(0).await, started(1).await, started(2).await];
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    writer.wait_for_more(20, Duration::from_secs(10)).await;
    let output = cluster.members[0].command(&["restart", "herd", "--rolling", "--force"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}\n{}", cluster.story());
    let back: Vec<&str> = said.lines().filter_map(|line| Some(line.split_once(" is back")?.0)).collect();
    assert_eq!(back, ["m2", "m3", "m1"], "{said}");
    let seen = cluster.wait_until_well().await;
    assert_ne!(seen.leader(), Some("m1"), "{said}");
    for (index, before) in before.iter().enumerate() {
        assert_ne!(&started(index).await, before, "{index}: {said}");
    }
    writer.wait_for_more(20, Duration::from_secs(10)).await;
    let leader = cluster.members.iter().find(|member| seen.leader() == Some(member.name.as_str()));
    writer.stop_and_verify(leader.expect("a leader")).await;
}
