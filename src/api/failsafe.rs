//! Failsafe mode over REST: a leader that etcd does not answer asks the members to let it lead on.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::answer::HttpAnswer;
use super::sentences::answer_of;
use crate::agent::{Handle, Status};
use crate::model::{Ask, FailsafeQuestion, Lsn, MemberName};

/// GET /failsafe: the members that may take the leader key, each with its `api_url`.
pub(super) fn get(status: &Status) -> HttpAnswer {
    match status.last_view.as_ref().and_then(|view| view.failsafe.as_ref()) {
        Some(key) => HttpAnswer::json(200, &serde_json::json!(key.members)),
        None => HttpAnswer::text(502, "failsafe_mode is not enabled"),
    }
}

/// POST /failsafe.
pub(super) async fn post(handle: &Handle, body: &Map<String, Value>) -> Result<HttpAnswer, HttpAnswer> {
    let text = |key: &str| {
        let refused = || HttpAnswer::text(400, format!("`{key}` is missing or no text"));
        body.get(key).and_then(Value::as_str).ok_or_else(refused)
    };
    let leader = MemberName::new(text("name")?)
        .map_err(|error| HttpAnswer::text(400, format!("`name` is no member's name: {error}")))?;
    let conn_url = text("conn_url")?.to_owned();
    text("api_url")?;
    let slots = body.get("slots").and_then(Value::as_object).map(positions).unwrap_or_default();
    let ttl_ms = body.get("ttl_ms").and_then(Value::as_u64);
    let member = body.get("member").and_then(Value::as_str).and_then(|name| MemberName::new(name).ok());
    let asked = body.get("scope").and_then(Value::as_str).map(str::to_owned).zip(member);
    let reply = handle.ask(Ask::Failsafe(FailsafeQuestion { leader, conn_url, asked, ttl_ms, slots })).await;
    let sql = handle.status().postgres.answering().map(|sql| sql.lsn()).filter(|lsn| lsn.is_known());
    Ok(answer_of(&reply).with_position(sql))
}

fn positions(slots: &Map<String, Value>) -> BTreeMap<String, Lsn> {
    slots.iter().filter_map(|(name, lsn)| Some((name.clone(), Lsn(lsn.as_u64()?)))).collect()
}
