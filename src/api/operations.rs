//! `GET /operations`: the operators' changes of leadership, the newest first. `GET /operations/{id}`: one of them.

use serde_json::{Value, json};

use super::answer::HttpAnswer;
use super::wire::operation_body;
use crate::agent::Handle;
use crate::model::{ClusterView, Operation, OperationId, OperationState};

/// The most operations in one answer.
const OPERATIONS_MAX: usize = 50;

/// Answers for `path`.
pub(super) async fn get(handle: &Handle, path: &str) -> HttpAnswer {
    match path.trim_end_matches('/').strip_prefix("/operations/") {
        None => answer(listed(handle).await),
        Some(id) => match id.parse() {
            Ok(id) => answer(one(handle, id).await),
            Err(_) => {
                HttpAnswer::text(400, format!("`{id}` is no identifier of an operation: it is a number"))
            }
        },
    }
}

fn answer<T: Into<Value>>(found: Result<T, HttpAnswer>) -> HttpAnswer {
    found.map_or_else(|refusal| refusal, |found| HttpAnswer::json(200, &found.into()))
}

/// The newest, as JSON.
pub(super) async fn listed(handle: &Handle) -> Result<Vec<Value>, HttpAnswer> {
    let (_, all) = all(handle).await?;
    Ok(all.iter().take(OPERATIONS_MAX).map(operation_body).collect())
}

/// One, as JSON.
pub(super) async fn one(handle: &Handle, id: OperationId) -> Result<Value, HttpAnswer> {
    let (view, all) = all(handle).await?;
    let found = all.iter().find(|operation| operation.id == id);
    let found = found.ok_or_else(|| HttpAnswer::text(404, format!("etcd knows no operation {id}")))?;
    // Only the leader knows its steps before they are in the journal.
    let under_way = found.state == OperationState::UnderWay && found.steps.is_empty();
    let leader = view.leader_member().filter(|(name, _)| **name != handle.status().me.name);
    if let Some(api_url) =
        leader.and_then(|(_, member)| member.record.api_url.as_deref()).filter(|_| under_way)
        && let Ok((200, text)) = handle.get_peer(api_url, &format!("/operations/{id}")).await
        && let Ok(Value::Object(theirs)) = serde_json::from_str(&text)
        && theirs.get("id") == Some(&json!(id))
    {
        return Ok(Value::Object(theirs));
    }
    Ok(operation_body(found))
}

async fn all(handle: &Handle) -> Result<(ClusterView, Vec<Operation>), HttpAnswer> {
    let view = handle.read_cluster().await.map_err(|error| HttpAnswer::unavailable(&error))?;
    let records = handle.read_journal().await.map_err(|error| HttpAnswer::unavailable(&error))?;
    let mut all = Operation::all(&view, &records);
    let status = handle.status();
    if let Some(progress) = &status.operation {
        all.iter_mut().for_each(|operation| operation.add_progress(&status.me.name, progress));
    }
    Ok((view, all))
}
