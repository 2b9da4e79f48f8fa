//! A changed `postgresql.listen`.

use std::time::Duration;

use serde_json::json;

use crate::support::{Plan, Seen, free_port};

/// The port of the leader's PostgreSQL is changed, and the file is reloaded. The running server keeps its port, for the
/// supervisor (also after that was killed and started again) and for the standby; after a restart it has the new one.
#[tokio::test]
async fn another_port_is_in_force_after_a_restart_of_postgresql() {
    let mut cluster = Plan::new(2).start().await;
    let (old, new) = (cluster.members[0].postgres, free_port());
    let mut config = cluster.members[0].read_config();
    for key in ["listen", "connect_address"] {
        config["postgresql"][key] = json!(format!("127.0.0.1:{new}"));
    }
    cluster.members[0].write_config(&config);
    assert_eq!(cluster.members[0].post("/reload", &json!({})).await.status, 202);
    let is_pending = |seen: &Seen| {
        let m1 = seen.member("m1");
        m1["port"] == old
            && m1.pointer("/pending_restart_reason/port/new_value") == Some(&json!(new.to_string()))
    };
    cluster.wait_for(Duration::from_secs(20), "the restart is pending", is_pending).await;

    let before = cluster.members[0].postmaster();
    cluster.members[0].kill_supervisor();
    cluster.members[0].start();
    cluster
        .wait_until(Duration::from_secs(30), "m1 answers as primary again", async || {
            cluster.members[0].status("/primary").await == 200
        })
        .await;
    let seen = cluster.wait_for(Duration::from_secs(20), "it is still pending", is_pending).await;
    assert!(seen.is_well(2) && cluster.members[0].postmaster() == before, "{}", cluster.story());

    let answer = cluster.members[0].post("/restart", &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    cluster.members[0].postgres = new;
    let has_moved = |seen: &Seen| {
        let m1 = seen.member("m1");
        seen.is_well(2) && m1["port"] == new && m1["pending_restart"] != true
    };
    let seen =
        cluster.wait_for(Duration::from_secs(30), "the standby streams from the new port", has_moved).await;
    assert_eq!(seen.leader(), Some("m1"), "{}", cluster.story());
    assert_eq!(cluster.members[0].value("SHOW port").await, new.to_string());
}
