//! `restart`: restart the PostgreSQL of members, now or later.

use clap::Args;
use futures::future::join_all;
use serde_json::{Map, Value, json};

use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::rolling_restart;
use super::schedule::schedule;
use super::selection::{Chosen, MemberRequest, MembersArgs, choose, chosen_names, send, send_each, show};
use super::target::open;
use super::ui::Consent;
use crate::client::Client;

/// Options of `restart`.
#[derive(Debug, Args)]
pub struct RestartArgs {
    #[command(flatten)]
    which: MembersArgs,
    /// Restart only one of the selected members.
    #[arg(long)]
    any: bool,
    /// Do it at this time (ISO 8601; without a time zone, this machine's zone applies).
    #[arg(long, value_name = "TIME")]
    scheduled: Option<String>,
    /// Restart only members whose PostgreSQL is older than this version.
    #[arg(long, value_name = "VERSION")]
    pg_version: Option<String>,
    /// Restart only members with a pending restart.
    #[arg(long)]
    pending: bool,
    /// One member after the other, the leader last: it hands over first, so that the cluster serves meanwhile.
    #[arg(long, conflicts_with_all = ["any", "scheduled", "pg_version"])]
    rolling: bool,
    /// Time limit for PostgreSQL to accept connections again.
    #[arg(long)]
    timeout: Option<String>,
}

/// Runs `restart`.
pub async fn execute(context: &Context, args: &RestartArgs) -> CliResult {
    let which = &args.which;
    let client = open(context, Some(&which.cluster)).await?;
    let view = client.view().await?;
    let mut chosen = choose(&view, &which.members, which.role)?;
    show(context, &client, &view)?;
    let scheduled = match &args.scheduled {
        Some(scheduled) => scheduled.clone(),
        None if args.rolling => String::new(),
        None => context.patronictl_asks(which.force, "Time", "now")?.unwrap_or_default(),
    };
    let schedule = schedule(&scheduled)?;
    // At a later time a restart may be pending on other members.
    if args.pending && schedule.is_none() {
        chosen.retain(|member| member.pending_restart);
    }
    if args.any {
        chosen.truncate(1);
    }
    if chosen.is_empty() {
        context.ui.say("No member has a pending restart");
        return Ok(Exit::Done);
    }
    if schedule.is_none() && !which.force && !args.rolling {
        warn_of_new_timelines(context, &client, &chosen).await;
    }
    let when = schedule.as_ref().map_or_else(|| "now".to_owned(), |at| format!("at {at}"));
    let how = if args.rolling { ", one after the other; the leader hands over first" } else { "" };
    let question = format!("Restart PostgreSQL on {} {when}{how}?", chosen_names(&chosen));
    context.ui.consent(&question, Consent::from_force(which.force))?;
    let pg_version = match &args.pg_version {
        Some(version) => Some(version.clone()),
        None if args.rolling => None,
        None => context.patronictl_asks(which.force, "Only if PostgreSQL is older than", "")?,
    };
    if schedule.is_some() && which.force {
        forget_scheduled(&client, &chosen).await?;
    }
    let body = body(args, schedule, pg_version.filter(|version| !version.is_empty()));
    let order = MemberRequest { word: "restart", method: "POST", endpoint: "/restart", body: Some(body) };
    match args.rolling {
        true => rolling_restart::execute(context, &client, &view, chosen, &order).await,
        false => send_each(context, &client, &chosen, &order).await,
    }
}

/// Says which leaders cannot start as the primaries that they were.
async fn warn_of_new_timelines(context: &Context, client: &Client, chosen: &[Chosen]) {
    let answers = join_all(chosen.iter().map(|member| client.ask(&member.api_url))).await;
    for (member, answer) in chosen.iter().zip(answers) {
        if let Some(warning) = answer.and_then(|body| warning(member.name.as_str(), &body)) {
            context.ui.say(&warning);
        }
    }
}

/// The warning, if the member's `/patroni` calls for one.
fn warning(name: &str, body: &Value) -> Option<String> {
    body.get("restart_begins_as_standby")?.as_bool()?.then(|| {
        format!(
            "{name} leads and cannot restart in place now: its PostgreSQL starts as a standby and is promoted on a new \
             timeline, and unlogged tables are empty then"
        )
    })
}

fn body(args: &RestartArgs, schedule: Option<String>, pg_version: Option<String>) -> Value {
    let mut body = Map::new();
    if args.pending {
        body.insert("restart_pending".to_owned(), json!(true));
    }
    let texts = [("postgres_version", &pg_version), ("schedule", &schedule), ("timeout", &args.timeout)];
    for (key, text) in texts {
        if let Some(text) = text {
            body.insert(key.to_owned(), json!(text));
        }
    }
    Value::Object(body)
}

/// With `--force` a new schedule replaces the old one.
async fn forget_scheduled(client: &Client, chosen: &[Chosen]) -> Result<(), CliError> {
    let order = MemberRequest { word: "forget", method: "DELETE", endpoint: "/restart", body: None };
    for member in chosen.iter().filter(|member| member.has_scheduled_restart) {
        send(client, member, &order).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warns_of_a_leader_that_cannot_restart_in_place() {
        let said = warning("m1", &json!({"role": "primary", "restart_begins_as_standby": true}));
        assert!(said.expect("a warning").starts_with("m1 leads and cannot restart in place now"));
        assert_eq!(warning("m1", &json!({"role": "primary"})), None);
    }
}
