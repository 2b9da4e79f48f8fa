//! The primary's Postgres dies; its supervisor lives.

use std::time::Duration;

use serde_json::json;

use crate::support::{Plan, Writer};

/// The postmaster is killed. The supervisor knows at once and starts it again in place: same leader, nothing
/// lost.
#[tokio::test]
async fn a_killed_postmaster_comes_back_in_place() {
    let cluster = Plan::new(2).start().await;
    let primary = &cluster.members[0];
    let writer = Writer::start(primary, cluster.ports()).await;
    writer.wait_for_more(20, Duration::from_secs(10)).await;
    let before = primary.postmaster();
    primary.kill_postmaster();
    cluster.wait_until_writable(0, Duration::from_secs(30)).await;
    writer.wait_for_more(20, Duration::from_secs(20)).await;
    assert_ne!(primary.postmaster(), before);
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some("m1"));
    writer.stop_and_verify(primary).await;
}

/// With `primary_start_timeout: 0` no time is spent on a restart: a standby takes over although the lease is long, and
/// the old primary comes back as a standby.
#[tokio::test]
async fn without_a_start_timeout_another_takes_over_at_once() {
    let patient = json!({ "primary_start_timeout": 0, "ttl": 60, "loop_wait": 10 });
    let cluster = Plan::new(3).dynamic(patient).start().await;
    cluster.members[0].kill_postmaster();
    let successor = cluster.wait_for_successor(0, Duration::from_secs(30)).await;
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some(cluster.members[successor].name.as_str()));
    assert_eq!(seen.timeline(), cluster.first_timeline + 1);
}

/// A standby's postmaster is killed: it comes back and streams; the primary does not notice.
#[tokio::test]
async fn a_killed_standby_comes_back() {
    let cluster = Plan::new(2).start().await;
    let before = cluster.members[1].postmaster();
    cluster.members[1].kill_postmaster();
    cluster
        .wait_until(Duration::from_secs(20), "m2 has a new postmaster", async || {
            cluster.members[1].postmaster().is_some_and(|pid| Some(pid) != before)
        })
        .await;
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some("m1"));
}
