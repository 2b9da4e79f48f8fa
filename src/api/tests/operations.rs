//! Operations, from the request to the answer.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Rig, name, primary, replica, rig};
use crate::model::*;
use crate::os::clock;

async fn get(rig: &Rig, path: &str) -> (u16, Value) {
    let (status, body) = rig.call("GET", path, None).await;
    (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

fn key() -> FailoverKey {
    let request =
        FailoverRequest { leader: Some(name("n1")), candidate: Some(name("n2")), ..Default::default() };
    FailoverKey { request, mod_revision: 9 }
}

fn refused() -> JournalRecord {
    let phase = Some(OperationPhase::Preflight);
    let steps = vec![JournalStep { phase, ..JournalStep::new(WallTime(1_795_384_347_000), "asking") }];
    let (why, request) = ("n2 is not a standby".to_owned(), Some(ChangeRequest::of(&key())));
    let entry = JournalEntry::Refused { why, request, steps };
    JournalRecord { term: Term(3), by: name("n1"), at: WallTime(1_795_384_348_000), entry }
}

/// Patroni's answer has the identifier in a header, where its clients do not look.
#[tokio::test]
async fn a_request_answers_with_the_identifier_of_its_operation() {
    let rig = rig(primary(clock::now())).await;
    let body = json!({"leader": "n1", "candidate": "n2", "scheduled_at": "2100-01-01T00:00:00Z"}).to_string();
    let request =
        format!("POST /switchover HTTP/1.0\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let answer = rig.raw(&request).await;
    assert!(answer.contains(" 202 ") && answer.ends_with("Switchover scheduled"), "{answer}");
    assert!(answer.contains("\r\noperation: 9\r\n"), "{answer}");
    let (status, found) = get(&rig, "/operations/9").await;
    let expected = json!({"id": 9, "kind": "switchover", "state": "scheduled", "from": "n1", "candidate": "n2",
        "scheduled_at": "2100-01-01T00:00:00+00:00", "requested_by": "REST from 127.0.0.1", "phases": []});
    assert_eq!((status, found), (200, expected));
}

#[tokio::test]
async fn an_operation_is_under_way_then_refused() {
    let rig = rig(primary(clock::now())).await;
    rig.world().cluster.as_mut().expect("set").failover = Some(key());
    let step = JournalStep { phase: Some(OperationPhase::Stop), ..JournalStep::new(WallTime(0), "stopping") };
    rig.status.send_modify(|status| {
        let mut busy = (**status).clone();
        busy.operation = Some(HandOverProgress { id: 9, steps: vec![step], give_up_at: WallTime(60_000) });
        *status = Arc::new(busy);
    });
    let (_, live) = get(&rig, "/operations/9").await;
    assert_eq!(
        (&live["state"], &live["phases"][0]["phase"]),
        (&json!("under_way"), &json!("stop")),
        "{live}"
    );
    assert_eq!(live["give_up_at"], "1970-01-01T00:01:00+00:00");

    rig.world().cluster.as_mut().expect("set").failover = None;
    rig.world().journal = vec![refused()];
    let (_, all) = get(&rig, "/operations").await;
    let expected = json!([{"id": 9, "kind": "switchover", "state": "refused", "from": "n1", "candidate": "n2",
        "because": "n2 is not a standby", "ended_at": "2026-11-22T21:52:28+00:00",
        "phases": [{"phase": "preflight", "at": "2026-11-22T21:52:27+00:00", "by": "n1", "text": "asking"}]}]);
    assert_eq!(all, expected);
    assert_eq!(get(&rig, "/operations/8").await.0, 404);
    assert_eq!(get(&rig, "/operations/tea").await.0, 400);
}

/// Any member answers: what only the leader knows is asked there.
#[tokio::test]
async fn a_standby_asks_the_leader_for_the_steps_under_way() {
    let rig = rig(replica(clock::now())).await;
    rig.world().cluster.as_mut().expect("set").failover = Some(key());
    assert_eq!(get(&rig, "/operations/9").await.1["phases"], json!([]), "the leader is silent");
    let theirs = json!({"id": 9, "phases": [{"phase": "checkpoint"}]});
    let url = "http://127.0.0.1:1/operations/9".to_owned();
    rig.world().peer_bodies.insert(url, (200, theirs.to_string()));
    assert_eq!(get(&rig, "/operations/9").await, (200, theirs));
}
