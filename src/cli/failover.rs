//! `failover`: make a member the leader even if the current leader is gone.

mod amount;

use clap::Args;
use serde_json::json;

use self::amount::FailoverLoss;
use super::context::Context;
use super::error::{CliError, CliResult};
use super::leadership_change::LeadershipChange;
use super::selection::{member_name, show};
use super::switchover::{self, Standbys};
use super::target::open;
use super::ui::Consent;
use crate::api::wire;
use crate::model::{ClusterView, MemberName, SyncMode};

/// Options of `failover`.
#[derive(Debug, Args)]
pub struct FailoverArgs {
    /// The cluster; default: the configured cluster.
    cluster: Option<String>,
    /// The next leader.
    #[arg(long)]
    candidate: Option<String>,
    /// Confirm that this member's PostgreSQL is down, although its supervisor left it running in pause (repeatable).
    #[arg(long = "confirm-down", value_name = "NAME")]
    confirm_down: Vec<String>,
    /// Create the cluster in etcd again from the data of the candidate. Newer data on other members is lost.
    #[arg(long)]
    rebuild: bool,
    /// Show what the failover loses at most, and go on once that is repeated: "none", a number of bytes, or "unknown".
    /// A script gives it here; it is refused if more would be lost by then.
    #[arg(long, value_name = "LOSS", num_args = 0..=1, conflicts_with = "force")]
    accept_loss: Option<Option<FailoverLoss>>,
    /// Do not ask for confirmation.
    #[arg(long)]
    force: bool,
}

/// Runs `failover`.
pub async fn execute(context: &Context, args: &FailoverArgs) -> CliResult {
    let client = open(context, args.cluster.as_deref()).await?;
    let view = client.view().await?;
    show(context, &client, &view)?;
    let named = args.candidate.as_deref();
    let candidate = switchover::candidate(context, &view, named, args.force, Standbys::Any)?
        .ok_or_else(|| CliError::usage("a failover needs a candidate").hint("name it with --candidate"))?;
    let name = member_name(&candidate)?;
    let (amount, loss) = (FailoverLoss::of(&view, &name), loss(&view, &name));
    let from = view.leader.as_ref().map(|leader| leader.name.to_string());
    let instead = from
        .as_ref()
        .map_or_else(|| "(the cluster has no leader)".to_owned(), |name| format!("instead of {name}"));
    let down = match args.confirm_down.join(", ") {
        names if names.is_empty() => String::new(),
        names => format!(" If the PostgreSQL of {names} still runs, there will be two primaries."),
    };
    let rebuilt = match args.rebuild {
        true => {
            " etcd then records its data as the cluster: members with other data exit, or discard their data."
        }
        false => "",
    };
    let question =
        format!("Fail the cluster {} over to {candidate} {instead}? {loss}{rebuilt}{down}", client.scope);
    match &args.accept_loss {
        Some(accepted) => accept(context, &question, amount, *accepted)?,
        None => context.ui.consent(&question, Consent::from_force(args.force))?,
    }
    let mut body = json!({"candidate": candidate});
    if !args.confirm_down.is_empty() {
        body["confirm_down"] = json!(args.confirm_down);
    }
    if args.rebuild {
        body["rebuild"] = json!(true);
    }
    let change =
        LeadershipChange { word: "Failover", endpoint: "/failover", body, from, to: Some(candidate) };
    switchover::perform(context, &client, &view, change).await
}

/// Goes on only if somebody has repeated the loss.
fn accept(
    context: &Context,
    question: &str,
    loss: FailoverLoss,
    accepted: Option<FailoverLoss>,
) -> Result<(), CliError> {
    let accepted = match accepted {
        Some(accepted) => accepted,
        None => {
            context.ui.say(question);
            let shown = format!("The loss is {}. Repeat it to go on: ", loss.sentence());
            context.ui.ask(&shown)?.parse().map_err(CliError::usage)?
        }
    };
    if loss <= accepted {
        return Ok(());
    }
    let why = format!("the loss is {}, and {accepted} was accepted: nothing was done", loss.sentence());
    Err(CliError::failed(why).hint(format!("--accept-loss {loss} accepts it")))
}

/// The possible loss of a failover to `candidate`, in a sentence.
fn loss(view: &ClusterView, candidate: &MemberName) -> String {
    let synchronous = wire::sync_settings(view).mode != SyncMode::Off;
    match view.sync_record().filter(|_| synchronous) {
        Some(record) if record.is_leader(candidate) || (record.is_voter(candidate) && record.quorum == 0) => {
            format!("No acknowledged commit is lost: {candidate} has all of them.")
        }
        Some(record) if !record.is_voter(candidate) => {
            format!("{candidate} is asynchronous: acknowledged commits that did not reach it are lost.")
        }
        Some(_) | None => format!("Writes that did not reach {candidate} are lost."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::rows::tests::{sample, synchronous};

    #[test]
    fn the_question_names_the_possible_loss() {
        let cases = [
            ("true", 0, "m2", "No acknowledged commit is lost: m2 has all of them."),
            ("true", 0, "m1", "No acknowledged commit is lost: m1 has all of them."),
            ("true", 0, "m3", "m3 is asynchronous: acknowledged commits that did not reach it are lost."),
            (r#""quorum""#, 1, "m2", "Writes that did not reach m2 are lost."),
            ("false", 0, "m2", "Writes that did not reach m2 are lost."),
        ];
        for (mode, quorum, candidate, sentence) in cases {
            let view = synchronous(mode, quorum);
            let candidate = MemberName::new(candidate).expect("a name");
            assert_eq!(loss(&view, &candidate), sentence, "{mode}");
        }
        let candidate = MemberName::new("m2").expect("a name");
        assert_eq!(loss(&sample(), &candidate), "Writes that did not reach m2 are lost.");
    }
}
