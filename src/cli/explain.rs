//! `explain`: who leads and until when, or why nobody does; who is waited for, and each way out with its cost.

pub mod now;
mod text;
mod ways;

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use self::now::ClusterNow;
pub use self::text::text;
use super::context::Context;
use super::error::CliResult;
use super::exit::Exit;
use super::output::{Format, document};
use super::target::open;
use super::why;
use crate::client::Client;
use crate::model::MemberName;

/// Options of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The cluster; default: the configured cluster.
    cluster: Option<String>,
}

/// Runs `explain`.
pub async fn execute(context: &Context, args: &ExplainArgs) -> CliResult {
    let client = open(context, args.cluster.as_deref()).await?;
    let now = look(&client).await?;
    let text = match context.global.output {
        Format::Table => text(&now),
        format @ (Format::Json | Format::Yaml | Format::Tsv) => document(&to_json(&now), format)?,
    };
    context.ui.data(&text);
    Ok(Exit::Done)
}

/// Reads etcd, and asks every member.
async fn look(client: &Client) -> Result<ClusterNow, super::error::CliError> {
    let view = client.view().await?;
    let ask = async |name: &MemberName, url: Option<&str>| {
        let answer = match url {
            Some(url) => client.ask(url).await,
            None => None,
        };
        (name.clone(), answer)
    };
    let members = view.members.iter().map(|(name, key)| ask(name, key.record.api_url.as_deref()));
    let answers: BTreeMap<_, _> = futures::future::join_all(members).await.into_iter().collect();
    let lease = match view.leader.as_ref().and_then(|leader| leader.lease) {
        Some(lease) => client.lease_left(lease).await,
        None => None,
    };
    let last = client.journal().await.ok().and_then(|records| why::last_headline(&records));
    let is_full = client.is_full().await;
    Ok(ClusterNow { scope: client.scope.clone(), view, answers, lease, is_full, last })
}

fn to_json(now: &ClusterNow) -> Value {
    let leader = now.view.leader.as_ref();
    let seconds = |span: Duration| span.as_secs();
    let members: Vec<Value> = now.members().map(|member| member.to_json()).collect();
    let ways: Vec<Value> =
        ways::of(now).into_iter().map(|way| json!({ "do": way.how, "cost": way.cost })).collect();
    json!({
        "scope": now.scope,
        "leader": leader.map(|leader| &leader.name),
        "term": leader.map(|leader| leader.term),
        "lease": now.lease.map(|(left, ttl)| json!({ "left_s": seconds(left), "ttl_s": seconds(ttl) })),
        "state": ways::state(now),
        "waits_for": ways::waits_for(now),
        "guarantee": now.guarantee(),
        "members": members,
        "ways": ways,
        "last_change": now.last,
    })
}
