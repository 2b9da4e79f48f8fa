//! The primary's machine dies.

use std::time::Duration;

use serde_json::json;

use crate::support::{Plan, Writer};

/// All processes of the primary are killed at once while a client writes. A standby takes over when the lease has run
/// out, every row that a standby had is still there, the client continues, and the dead member rejoins.
#[tokio::test]
async fn all_processes_of_the_primary_are_killed() {
    let mut cluster = Plan::new(3).start().await;
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    writer.wait_for_more(50, Duration::from_secs(10)).await;
    let settled = writer.wait_until_replicated(&cluster.members[1..], Duration::from_secs(10)).await;
    cluster.members[0].kill_all();
    let successor = cluster.wait_for_successor(0, Duration::from_secs(30)).await;
    writer.wait_for_more(50, Duration::from_secs(20)).await;
    cluster.members[0].start();
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some(cluster.members[successor].name.as_str()));
    assert_eq!(seen.timeline(), cluster.first_timeline + 1);
    writer.stop_and_verify_until(&cluster.members[successor], settled).await;
    let history = cluster.members[0].get("/history").await.expect("a member answers").json();
    let line = history.as_array().and_then(|lines| lines.last()).expect("a line for the failover");
    let expected = (&json!(cluster.first_timeline), &json!(cluster.members[successor].name));
    assert_eq!((&line[0], &line[4]), expected, "{history}");
}

/// Two members die one after the other, the second as soon as etcd knows its timeline, whether the third follows it or
/// not. The last one leads alone on a timeline that no other member has, and both come back as its standbys.
#[tokio::test]
async fn the_last_member_leads_alone() {
    let mut cluster = Plan::new(3).start().await;
    cluster.members[0].kill_all();
    let second = cluster.wait_for_successor(0, Duration::from_secs(30)).await;
    let third = 3 - second;
    let name = cluster.members[second].name.clone();
    cluster
        .wait_until(Duration::from_secs(10), "etcd knows the timeline of the second", async || {
            let answer = cluster.members[third].get("/history").await;
            answer.is_some_and(|answer| {
                answer
                    .json()
                    .as_array()
                    .is_some_and(|lines| lines.last().is_some_and(|line| line[4] == name.as_str()))
            })
        })
        .await;
    cluster.members[second].kill_all();
    cluster.wait_until_writable(third, Duration::from_secs(30)).await;
    cluster.members[0].start();
    cluster.members[second].start();
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some(cluster.members[third].name.as_str()));
    assert_eq!(seen.timeline(), cluster.first_timeline + 2);
}
