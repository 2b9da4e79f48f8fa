//! `flush`: withdraw a scheduled restart or switchover.

use clap::{Args, ValueEnum};

use super::called::CalledAs;
use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::selection::{MemberRequest, RoleFilter, choose, chosen_names, send_each};
use super::target::open;
use super::ui::Consent;
use crate::client::{Client, ClientError};
use crate::model::ClusterView;

/// Options of `flush`.
#[derive(Debug, Args)]
#[command(override_usage = "matriarch flush [OPTIONS] CLUSTER [MEMBER]... <restart|switchover>")]
pub struct FlushArgs {
    /// The cluster.
    cluster: String,
    /// Members (default: all members), and at the end `restart` or `switchover`.
    #[arg(required = true, value_name = "MEMBERS, TARGET")]
    words: Vec<String>,
    /// Select only members with this role.
    #[arg(short, long, value_enum, default_value_t = RoleFilter::Any)]
    role: RoleFilter,
    /// Do not ask for confirmation.
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum FlushTarget {
    Restart,
    Switchover,
}

/// Runs `flush`.
pub async fn execute(context: &Context, args: &FlushArgs) -> CliResult {
    let (target, names) = args.words.split_last().ok_or_else(|| CliError::usage("flush what?"))?;
    let target = FlushTarget::from_str(target, false).map_err(|_| {
        CliError::usage(format!("`{target}` cannot be flushed: write `restart` or `switchover`"))
    })?;
    let client = open(context, Some(&args.cluster)).await?;
    let view = client.view().await?;
    match target {
        FlushTarget::Restart => restarts(context, args, &client, &view, names).await,
        FlushTarget::Switchover => switchover(context, args, &client, &view).await,
    }
}

async fn restarts(
    context: &Context,
    args: &FlushArgs,
    client: &Client,
    view: &ClusterView,
    names: &[String],
) -> CliResult {
    let (scheduled, others): (Vec<_>, Vec<_>) =
        choose(view, names, args.role)?.into_iter().partition(|member| member.has_scheduled_restart);
    for member in others {
        context.ui.say(&format!("{}: no restart is scheduled", member.name));
    }
    if scheduled.is_empty() {
        return Ok(Exit::Done);
    }
    let question = format!("Withdraw the scheduled restart of {}?", chosen_names(&scheduled));
    context.ui.consent(&question, Consent::from_force(args.force))?;
    let order = MemberRequest { word: "flush", method: "DELETE", endpoint: "/restart", body: None };
    send_each(context, client, &scheduled, &order).await
}

async fn switchover(context: &Context, args: &FlushArgs, client: &Client, view: &ClusterView) -> CliResult {
    let scheduled = view.failover.as_ref().filter(|failover| failover.request.scheduled_at.is_some());
    let Some(scheduled) = scheduled else {
        context.ui.say("No switchover is scheduled");
        return Ok(Exit::Done);
    };
    // patronictl does not ask.
    let decided = args.force || context.called == CalledAs::Patronictl;
    let question = format!("Withdraw the scheduled switchover of the cluster {}?", client.scope);
    context.ui.consent(&question, Consent::from_force(decided))?;
    match client.call_any(view, "DELETE", "/switchover", None).await {
        Ok(answer) => {
            context.ui.say(answer.text());
            Ok(if answer.is_accepted() { Exit::Done } else { Exit::Failed })
        }
        Err(error @ (ClientError::Silent(_) | ClientError::NoMembers)) => {
            context.ui.say(&format!("{error}: the request is withdrawn in etcd"));
            if client.withdraw_failover(scheduled.mod_revision).await? {
                return Ok(Exit::Done);
            }
            Err(CliError::failed(
                "another client changed the request at the same time: nothing was withdrawn",
            ))
        }
        Err(error) => Err(error.into()),
    }
}
