//! `reinit`: delete the data of replicas and clone them again.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::selection::{Chosen, MemberRequest, RoleFilter, choose, chosen_names, member_names, send, show};
use super::target::open;
use super::ui::Consent;
use crate::client::{Client, RestAnswer};

/// The end of a member's answer while a long action runs there.
const BUSY: &str = " already in progress";
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Options of `reinit`.
#[derive(Debug, Args)]
pub struct ReinitArgs {
    /// The cluster.
    cluster: String,
    /// Members to clone again; without one, the command asks.
    members: Vec<String>,
    /// Do not ask for confirmation, and cancel a running action on the member.
    #[arg(long)]
    force: bool,
    /// Wait until the clone is complete.
    #[arg(long)]
    wait: bool,
    /// Clone from the leader instead of a replica.
    #[arg(long)]
    from_leader: bool,
}

/// Runs `reinit`.
pub async fn execute(context: &Context, args: &ReinitArgs) -> CliResult {
    let client = open(context, Some(&args.cluster)).await?;
    let view = client.view().await?;
    let members = match args.members.is_empty() {
        false => args.members.clone(),
        true if args.force || !context.ui.can_ask() => {
            return Err(
                CliError::usage("which member?").hint(format!("its members are: {}", member_names(&view)))
            );
        }
        true => vec![context.ui.ask(&format!("Member to clone again [{}]: ", member_names(&view)))?],
    };
    let chosen = choose(&view, &members, RoleFilter::Any)?;
    if let Some(leader) = chosen.iter().find(|member| super::rows::is_leader(&view, &member.name)) {
        return Err(CliError::failed(format!(
            "{} leads the cluster: only a replica can be cloned again",
            leader.name
        ))
        .hint("switch over first"));
    }
    show(context, &client, &view)?;
    let question = format!("Wipe the data directory of {} and clone it again?", chosen_names(&chosen));
    context.ui.consent(&question, Consent::from_force(args.force))?;
    let mut exit = Exit::Done;
    for member in &chosen {
        let answer = ask(context, args, &client, member).await?;
        let word = if answer.is_accepted() { "accepted" } else { "refused" };
        context.ui.say(&format!("{}: {word}: {}", member.name, answer.text()));
        if !answer.is_accepted() {
            exit = Exit::Failed;
        } else if args.wait {
            finished(context, &client, member).await;
        }
    }
    Ok(exit)
}

async fn ask(
    context: &Context,
    args: &ReinitArgs,
    client: &Client,
    member: &Chosen,
) -> Result<RestAnswer, CliError> {
    let order = |force: bool| MemberRequest {
        word: "reinitialize",
        method: "POST",
        endpoint: "/reinitialize",
        body: Some(json!({"force": force, "from_leader": args.from_leader})),
    };
    let answer = send(client, member, &order(args.force)).await?;
    if args.force || !answer.text().ends_with(BUSY) || !context.ui.can_ask() {
        return Ok(answer);
    }
    let question = format!("{}: {}. Cancel that and clone again?", member.name, answer.text());
    context.ui.consent(&question, Consent::Ask)?;
    send(client, member, &order(true)).await
}

/// Waits until the member no longer clones.
async fn finished(context: &Context, client: &Client, member: &Chosen) {
    let mut shown = String::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let body = client.ask(&member.api_url).await;
        let state = body.as_ref().and_then(|body| body.get("state")).and_then(Value::as_str);
        let Some(state) = state else { continue };
        if state != shown {
            context.ui.say(&format!("{}: {state}", member.name));
            shown = state.to_owned();
        }
        if state != "creating replica" && state != "stopping" && state != "stopped" {
            return;
        }
    }
}
