//! A supervisor is asked to stop.

use std::time::Duration;

use serde_json::json;

use crate::support::{Plan, Writer};

/// SIGTERM on the primary, with a lease far longer than the test waits: leadership is handed over, not lost by expiry.
/// The old primary stops cleanly, loses nothing, and follows without a new clone when it comes back.
#[tokio::test]
async fn sigterm_on_the_primary_hands_over() {
    let mut cluster = Plan::new(3).dynamic(json!({ "ttl": 60, "loop_wait": 10 })).start().await;
    let created = cluster.members[0].created_at();
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    writer.wait_for_more(20, Duration::from_secs(10)).await;
    cluster.members[0].terminate();
    let successor = cluster.wait_for_successor(0, Duration::from_secs(30)).await;
    assert_eq!(cluster.members[0].exit_code(Duration::from_secs(20)).await, Some(0));
    assert_eq!(cluster.members[0].postmaster(), None);
    writer.wait_for_more(20, Duration::from_secs(20)).await;
    cluster.members[0].start();
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some(cluster.members[successor].name.as_str()));
    assert_eq!(cluster.members[0].created_at(), created, "no new clone");
    writer.stop_and_verify(&cluster.members[successor]).await;
}

/// SIGTERM on the only member: it stops Postgres cleanly and exits; started again, it leads again.
#[tokio::test]
async fn sigterm_on_the_only_member_stops_it() {
    let mut cluster = Plan::new(1).start().await;
    cluster.members[0].sql("CREATE TABLE kept ()").await.expect("it takes writes");
    cluster.members[0].terminate();
    assert_eq!(cluster.members[0].exit_code(Duration::from_secs(30)).await, Some(0));
    assert_eq!(cluster.members[0].postmaster(), None);
    cluster.members[0].start();
    cluster.wait_until_writable(0, Duration::from_secs(30)).await;
    assert_eq!(cluster.members[0].value("SELECT count(*) FROM kept").await, "0");
}
