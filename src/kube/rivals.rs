//! While this member leads: removes the leader's label from every other pod, whatever its origin.

use std::sync::Arc;

use tokio::sync::Notify;

use super::api::Selector;
use super::follow::{Seen, follow};
use super::handle::KubeShared;
use super::objects::PodObject;
use super::strip;
use crate::model::{PodRole, PodTask, Term};

/// Runs as long as the supervisor.
pub(super) async fn keep_off(shared: Arc<KubeShared>) {
    let mut stripped = shared.stripped.subscribe();
    let mut wanted = shared.wanted.subscribe();
    loop {
        let stripped_in = *stripped.borrow_and_update();
        let led = match wanted.borrow_and_update().role {
            // Before the first strip of a term there is nothing to watch: the label of my own pod waits for it.
            Some(PodRole::Leader(term)) if stripped_in == Some(term) => Some(term),
            Some(
                PodRole::Leader(_)
                | PodRole::StandbyLeader(_)
                | PodRole::Follower
                | PodRole::Bootstrapping
                | PodRole::Nothing,
            )
            | None => None,
        };
        let Some(term) = led else {
            tokio::select! {
                _ = wanted.changed() => {}
                _ = stripped.changed() => {}
            }
            continue;
        };
        tokio::select! {
            _ = wanted.wait_for(|wanted| wanted.role != Some(PodRole::Leader(term))) => {}
            () = watch(&shared, term) => {}
        }
    }
}

async fn watch(shared: &KubeShared, term: Term) {
    let setup = shared.api.setup();
    let found = Notify::new();
    let announce = |seen: Seen<PodObject>| {
        let pods = match seen {
            Seen::All(pods, _) => pods,
            Seen::Changed(pod) => vec![pod],
            Seen::Gone(_) => return,
        };
        if pods.iter().any(|pod| strip::is_other(pod, &setup.pod)) {
            found.notify_one();
        }
    };
    let selector = Selector::Labelled(setup.names.leaders());
    let mend = async {
        loop {
            found.notified().await;
            strip::until_done(shared, term, |_| false).await;
        }
    };
    tokio::join!(follow((&shared.api, &shared.facts, PodTask::Watch), &selector, announce), mend);
}
