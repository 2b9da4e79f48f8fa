//! `pause` and `resume`: stop and resume automatic action.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::called::CalledAs;
use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::rows::is_paused;
use super::show_config::read;
use super::target::open;
use super::ui::Consent;
use crate::client::Client;
use crate::model::{ClusterView, MemberName};

const LOOK_EVERY: Duration = Duration::from_millis(500);
const LOOP_WAIT_DEFAULT: u64 = 10;

/// Options of `pause` and `resume`.
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// The cluster; default: the configured cluster.
    cluster: Option<String>,
    /// Wait until every member has applied the change.
    #[arg(long)]
    wait: bool,
    /// Do not ask for confirmation.
    #[arg(long)]
    force: bool,
}

/// The request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseRequest {
    /// `pause`.
    Paused,
    /// `resume`.
    Running,
}

/// Runs `pause` or `resume`.
pub async fn execute(context: &Context, args: &PauseArgs, wish: PauseRequest) -> CliResult {
    let client = open(context, args.cluster.as_deref()).await?;
    let view = client.view().await?;
    let scope = &client.scope;
    let (already, question, body) = match wish {
        PauseRequest::Paused => (
            "paused already",
            "Pause the cluster {}? Nothing will fail over until it is resumed.",
            json!({"pause": true}),
        ),
        PauseRequest::Running => {
            ("not paused", "Resume automatic action in the cluster {}?", json!({"pause": null}))
        }
    };
    if is_paused(&view) == (wish == PauseRequest::Paused) {
        return Err(CliError::failed(format!("the cluster {scope} is {already}")));
    }
    // patronictl does not ask.
    let decided = args.force || context.called == CalledAs::Patronictl;
    context.ui.consent(&question.replace("{}", scope), Consent::from_force(decided))?;
    let answer = client.call_any(&view, "PATCH", "/config", Some(&body)).await?;
    if !answer.is_accepted() {
        return Err(CliError::failed(format!("refused ({}): {}", answer.status, answer.text())));
    }
    if args.wait {
        noticed(context, &client, &view, wish).await?;
    }
    context.ui.say(match wish {
        PauseRequest::Paused => "Paused: no automatic action until `matriarch resume`",
        PauseRequest::Running => "Resumed",
    });
    Ok(Exit::Done)
}

/// Waits until every member that was registered has published the change.
async fn noticed(
    context: &Context,
    client: &Client,
    before: &ClusterView,
    wish: PauseRequest,
) -> Result<(), CliError> {
    let config = read(before, &client.scope)?.0;
    let loop_wait = config.get("loop_wait").and_then(Value::as_u64).unwrap_or(LOOP_WAIT_DEFAULT);
    let by = Instant::now() + Duration::from_secs(loop_wait + 1);
    loop {
        let view = client.view().await?;
        let late = behind(before, &view, wish);
        if late.is_empty() {
            return Ok(());
        }
        if Instant::now() > by {
            let names: Vec<&str> = late.iter().map(|name| name.as_str()).collect();
            context.ui.say(&format!("These members have not taken notice yet: {}", names.join(", ")));
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn behind<'a>(before: &'a ClusterView, now: &ClusterView, wish: PauseRequest) -> Vec<&'a MemberName> {
    let reachable = before.members.iter().filter(|(_, member)| member.record.api_url.is_some());
    let knows = |name: &MemberName| {
        now.members
            .get(name)
            .is_none_or(|member| member.record.pause.unwrap_or(false) == (wish == PauseRequest::Paused))
    };
    reachable.map(|(name, _)| name).filter(|name| !knows(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::rows::tests::sample;

    #[test]
    fn waits_for_members_that_can_be_reached() {
        let mut view = sample();
        for member in view.members.values_mut().take(2) {
            member.record.api_url = Some("http://a/patroni".into());
        }
        view.members.values_mut().take(1).for_each(|member| member.record.pause = Some(true));
        let names: Vec<&str> =
            behind(&view, &view, PauseRequest::Paused).iter().map(|name| name.as_str()).collect();
        assert_eq!(names, ["m2"]);
    }
}
