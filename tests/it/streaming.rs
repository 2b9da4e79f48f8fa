//! Replication in the steady state.

use std::time::Duration;

use serde_json::json;

use crate::support::Plan;

/// The commits of the primary appear on both standbys, each through its own slot, and every probe answers by its role.
#[tokio::test]
async fn three_members_stream() {
    let cluster = Plan::new(3).start().await;
    let [primary, standbys @ ..] = cluster.members.as_slice() else { panic!("three members") };
    primary.sql("CREATE TABLE t AS SELECT 42 AS answer").await.expect("the primary takes writes");
    for standby in standbys {
        let what = format!("{} shows the row", standby.name);
        cluster
            .wait_until(Duration::from_secs(10), &what, async || {
                standby.value("SELECT answer FROM t").await == "42"
            })
            .await;
        assert!(standby.sql("CREATE TABLE no ()").await.is_err(), "a standby takes no writes");
        assert_eq!((standby.status("/replica").await, standby.status("/primary").await), (200, 503));
        assert_eq!(standby.status("/readiness").await, 200);
        assert!(standby.data().join("standby.signal").exists());
    }
    assert_eq!((primary.status("/replica").await, primary.status("/primary").await), (503, 200));
    assert_eq!((primary.status("/liveness").await, primary.status("/health").await), (200, 200));
    let slots = "SELECT slot_name FROM pg_replication_slots WHERE active ORDER BY 1";
    assert_eq!(primary.sql(slots).await, Ok(vec![vec!["m2".to_owned()], vec!["m3".to_owned()]]));
}

/// A member with `replicatefrom` streams from that member and not from the primary.
#[tokio::test]
async fn a_member_streams_from_another_standby() {
    let cascade = json!({ "tags": { "replicatefrom": "m2" } });
    let cluster = Plan::new(3).member(2, cascade).start().await;
    let senders = "SELECT string_agg(application_name, ',' ORDER BY 1) FROM pg_stat_replication";
    cluster
        .wait_until(Duration::from_secs(20), "m3 streams from m2, and only m2 from m1", async || {
            cluster.members[1].value(senders).await == "m3" && cluster.members[0].value(senders).await == "m2"
        })
        .await;
}
