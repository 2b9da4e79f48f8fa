//! `demote-cluster` and `promote-cluster`: make the cluster a standby cluster of a remote primary, or one of its own.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Map, Value, json};

use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::target::open;
use super::ui::Consent;
use crate::api::wire;
use crate::client::Client;
use crate::model::{ClusterView, MemberName, MemberState, Role};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A rewind, or a copy of the remote primary, takes as long as it takes: the user is told, and can look later.
const WAITS_WITHIN: Duration = Duration::from_secs(600);

/// Options of `demote-cluster`.
#[derive(Debug, Args)]
pub struct DemoteClusterArgs {
    /// The cluster; default: the configured cluster.
    cluster: Option<String>,
    /// The host of the remote primary, or several as in a,b.
    #[arg(long)]
    host: Option<String>,
    /// Its port, or as many as there are hosts.
    #[arg(long)]
    port: Option<String>,
    /// The command that fetches WAL from the archive of the remote primary.
    #[arg(long, value_name = "COMMAND")]
    restore_command: Option<String>,
    /// The replication slot on the remote primary.
    #[arg(long, value_name = "SLOT")]
    primary_slot_name: Option<String>,
    /// Do not ask for confirmation.
    #[arg(long)]
    force: bool,
}

/// Options of `promote-cluster`.
#[derive(Debug, Args)]
pub struct PromoteClusterArgs {
    /// The cluster; default: the configured cluster.
    cluster: Option<String>,
    /// Do not ask for confirmation.
    #[arg(long)]
    force: bool,
}

/// Runs `demote-cluster`.
pub async fn demote(context: &Context, args: &DemoteClusterArgs) -> CliResult {
    let section = section(args)?;
    let client = open(context, args.cluster.as_deref()).await?;
    let view = client.view().await?;
    if wire::is_standby_cluster(&view) {
        return Err(CliError::failed(format!("{} is a standby cluster already", client.scope))
            .hint("change its remote primary with `edit-config`"));
    }
    let question = format!(
        "Demote the cluster {}? It accepts no writes from then on, its members follow the remote primary, and what that \
         does not have is removed from them.",
        client.scope
    );
    context.ui.consent(&question, Consent::from_force(args.force))?;
    change(&client, &view, &json!({ "standby_cluster": section })).await?;
    wait_for(&client, &view, Role::StandbyLeader).await?;
    context.ui.say(&format!("{} is a standby cluster now", client.scope));
    Ok(Exit::Done)
}

/// Runs `promote-cluster`.
pub async fn promote(context: &Context, args: &PromoteClusterArgs) -> CliResult {
    let client = open(context, args.cluster.as_deref()).await?;
    let view = client.view().await?;
    if !wire::is_standby_cluster(&view) {
        return Err(CliError::failed(format!("{} is no standby cluster", client.scope)));
    }
    let question = format!(
        "Promote the cluster {}? It accepts writes from then on, and follows the remote primary no more; that one is not \
         stopped.",
        client.scope
    );
    context.ui.consent(&question, Consent::from_force(args.force))?;
    change(&client, &view, &json!({ "standby_cluster": null })).await?;
    wait_for(&client, &view, Role::Primary).await?;
    context.ui.say(&format!("{} is a cluster of its own now", client.scope));
    Ok(Exit::Done)
}

/// The section for the dynamic configuration. Numbers stay numbers.
fn section(args: &DemoteClusterArgs) -> Result<Value, CliError> {
    if args.host.is_none() && args.port.is_none() && args.restore_command.is_none() {
        return Err(CliError::usage("name the source: --host, --port or --restore-command"));
    }
    let port = args.port.as_ref().map(|port| port.parse::<u16>().map_or(json!(port), |port| json!(port)));
    let text = |text: &Option<String>| text.as_ref().map(|text| json!(text));
    let values = [
        ("host", text(&args.host)),
        ("port", port),
        ("primary_slot_name", text(&args.primary_slot_name)),
        ("restore_command", text(&args.restore_command)),
    ];
    let given = values.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Ok(Value::Object(given.collect::<Map<String, Value>>()))
}

async fn change(client: &Client, view: &ClusterView, patch: &Value) -> Result<(), CliError> {
    let answer = client.call_any(view, "PATCH", "/config", Some(patch)).await?;
    match answer.is_accepted() {
        true => Ok(()),
        false => Err(CliError::failed(format!("refused ({}): {}", answer.status, answer.text()))),
    }
}

/// Waits until the leader runs in this role, and the former leader runs as well.
async fn wait_for(client: &Client, before: &ClusterView, role: Role) -> Result<(), CliError> {
    let former = before.leader.as_ref().map(|leader| &leader.name);
    let by = Instant::now() + WAITS_WITHIN;
    loop {
        let view = client.view().await?;
        if is_done(&view, former, role) {
            return Ok(());
        }
        if by < Instant::now() {
            let what = format!("no member leads as {role} yet, after {} s", WAITS_WITHIN.as_secs());
            return Err(
                CliError::failed(what).hint("`list` shows what the members do; the change stays in force")
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn is_done(view: &ClusterView, former: Option<&MemberName>, role: Role) -> bool {
    let runs = |name: &MemberName| {
        view.members.get(name).is_some_and(|member| member.record.state == MemberState::Running)
    };
    let leads = view.leader_member().is_some_and(|(name, leader)| leader.record.role == role && runs(name));
    leads && former.is_none_or(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::rows::tests::sample;

    fn args(host: Option<&str>, port: Option<&str>) -> DemoteClusterArgs {
        DemoteClusterArgs {
            cluster: None,
            host: host.map(str::to_owned),
            port: port.map(str::to_owned),
            restore_command: None,
            primary_slot_name: Some("s".to_owned()),
            force: true,
        }
    }

    #[test]
    fn the_section_has_what_was_given() {
        let given = |host, port| section(&args(host, port)).map(|section| section.to_string());
        assert_eq!(
            given(Some("a"), Some("5433")).ok().as_deref(),
            Some(r#"{"host":"a","port":5433,"primary_slot_name":"s"}"#)
        );
        assert_eq!(
            given(Some("a,b"), Some("1,2")).ok().as_deref(),
            Some(r#"{"host":"a,b","port":"1,2","primary_slot_name":"s"}"#)
        );
        assert!(given(None, None).is_err());
    }

    #[test]
    fn it_is_done_when_the_leader_and_the_former_one_run() {
        let mut view = sample();
        let leader = view.leader.as_ref().expect("a leader").name.clone();
        let other = view.members.keys().find(|name| **name != leader).expect("a replica").clone();
        assert!(is_done(&view, Some(&other), Role::Primary));
        assert!(!is_done(&view, Some(&other), Role::StandbyLeader));
        view.members.get_mut(&other).expect("it is there").record.state = MemberState::Starting;
        assert!(!is_done(&view, Some(&other), Role::Primary));
        assert!(is_done(&view, Some(&leader), Role::Primary));
    }
}
