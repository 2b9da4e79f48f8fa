//! `failover`: make a member the leader although the present one may be gone.

use clap::Args;
use serde_json::json;

use super::client::Client;
use super::dispatch::Context;
use super::error::{CliError, CliResult};
use super::selection::{member_name, show};
use super::switchover::{self, Change};
use super::ui::Consent;

/// Options of `failover`.
#[derive(Debug, Args)]
pub struct FailoverArgs {
    /// The cluster; the configured one if none is named.
    cluster: Option<String>,
    /// Who should lead.
    #[arg(long)]
    candidate: Option<String>,
    /// Do not ask.
    #[arg(long)]
    force: bool,
}

/// Runs `failover`.
pub async fn execute(context: &Context, args: &FailoverArgs) -> CliResult {
    let client = Client::open(context, args.cluster.as_deref()).await?;
    let view = client.view().await?;
    show(context, &client, &view)?;
    let candidate = switchover::candidate(context, &view, args.candidate.as_deref(), args.force)?
        .ok_or_else(|| CliError::usage("a failover needs a candidate").hint("name it with --candidate"))?;
    member_name(&candidate)?;
    let from = view.leader.as_ref().map(|leader| leader.name.to_string());
    let instead =
        from.as_ref().map_or_else(|| "(nobody leads now)".to_owned(), |name| format!("instead of {name}"));
    let question = format!(
        "Fail the cluster {} over to {candidate} {instead}? Writes that did not reach {candidate} are lost.",
        client.scope
    );
    context.ui.consent(&question, Consent::from_force(args.force))?;
    let body = json!({"candidate": candidate});
    let change = Change { word: "Failover", endpoint: "/failover", body, from, to: Some(candidate) };
    switchover::perform(context, &client, &view, change).await
}
