//! An operation as JSON.

use serde_json::{Map, Value, json};

use crate::api::time;
use crate::model::{JournalStep, MemberName, Operation};

/// One operation, for `/operations` and the command line.
pub fn operation_body(operation: &Operation) -> Value {
    let Operation { id, request, state, leader, because, ended_at, give_up_at, steps } = operation;
    let kind = if request.leader.is_some() { "switchover" } else { "failover" };
    let phase = |(by, step): &(MemberName, JournalStep)| json!({"phase": step.phase, "at": time::iso(step.at), "by": by, "text": step.because});
    let phases: Vec<Value> = steps.iter().map(phase).collect();
    let mut body = Map::new();
    let mut insert = |key: &str, value: Value| {
        if !value.is_null() {
            body.insert(key.to_owned(), value);
        }
    };
    insert("id", json!(id));
    insert("kind", json!(kind));
    insert("state", json!(state));
    insert("from", json!(request.leader));
    insert("candidate", json!(request.candidate));
    insert("scheduled_at", json!(request.scheduled_at.map(time::iso)));
    insert("requested_by", json!(request.requested_by));
    insert("leader", json!(leader));
    insert("because", json!(because));
    insert("ended_at", json!(ended_at.map(time::iso)));
    insert("give_up_at", json!(give_up_at.map(time::iso)));
    insert("phases", json!(phases));
    Value::Object(body)
}
