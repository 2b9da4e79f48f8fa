//! `operations`: the changes of leadership that operators requested.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::output::{Format, document};
use super::sheet::{Column, Sheet};
use super::target::open;
use crate::api::wire::operation_body;
use crate::client::{ASK_WITHIN, Client};
use crate::model::{Operation, OperationId};

/// The interval between looks at an operation that is followed.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Options of `operations`.
#[derive(Debug, Args)]
pub struct OperationsArgs {
    /// The cluster; default: the configured cluster.
    cluster: Option<String>,
    /// Follow this one: a line for each phase, until it has ended.
    #[arg(long, value_name = "ID")]
    id: Option<OperationId>,
}

/// Runs `operations`.
pub async fn execute(context: &Context, args: &OperationsArgs) -> CliResult {
    let client = open(context, args.cluster.as_deref()).await?;
    if let Some(id) = args.id {
        return follow(context, &client, id).await;
    }
    let bodies: Vec<Value> = all(&client).await?.iter().map(operation_body).collect();
    let text = match context.global.output {
        Format::Table => sheet(&client.scope, &bodies).render(Format::Table)?,
        format @ (Format::Json | Format::Yaml | Format::Tsv) => document(&json!(bodies), format)?,
    };
    context.ui.data(&text);
    Ok(Exit::Done)
}

async fn all(client: &Client) -> Result<Vec<Operation>, CliError> {
    // The journal last: what is decided meanwhile is in it.
    let view = client.view().await?;
    Ok(Operation::all(&view, &client.journal().await?))
}

/// Prints each phase, and the end. Any member can answer, and etcd knows the end if none does.
async fn follow(context: &Context, client: &Client, id: OperationId) -> CliResult {
    let (began, mut printed) = (Instant::now(), 0);
    loop {
        let body = match ask(client, id).await {
            Some(body) => body,
            None => all(client)
                .await?
                .iter()
                .find(|operation| operation.id == id)
                .map(operation_body)
                .ok_or_else(|| {
                    CliError::failed(format!("etcd knows no operation {id}")).hint("`operations` lists them")
                })?,
        };
        let phases = body.get("phases").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if context.global.output == Format::Table {
            for phase in phases.iter().skip(printed) {
                context.ui.data(&line(phase));
            }
        }
        printed = printed.max(phases.len());
        let state = text(&body, "state");
        match state {
            "under_way" => tokio::time::sleep(LOOK_EVERY).await,
            _ => {
                let end = match context.global.output {
                    Format::Table => end(id, &body, began.elapsed()),
                    format @ (Format::Json | Format::Yaml | Format::Tsv) => document(&body, format)?,
                };
                context.ui.data(&end);
                return Ok(if state == "refused" { Exit::Failed } else { Exit::Done });
            }
        }
    }
}

/// Asks the leader first, then the other members.
async fn ask(client: &Client, id: OperationId) -> Option<Value> {
    let view = client.view().await.ok()?;
    let leader = view.leader.as_ref().map(|leader| &leader.name);
    let mut members: Vec<_> = view.members.iter().collect();
    members.sort_by_key(|(name, _)| Some(*name) != leader);
    for api_url in members.iter().filter_map(|(_, member)| member.record.api_url.as_deref()) {
        let answer = client.call("GET", api_url, &format!("/operations/{id}"), None, ASK_WITHIN).await;
        let body = answer.ok().and_then(|answer| serde_json::from_str::<Value>(&answer.body).ok());
        if let Some(body) = body.filter(|body| body.get("id") == Some(&json!(id))) {
            return Some(body);
        }
    }
    None
}

fn text<'a>(body: &'a Value, key: &str) -> &'a str {
    body.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn line(phase: &Value) -> String {
    let (at, name) = (text(phase, "at"), text(phase, "phase").replace('_', " "));
    format!("{at}  {}  {name:10}  {}\n", text(phase, "by"), text(phase, "text"))
}

/// The last line.
fn end(id: OperationId, body: &Value, elapsed: Duration) -> String {
    let state = text(body, "state");
    let end = match (state, text(body, "because")) {
        ("done", _) => format!("{} leads", text(body, "leader")),
        ("refused", why) => format!("refused: {why}. The leader before it leads on, in the same term"),
        (_, _) => format!("{state}, at {}", text(body, "scheduled_at")),
    };
    let seconds = elapsed.as_secs_f64();
    format!("operation {id}: {end} (followed for {seconds:.1} s)\n")
}

fn sheet(scope: &str, bodies: &[Value]) -> Sheet<'static> {
    const COLUMNS: [(&str, &str); 7] = [
        ("Id", "id"),
        ("Kind", "kind"),
        ("From", "from"),
        ("Candidate", "candidate"),
        ("State", "state"),
        ("Leader", "leader"),
        ("Ended", "ended_at"),
    ];
    let cell = |body: &Value, key: &str| match body.get(key) {
        Some(Value::String(text)) if key == "state" => json!(text.replace('_', " ")),
        found => found.cloned().unwrap_or_default(),
    };
    let refusal = |body: &Value| {
        let why = body.get("because")?.as_str()?;
        Some(format!("{}: {why}", body.get("id")?))
    };
    Sheet {
        title: format!(" Operations of {scope} "),
        columns: COLUMNS.iter().map(|(name, _)| Column::text(name)).collect(),
        rows: bodies.iter().map(|body| COLUMNS.iter().map(|(_, key)| cell(body, key)).collect()).collect(),
        footer: bodies.iter().filter_map(refusal).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_their_reason_below_the_table_and_at_the_end() {
        let refused =
            json!({"id": 9, "kind": "switchover", "from": "m1", "state": "refused", "because": "m2 is far"});
        let under_way = json!({"id": 12, "kind": "failover", "candidate": "m2", "state": "under_way"});
        let table = sheet("demo", &[under_way, refused.clone()]).render(Format::Table).expect("a table");
        assert!(table.contains("| 12 | failover   |      | m2        | under way |"), "{table}");
        assert!(table.ends_with(" 9: m2 is far\n"), "{table}");
        assert!(end(9, &refused, Duration::ZERO).starts_with("operation 9: refused: m2 is far."));
        let done = json!({"state": "done", "leader": "m2"});
        assert!(end(9, &done, Duration::ZERO).starts_with("operation 9: m2 leads"));
    }
}
