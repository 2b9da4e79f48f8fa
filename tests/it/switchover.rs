//! The operator moves leadership.

use std::time::Duration;

use serde_json::json;

use crate::support::{Plan, Writer};

/// `matriarch switchover` to a named candidate while a client writes: the candidate leads, nothing acknowledged is
/// lost, and the old primary follows on the new timeline with its old data directory.
#[tokio::test]
async fn a_switchover_to_a_candidate_by_the_command_line() {
    let cluster = Plan::new(3).start().await;
    let created = cluster.members[0].created_at();
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    writer.wait_for_more(20, Duration::from_secs(10)).await;
    let words = ["switchover", "--leader", "m1", "--candidate", "m2", "--force"];
    let output = cluster.members[2].command(&words).await;
    assert!(output.status.success(), "{output:?}\n{}", cluster.story());
    let seen = cluster.wait_until_well().await;
    assert_eq!((seen.leader(), seen.timeline()), (Some("m2"), cluster.first_timeline + 1));
    writer.wait_for_more(20, Duration::from_secs(10)).await;
    assert_eq!(cluster.members[0].created_at(), created, "no new clone");
    writer.stop_and_verify(&cluster.members[1]).await;
}

/// `POST /switchover` without a candidate: any healthy standby takes over; then the same back.
#[tokio::test]
async fn a_switchover_without_a_candidate_by_rest_and_back() {
    let cluster = Plan::new(2).start().await;
    let answer = cluster.members[0].post("/switchover", &json!({ "leader": "m1" })).await;
    assert_eq!(answer.status, 200, "{}\n{}", answer.body, cluster.story());
    assert_eq!(cluster.wait_until_well().await.leader(), Some("m2"));
    let answer = cluster.members[0].post("/switchover", &json!({ "leader": "m2" })).await;
    assert_eq!(answer.status, 200, "{}\n{}", answer.body, cluster.story());
    assert_eq!(cluster.wait_until_well().await.leader(), Some("m1"));
}

/// Impossible requests are refused with Patroni's codes, and nothing changes.
#[tokio::test]
async fn impossible_switchovers_are_refused() {
    let shy = json!({ "tags": { "nofailover": true } });
    let cluster = Plan::new(2).member(1, shy).start().await;
    let cases = [
        (json!({}), 400),
        (json!({ "leader": "m1", "candidate": "m1" }), 400),
        (json!({ "leader": "m2" }), 412),
        (json!({ "leader": "m1", "candidate": "stranger" }), 412),
        (json!({ "leader": "m1", "candidate": "m2" }), 412),
        (json!({ "leader": "m1", "candidate": "m2", "scheduled_at": "2001-01-01T00:00:00Z" }), 422),
        (json!({ "leader": "m1", "candidate": "m2", "scheduled_at": "2099-01-01T00:00:00" }), 400),
    ];
    for (body, status) in cases {
        let answer = cluster.members[0].post("/switchover", &body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
    }
    assert_eq!(cluster.wait_until_well().await.leader(), Some("m1"));
}

/// A scheduled switchover is shown, can be cancelled, and happens at its time.
#[tokio::test]
async fn a_scheduled_switchover_is_shown_cancelled_and_done() {
    let cluster = Plan::new(2).start().await;
    let far = json!({ "leader": "m1", "candidate": "m2", "scheduled_at": "2099-01-01T00:00:00+00:00" });
    assert_eq!(cluster.members[0].post("/switchover", &far).await.status, 202);
    let scheduled = |seen: &crate::support::Seen| seen.0["scheduled_switchover"]["to"] == "m2";
    cluster.wait_for(Duration::from_secs(10), "the switchover is shown", scheduled).await;
    assert_eq!(cluster.members[0].send("DELETE", "/switchover", None).await.status, 200);
    let soon = jiff::Timestamp::now() + Duration::from_secs(4);
    let soon = json!({ "leader": "m1", "candidate": "m2", "scheduled_at": soon.to_string() });
    assert_eq!(cluster.members[0].post("/switchover", &soon).await.status, 202);
    cluster.wait_for_successor(0, Duration::from_secs(30)).await;
    cluster.wait_until_well().await;
}

/// The standby's walsender ended, and pg_hba.conf does not let it in again: its position is near and it answers, but it
/// would never get the shutdown checkpoint. The switchover is refused at once, and the primary is never stopped.
#[tokio::test]
async fn a_switchover_to_a_candidate_that_does_not_stream_is_refused() {
    let mut cluster = Plan::new(2).start().await;
    cluster.members[1].expected_errors.push("hba".to_owned());
    cluster.members[1].expected_errors.push("could not connect to the primary server".to_owned());
    cluster.members[0].expected_errors.push("hba".to_owned());
    let mut config = cluster.members[0].read_config();
    config["postgresql"]["pg_hba"] = json!([
        "local all all scram-sha-256",
        "host replication all 127.0.0.1/32 reject",
        "host all all 127.0.0.1/32 scram-sha-256",
    ]);
    cluster.members[0].write_config(&config);
    cluster.members[0].post("/reload", &json!({})).await;
    let leader = &cluster.members[0];
    // The view shows the file: what is in force is what the postmaster has read after it was written.
    let rejects =
        "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'reject' AND user_name = '{all}'
                      AND pg_conf_load_time() > (pg_stat_file(current_setting('hba_file'))).modification";
    cluster
        .wait_until(Duration::from_secs(20), "pg_hba.conf rejects the standby", async || {
            leader.value(rejects).await != "0"
        })
        .await;
    leader.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication").await.expect("it runs");
    cluster
        .wait_until(Duration::from_secs(20), "nobody streams", async || {
            leader.value("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'").await == "0"
        })
        .await;
    let postmaster = leader.postmaster();
    for body in [json!({ "leader": "m1", "candidate": "m2" }), json!({ "leader": "m1" })] {
        for asked in &cluster.members {
            let answer = asked.post("/switchover", &body).await;
            assert_eq!(answer.status, 412, "{}", answer.body);
            assert!(answer.body.contains("m2 does not stream from m1"), "{}", answer.body);
        }
    }
    assert_eq!(leader.postmaster(), postmaster);
    assert!(leader.sql("CREATE TABLE still ()").await.is_ok());
}
