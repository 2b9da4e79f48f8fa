//! `restart --rolling`: one member after the other, so that the cluster serves meanwhile.

use std::time::{Duration, Instant};

use serde_json::json;

use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::leadership_change::LeadershipChange;
use super::selection::{Chosen, MemberRequest, chosen_names, send};
use super::switchover::{self, has_candidate};
use crate::client::Client;
use crate::model::{ClusterView, MemberName};

/// The interval between looks at a member that was restarted.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a restarted member may take to stream again.
const STREAMS_WITHIN: Duration = Duration::from_secs(300);

/// Standbys first, each once the one before it streams again and confirms commits as before. The leader is the last: it
/// hands over to one of them, and its PostgreSQL starts again as a standby. Where nobody can take over, it restarts in
/// place. The first failure ends it.
pub(super) async fn execute(
    context: &Context,
    client: &Client,
    before: &ClusterView,
    mut chosen: Vec<Chosen>,
    order: &MemberRequest<'_>,
) -> CliResult {
    chosen.sort_by_key(|member| member.leads);
    for (done, member) in chosen.iter().enumerate() {
        let left = &chosen[done..];
        let stopped = |error: CliError| {
            error.hint(format!("not restarted: {}; repeat the command for them", chosen_names(left)))
        };
        let view = client.view().await?;
        let leads = view.leader.as_ref().is_some_and(|leader| leader.name == member.name);
        if leads && has_candidate(&view) {
            if hand_over(context, client, &view, &member.name).await? != Exit::Done {
                return Err(stopped(CliError::failed(format!("{} did not hand over", member.name))));
            }
        } else {
            let answer = send(client, member, order).await?;
            context.ui.say(&format!("{}: {}", member.name, answer.text()));
            if !answer.is_accepted() {
                let why = format!("{}: restart refused ({})", member.name, answer.status);
                return Err(stopped(CliError::failed(why)));
            }
        }
        wait_until_back(context, client, before, &member.name).await?;
    }
    Ok(Exit::Done)
}

async fn hand_over(context: &Context, client: &Client, view: &ClusterView, leader: &MemberName) -> CliResult {
    let change = LeadershipChange {
        word: "Switchover",
        endpoint: "/switchover",
        body: json!({"leader": leader}),
        from: Some(leader.to_string()),
        to: None,
    };
    switchover::perform(context, client, view, change).await
}

async fn wait_until_back(
    context: &Context,
    client: &Client,
    before: &ClusterView,
    name: &MemberName,
) -> Result<(), CliError> {
    let began = Instant::now();
    loop {
        // Whatever etcd does not show now, it may show at the next look.
        if client.view().await.is_ok_and(|now| is_back(before, &now, name)) {
            context.ui.say(&format!("{name} is back after {:.1} s", began.elapsed().as_secs_f64()));
            return Ok(());
        }
        if STREAMS_WITHIN < began.elapsed() {
            let why = format!("{name} does not stream again after {} s", STREAMS_WITHIN.as_secs());
            return Err(CliError::failed(why).hint("`matriarch explain` says what it waits for"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether a restarted member serves as before: it leads, or streams, and confirms commits if it did.
fn is_back(before: &ClusterView, now: &ClusterView, name: &MemberName) -> bool {
    let leads = now.leader.as_ref().is_some_and(|leader| leader.name == *name);
    let streams =
        |record: &crate::model::MemberRecord| record.replication_state.as_deref() == Some("streaming");
    let confirms = |view: &ClusterView| {
        view.sync_record().is_some_and(|record| record.is_voter(name) || record.is_leader(name))
    };
    let is_up = now.members.get(name).is_some_and(|member| leads || streams(&member.record));
    is_up && (leads || !confirms(before) || confirms(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::rows::tests::synchronous;

    #[test]
    fn a_standby_is_back_once_it_streams_and_confirms_commits() {
        let name = MemberName::new("m2").expect("a name");
        let before = synchronous(r#""quorum""#, 1);
        let mut now = before.clone();
        let state = |now: &mut ClusterView, state: &str| {
            let member = now.members.get_mut(&name).expect("a member");
            member.record.replication_state = Some(state.to_owned());
        };
        state(&mut now, "in archive recovery");
        assert!(!is_back(&before, &now, &name));
        state(&mut now, "streaming");
        assert!(is_back(&before, &now, &name));
        let sync = now.sync.as_mut().expect("a record");
        sync.record.voters.remove(&name);
        assert!(!is_back(&before, &now, &name), "it confirmed commits before");
        assert!(is_back(&now, &now, &name));
    }
}
