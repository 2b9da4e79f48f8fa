//! Switchover and failover, from the request to the answer.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Rig, name, primary, rig, synchronous, view};
use crate::model::{FailoverRequest, LeaderKey, MemberName, Term, WallTime};
use crate::os::clock;

async fn ready() -> Rig {
    rig(primary(clock::now())).await
}

async fn refused(rig: &Rig, path: &str, body: Value, status: u16, text: &str) {
    let answer = rig.call("POST", path, Some(body.clone())).await;
    assert_eq!(answer.0, status, "{path} {body}: {}", answer.1);
    assert!(answer.1.contains(text), "{path} {body}: {}", answer.1);
}

#[tokio::test]
async fn refusals_come_in_the_order_of_the_contract() {
    let rig = ready().await;
    let only = "Failover could be performed only to a specific candidate";
    refused(&rig, "/failover", json!({"leader": "n1"}), 400, only).await;
    refused(&rig, "/switchover", json!({"candidate": "n2"}), 400, "specific leader").await;
    let scheduled = json!({"candidate": "n2", "scheduled_at": "2100-01-01T00:00:00Z"});
    refused(&rig, "/failover", scheduled, 400, "Failover can't be scheduled").await;
    for (at, status) in [("2100-01-01T00:00:00", 400), ("1999-01-01T00:00:00Z", 422), ("tea time", 422)] {
        refused(&rig, "/switchover", json!({"leader": "n1", "scheduled_at": at}), status, "").await;
    }
    refused(&rig, "/switchover", json!({"leader": "n1", "candidate": "n1"}), 400, "are the same").await;
    refused(&rig, "/switchover", json!({"leader": "n2"}), 412, "leader name does not match").await;
    refused(&rig, "/failover", json!({"leader": "n2", "candidate": "n1"}), 412, "does not match").await;
    refused(&rig, "/switchover", json!({"leader": "n1", "candidate": "n9"}), 412, "candidate").await;
    refused(&rig, "/failover", json!({"candidate": "n1"}), 412, "leads already").await;
    assert!(rig.world().failover.is_empty(), "nothing was written");
}

#[tokio::test]
async fn a_request_without_an_eligible_candidate_is_refused() {
    let rig = ready().await;
    rig.world().peer_reachable = false;
    let text = "failover is not possible: no good candidates have been found";
    refused(&rig, "/failover", json!({"candidate": "n2"}), 412, text).await;
    let text = "switchover is not possible: no good candidates have been found";
    refused(&rig, "/switchover", json!({"leader": "n1"}), 412, text).await;
    rig.world().cluster.as_mut().expect("set").members.remove(&name("n2"));
    let text = "switchover is not possible: cluster does not have members except leader";
    refused(&rig, "/switchover", json!({"leader": "n1"}), 412, text).await;
}

/// The option is necessary if etcd knows no cluster, and refused otherwise.
#[tokio::test]
async fn only_a_cluster_unknown_to_etcd_is_rebuilt() {
    let rig = ready().await;
    let word = json!({"candidate": "n2", "rebuild": true});
    refused(&rig, "/failover", word.clone(), 412, "etcd knows the cluster").await;
    refused(&rig, "/failover", json!({"candidate": "n2", "rebuild": "yes"}), 400, "true or false").await;
    refused(&rig, "/switchover", json!({"leader": "n1", "rebuild": true}), 400, "of a failover").await;
    {
        let mut world = rig.world();
        let cluster = world.cluster.as_mut().expect("set");
        (cluster.leader, cluster.initialize) = (None, Some(String::new()));
    }
    refused(&rig, "/failover", word.clone(), 412, "another member is creating").await;
    rig.world().cluster.as_mut().expect("set").initialize = None;
    refused(&rig, "/failover", json!({"candidate": "n2"}), 412, "--candidate n2 --rebuild").await;
    refused(&rig, "/failover", json!({"candidate": "n9", "rebuild": true}), 412, "does not exists").await;
    assert!(rig.world().failover.is_empty(), "nothing was written");
    // Its PostgreSQL need not answer. After the checks the fake etcd refuses the write.
    rig.world().peer_reachable = false;
    rig.world().writes_succeed = false;
    refused(&rig, "/failover", word, 503, "failed to write").await;
}

/// `n2` answers and is close, but no walsender of the leader sends to it: asked at the leader and at another member.
#[tokio::test]
async fn a_candidate_that_does_not_stream_is_refused() {
    let to_n2 = json!({"leader": "n1", "candidate": "n2"});
    let at_leader = ready().await;
    at_leader.status.send_modify(|status| {
        let sql = Arc::make_mut(status).postgres.sql.as_mut().expect("it runs");
        sql.sync.walsenders.clear();
    });
    let text = "switchover is not possible: n2 does not stream from n1, the leader";
    refused(&at_leader, "/switchover", to_n2.clone(), 412, text).await;
    refused(&at_leader, "/switchover", json!({"leader": "n1"}), 412, text).await;
    let elsewhere = rig(super::replica(clock::now())).await;
    elsewhere.world().leader_standbys.clear();
    refused(&elsewhere, "/switchover", to_n2, 412, text).await;
    assert!(at_leader.world().failover.is_empty() && elsewhere.world().failover.is_empty());
}

#[tokio::test]
async fn in_mode_on_only_a_synchronous_standby_is_accepted() {
    let rig = ready().await;
    let set = |mode: &str, voters: &[&str]| {
        synchronous(rig.world().cluster.as_mut().expect("set"), mode, "n1", 0, voters);
    };
    set("on", &[]);
    let to_n2 = json!({"leader": "n1", "candidate": "n2"});
    let text = "candidate name does not match with sync_standby";
    refused(&rig, "/switchover", to_n2.clone(), 412, text).await;
    refused(&rig, "/failover", to_n2.clone(), 412, text).await;
    refused(&rig, "/switchover", json!({"leader": "n1", "candidate": "n9"}), 412, text).await;
    let text = "switchover is not possible: can not find sync_standby";
    refused(&rig, "/switchover", json!({"leader": "n1"}), 412, text).await;
    assert!(rig.world().failover.is_empty(), "nothing was written");
    // After the checks the fake etcd refuses the write.
    rig.world().writes_succeed = false;
    let text = "failed to write";
    refused(&rig, "/failover", json!({"candidate": "n2"}), 503, text).await;
    for (mode, voters) in [("on", &["N2"][..]), ("quorum", &[]), ("off", &[])] {
        set(mode, voters);
        refused(&rig, "/switchover", to_n2.clone(), 503, text).await;
        refused(&rig, "/switchover", json!({"leader": "n1"}), 503, text).await;
    }
    set("on", &["n2"]);
    rig.world().peer_reachable = false;
    let text = "switchover is not possible: no good candidates have been found";
    refused(&rig, "/switchover", json!({"leader": "n1"}), 412, text).await;
}

#[tokio::test]
async fn in_pause_a_switchover_needs_a_candidate_and_no_schedule() {
    let rig = ready().await;
    rig.world().cluster.as_mut().expect("set").config.as_mut().expect("set").text =
        r#"{"pause":true}"#.to_owned();
    let scheduled = json!({"leader": "n1", "scheduled_at": "2100-01-01T00:00:00Z"});
    refused(&rig, "/switchover", scheduled, 400, "Can't schedule switchover in the paused state").await;
    refused(&rig, "/switchover", json!({"leader": "n1"}), 400, "specific candidate").await;
}

#[tokio::test]
async fn a_switchover_is_scheduled_and_cancelled() {
    let rig = ready().await;
    let body = json!({"leader": "n1", "member": "n2", "scheduled_at": "2100-01-01T00:00:00Z"});
    let answer = rig.call("POST", "/switchover", Some(body)).await;
    assert_eq!(answer, (202, "Switchover scheduled".to_owned()));
    let expected = FailoverRequest {
        leader: Some(name("n1")),
        candidate: Some(name("n2")),
        scheduled_at: Some(WallTime(4_102_444_800_000)),
        confirmed_down: Vec::new(),
        rebuild: false,
        requested_by: Some("REST from 127.0.0.1".to_owned()),
    };
    assert_eq!(rig.world().failover, [Some(expected)]);
    assert_eq!(rig.call("DELETE", "/switchover", None).await.0, 200);
    assert_eq!(rig.world().failover.last(), Some(&None));
    assert_eq!(rig.call("DELETE", "/switchover", None).await.0, 404);
    rig.world().writes_succeed = false;
    refused(&rig, "/switchover", json!({"leader": "n1", "scheduled_at": ""}), 503, "failed to write").await;
}

/// Plays the cluster: once the key is written, `leader` leads and the key is empty.
async fn resolve(rig: &Rig, leader: &str) {
    while rig.world().failover.is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let leader: MemberName = name(leader);
    let after = crate::model::ClusterView {
        leader: Some(LeaderKey { name: leader, lease: None, term: Term(9) }),
        ..view()
    };
    rig.world().cluster = Some(after.clone());
    rig.status.send_modify(|status| Arc::make_mut(status).view = Some(Arc::new(after)));
}

#[tokio::test]
async fn the_answer_names_the_new_leader() {
    let cases = [
        ("/switchover", json!({"leader": "n1"}), "n2", 200, "Successfully switched over to \"n2\""),
        (
            "/switchover",
            json!({"leader": "n1", "candidate": "n2", "scheduled_at": ""}),
            "n2",
            200,
            "Successfully switched over to \"n2\"",
        ),
        ("/failover", json!({"candidate": "n2"}), "n2", 200, "Successfully failed over to \"n2\""),
        ("/failover", json!({"candidate": "n2"}), "n3", 200, "Failed over to \"n3\" instead of \"n2\""),
        (
            "/failover",
            json!({"leader": "n1", "candidate": "n2"}),
            "n2",
            200,
            "Successfully switched over to \"n2\"",
        ),
        ("/switchover", json!({"leader": "n1"}), "n1", 503, "Switchover failed: n2 lags by 17 GB"),
    ];
    for (path, body, leader, status, text) in cases {
        let rig = ready().await;
        rig.status.send_modify(|status| Arc::make_mut(status).because = "n2 lags by 17 GB".to_owned());
        let (answer, ()) = tokio::join!(rig.call("POST", path, Some(body.clone())), resolve(&rig, leader));
        assert_eq!(answer, (status, text.to_owned()), "{path} {body}");
    }
}

/// The watch lagged when the request came: an earlier leader does not count as success.
#[tokio::test]
async fn a_view_older_than_the_request_does_not_count() {
    let rig = ready().await;
    let past = LeaderKey { name: name("n3"), lease: None, term: Term(1) };
    let behind = crate::model::ClusterView { leader: Some(past), revision: 6, ..view() };
    rig.status.send_modify(|status| Arc::make_mut(status).view = Some(Arc::new(behind)));
    let resolve_later = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        resolve(&rig, "n2").await;
    };
    let (answer, ()) =
        tokio::join!(rig.call("POST", "/failover", Some(json!({"candidate": "n2"}))), resolve_later);
    assert_eq!(answer, (200, "Successfully failed over to \"n2\"".to_owned()));
}
