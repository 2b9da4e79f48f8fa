//! `switchover`: hand leadership over and print the progress.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::leadership_change::{LeadershipChange, write_to_etcd};
use super::preflight;
use super::rows::standby_kind;
use super::schedule::schedule;
use super::selection::{member_name, member_names, show};
use super::target::open;
use super::ui::Consent;
use crate::api::wire::{self, ChangeEnd};
use crate::client::{Client, ClientError, ORDER_WITHIN, RestAnswer};
use crate::model::{ClusterView, Ineligible, MemberName, StandbyKind, SyncMode};

/// The interval between checks while a change of leadership runs.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long the command waits for the result if the member that was asked stops waiting.
const ENDS_WITHIN: Duration = Duration::from_secs(180);

/// Options of `switchover`.
#[derive(Debug, Args)]
pub struct SwitchoverArgs {
    /// The cluster; default: the configured cluster.
    cluster: Option<String>,
    /// The current leader.
    #[arg(long, visible_alias = "primary")]
    leader: Option<String>,
    /// The next leader; default: the best replica.
    #[arg(long)]
    candidate: Option<String>,
    /// Do it at this time (ISO 8601; without a time zone, this machine's zone applies).
    #[arg(long, value_name = "TIME")]
    scheduled: Option<String>,
    /// Do not ask for confirmation.
    #[arg(long)]
    force: bool,
    /// Do nothing but show what a switchover would meet, or why it would be refused.
    #[arg(long, conflicts_with_all = ["scheduled", "force"])]
    check: bool,
}

/// Runs `switchover`.
pub async fn execute(context: &Context, args: &SwitchoverArgs) -> CliResult {
    let client = open(context, args.cluster.as_deref()).await?;
    let view = client.view().await?;
    let leader = view.leader.as_ref().map(|leader| leader.name.clone()).ok_or_else(|| {
        CliError::failed("the cluster has no leader, and a switchover needs one")
            .hint("use `failover --candidate NAME` to appoint a leader")
    })?;
    if !args.check {
        show(context, &client, &view)?;
    }
    let named = match &args.leader {
        Some(named) => Some(named.clone()),
        None if args.check => None,
        None => context.patronictl_asks(args.force, "Leader", leader.as_str())?,
    };
    if let Some(named) = named
        && named != leader.as_str()
    {
        return Err(CliError::failed(format!(
            "{named} is not the leader of the cluster {}: the leader is {leader}",
            client.scope
        )));
    }
    if args.check {
        return preflight::execute(context, &client, &view, args.candidate.as_deref()).await;
    }
    let at = args.scheduled.as_deref().map(schedule).transpose()?.flatten();
    // At a later time other standbys may be synchronous.
    let standbys = if at.is_none() { Standbys::of(&view) } else { Standbys::Any };
    let candidate = candidate(context, &view, args.candidate.as_deref(), args.force, standbys)?;
    let at = match &args.scheduled {
        Some(_) => at,
        None => schedule(&context.patronictl_asks(args.force, "Time", "now")?.unwrap_or_default())?,
    };
    if at.is_none() {
        preflight::warn(context, &client, &view, candidate.as_deref()).await;
    }
    let to = candidate.clone().unwrap_or_else(|| "the best replica".to_owned());
    let when = at.as_ref().map_or_else(String::new, |at| format!(" at {at}"));
    let question = format!(
        "Switch the cluster {} over from {leader} to {to}{when}? {leader} becomes a replica.",
        client.scope
    );
    context.ui.consent(&question, Consent::from_force(args.force))?;
    let mut body = json!({"leader": leader, "candidate": candidate});
    if let Some(at) = &at {
        body["scheduled_at"] = json!(at);
    }
    let from = Some(leader.to_string());
    let change = LeadershipChange { word: "Switchover", endpoint: "/switchover", body, from, to: candidate };
    perform(context, &client, &view, change).await
}

/// The standbys that can be candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standbys {
    /// All that may lead.
    Any,
    /// Synchronous standbys: the cluster refuses others.
    Sync,
}

impl Standbys {
    fn of(view: &ClusterView) -> Standbys {
        match wire::sync_settings(view).mode {
            SyncMode::On => Standbys::Sync,
            SyncMode::Off | SyncMode::Quorum => Standbys::Any,
        }
    }
}

/// The named or chosen candidate; `None` leaves the choice to the cluster.
pub fn candidate(
    context: &Context,
    view: &ClusterView,
    named: Option<&str>,
    force: bool,
    standbys: Standbys,
) -> Result<Option<String>, CliError> {
    let listed = eligible(view, standbys).join(", ");
    let chosen = match named {
        Some(name) => name.to_owned(),
        None if force || !context.ui.can_ask() => return Ok(None),
        None => context.ui.ask(&format!("Candidate [{listed}; empty: the best one]: "))?,
    };
    if chosen.is_empty() {
        return Ok(None);
    }
    let name = member_name(&chosen)?;
    fit(view, &name, standbys).map_err(|why| refused(view, &name, &listed, &why))?;
    Ok(Some(chosen))
}

/// Whether `name` can be appointed, by the keys in etcd.
fn fit(view: &ClusterView, name: &MemberName, standbys: Standbys) -> Result<(), Ineligible> {
    view.eligible(name)?;
    view.eligible_by_tag(name)?;
    match standbys {
        Standbys::Any => Ok(()),
        Standbys::Sync => view.eligible_in(SyncMode::On, name),
    }
}

/// The refusal; `listed` are the possible candidates.
fn refused(view: &ClusterView, name: &MemberName, listed: &str, why: &Ineligible) -> CliError {
    match why {
        Ineligible::NoMember => CliError::failed(format!("there is no member {name} in this cluster"))
            .hint(format!("its members are: {}", member_names(view))),
        Ineligible::NoFailoverTag => {
            CliError::failed(format!("{name} has the tag nofailover and must not lead"))
                .hint(format!("candidates are: {listed}"))
        }
        Ineligible::NotSynchronous => {
            let others = match listed.is_empty() {
                true => "no member is a synchronous standby now".to_owned(),
                false => format!("candidates are: {listed}"),
            };
            CliError::failed(format!("{name} is not a synchronous standby"))
                .hint(format!("{others}; `failover --candidate {name}` accepts it anyway"))
        }
        Ineligible::Leads
        | Ineligible::Silent { .. }
        | Ineligible::WatchdogFailed
        | Ineligible::PodEnds
        | Ineligible::NotStandby
        | Ineligible::Yields
        | Ineligible::NotInFailsafe
        | Ineligible::NotStreaming { .. }
        | Ineligible::TooFarBehind { .. }
        | Ineligible::OtherTimeline
        | Ineligible::NotVouchedFor => CliError::failed(format!("{name} {why}")),
    }
}

/// Whether any member can take over from the leader, by the keys in etcd.
pub fn has_candidate(view: &ClusterView) -> bool {
    view.members.keys().any(|name| fit(view, name, Standbys::of(view)).is_ok())
}

/// The possible candidates, for a sentence; asynchronous ones are marked while some are synchronous.
fn eligible(view: &ClusterView, standbys: Standbys) -> Vec<String> {
    let synchronous = |name: &MemberName| standby_kind(view, name) != StandbyKind::Asynchronous;
    let some = view.members.keys().any(synchronous);
    let fit = view.members.keys().filter(|name| fit(view, name, standbys).is_ok());
    fit.map(|name| match some && !synchronous(name) {
        true => format!("{name} (asynchronous)"),
        false => name.to_string(),
    })
    .collect()
}

/// Requests the change, shows its phases, and reports its result.
pub async fn perform(
    context: &Context,
    client: &Client,
    view: &ClusterView,
    change: LeadershipChange,
) -> CliResult {
    let (change, began) = (change.signed(), Instant::now());
    let asked = member_to_ask(view, &change);
    let answer = tokio::select! {
        answer = ask(client, view, &change, asked.as_deref()) => answer,
        never = log_changes(context, client, asked.as_deref(), began) => match never {},
    };
    let (end, status) = match (answer, change.in_etcd()) {
        (Ok(answer), _) => {
            let seconds = began.elapsed().as_secs_f64();
            context.ui.say(&format!("{seconds:6.1} s  {}", answer.text()));
            (ChangeEnd::read(answer.status, &answer.body), format!(" ({})", answer.status))
        }
        (Err(error @ ClientError::Silent(_)), Some(request)) => {
            context.ui.say(&format!("{error}: the request is written to etcd, where the members read it"));
            (write_to_etcd(context, client, &change, &request).await?, String::new())
        }
        (Err(error), _) => return Err(error.into()),
    };
    let end = match end {
        ChangeEnd::Unknown => settled(context, client, &change, began).await,
        end => end,
    };
    let exit = match end {
        ChangeEnd::Accepted => Exit::Done,
        ChangeEnd::Failed => {
            context.ui.say(&format!("{} failed{status}", change.word));
            Exit::Failed
        }
        ChangeEnd::Unknown => {
            context.ui.say(&format!("{}: the result is unknown; check with `matriarch list`", change.word));
            Exit::Failed
        }
    };
    show(context, client, &client.view().await?)?;
    Ok(exit)
}

/// The member that was asked stopped waiting, and the change continues: etcd shows its result.
async fn settled(context: &Context, client: &Client, change: &LeadershipChange, began: Instant) -> ChangeEnd {
    while began.elapsed() < ENDS_WITHIN {
        tokio::time::sleep(LOOK_EVERY).await;
        let Ok(view) = client.view().await else { continue };
        let leader = view.leader.as_ref().map(|leader| leader.name.as_str());
        let (end, text) = match (leader, &view.failover) {
            (Some(leader), _) if Some(leader) != change.from.as_deref() => {
                (ChangeEnd::Accepted, format!("{leader} leads"))
            }
            (Some(leader), None) => (ChangeEnd::Failed, format!("{leader} is still the leader")),
            (_, _) => continue,
        };
        context.ui.say(&format!("{:6.1} s  {text}", began.elapsed().as_secs_f64()));
        return end;
    }
    ChangeEnd::Unknown
}

/// The leader; without one, the candidate.
fn member_to_ask(view: &ClusterView, change: &LeadershipChange) -> Option<String> {
    let name = change.from.as_ref().or(change.to.as_ref())?;
    let member = view.members.iter().find(|(member, _)| member.as_str() == name)?.1;
    member.record.api_url.clone()
}

async fn ask(
    client: &Client,
    view: &ClusterView,
    change: &LeadershipChange,
    asked: Option<&str>,
) -> Result<RestAnswer, ClientError> {
    if let Some(api_url) = asked {
        let answer = client.call("POST", api_url, change.endpoint, Some(&change.body), ORDER_WITHIN).await;
        // A leader that is gone cannot answer: any other member can accept a failover.
        if answer.is_ok() || change.endpoint != "/failover" {
            return answer;
        }
    }
    client.call_any(view, "POST", change.endpoint, Some(&change.body)).await
}

/// Prints every change of phase: the leader, and the hand-over's state by the member that was asked.
async fn log_changes(context: &Context, client: &Client, asked: Option<&str>, began: Instant) -> Infallible {
    let (mut shown, mut operation) = (String::new(), None);
    loop {
        let view = client.view().await.ok();
        let requested = view.as_ref().and_then(|view| Some(view.failover.as_ref()?.mod_revision));
        if let Some(id) = requested.filter(|id| operation != Some(*id)) {
            operation = requested;
            context.ui.say(&format!("operation {id}: `matriarch operations --id {id}` follows it, too"));
        }
        let phase = phase(client, view.as_ref(), asked).await;
        if let Some(phase) = phase.filter(|phase| *phase != shown) {
            context.ui.say(&format!("{:6.1} s  {phase}", began.elapsed().as_secs_f64()));
            shown = phase;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn phase(client: &Client, view: Option<&ClusterView>, asked: Option<&str>) -> Option<String> {
    let leader = view?.leader_member().map_or_else(
        || "the cluster has no leader".to_owned(),
        |(name, member)| format!("{name} leads ({}, {})", member.record.role, member.record.state),
    );
    let Some(api_url) = asked else { return Some(leader) };
    let body = client.ask(api_url).await;
    let text =
        |key: &str| body.as_ref()?.get(key)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    match text("hand_over").or_else(|| text("because")) {
        Some(words) => Some(format!("{leader}: {words}")),
        None => Some(leader),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::rows::tests::{sample, synchronous};

    #[test]
    fn offers_synchronous_standbys_only_where_others_are_refused() {
        assert_eq!(eligible(&sample(), Standbys::Any), ["m2", "m3"]);
        let mut view = synchronous(r#""on""#, 0);
        assert_eq!(eligible(&view, Standbys::Any), ["m2", "m3 (asynchronous)"]);
        assert_eq!(eligible(&view, Standbys::Sync), ["m2"]);
        view.sync = None;
        assert!(eligible(&view, Standbys::Sync).is_empty());
    }

    #[test]
    fn asks_the_leader_or_the_candidate() {
        let mut view = sample();
        for (name, member) in &mut view.members {
            member.record.api_url = Some(format!("http://{name}/patroni"));
        }
        let change = |from: Option<&str>| LeadershipChange {
            word: "Failover",
            endpoint: "/failover",
            body: json!({}),
            from: from.map(str::to_owned),
            to: Some("m2".into()),
        };
        assert_eq!(member_to_ask(&view, &change(Some("m1"))).as_deref(), Some("http://m1/patroni"));
        assert_eq!(member_to_ask(&view, &change(None)).as_deref(), Some("http://m2/patroni"));
    }
}
