//! Removes the leader's label from every pod but the own one, and writes the current term on all of them: one list,
//! then one patch for each pod, all at once.
//!
//! A pod without the label is patched too: its member may have led, and may have sent the patch with the label just
//! before it froze. That patch names the version for which it was made, and the patch sent here creates a newer one.

use futures::future::join_all;

use super::api::Selector;
use super::backoff::Backoff;
use super::failure::KubeFailure;
use super::handle::KubeShared;
use super::objects::PodObject;
use super::pod;
use crate::model::{Moment, PodFailure, PodTask, Term};
use crate::os::clock;

/// A pod that changes faster than it can be patched is left for the next attempt.
const TRIES: usize = 5;

/// Strips until it succeeds; false when a failure of an `is_permanent` kind ended it.
pub(super) async fn until_done(
    shared: &KubeShared,
    term: Term,
    is_permanent: impl Fn(PodFailure) -> bool,
) -> bool {
    let mut backoff = Backoff::default();
    while let Err(failure) = strip(shared, term).await {
        shared.facts.failed(PodTask::Strip, &failure);
        if is_permanent(failure.kind) {
            return false;
        }
        backoff.failed(&failure, clock::now());
        if let Some(at) = backoff.not_before() {
            clock::sleep_until(at).await;
        }
    }
    shared.facts.well(PodTask::Strip);
    true
}

/// Succeeds when no other pod has the leader's label, and no earlier patch can add it.
pub(super) async fn strip(shared: &KubeShared, term: Term) -> Result<(), KubeFailure> {
    let setup = shared.api.setup();
    let (_, pods) = shared.api.list::<PodObject>(&Selector::Labelled(setup.names.all())).await?;
    let seen_at = clock::now();
    let others = pods.into_iter().filter(|pod| is_other(pod, &setup.pod));
    let fenced = join_all(others.map(|pod| fence_one(shared, pod, seen_at, term))).await;
    fenced.into_iter().collect::<Result<(), KubeFailure>>()?;
    shared.stripped.send_replace(Some(term));
    Ok(())
}

pub(super) fn is_other(pod: &PodObject, mine: &str) -> bool {
    pod.metadata.name.as_deref() != Some(mine)
}

async fn fence_one(
    shared: &KubeShared,
    mut pod: PodObject,
    mut seen_at: Moment,
    term: Term,
) -> Result<(), KubeFailure> {
    let names = &shared.api.setup().names;
    let name = pod.metadata.name.clone().unwrap_or_default();
    let mut failure = KubeFailure::new(PodFailure::Conflict, format!("pod {name} changes all the time"));
    for _ in 0..TRIES {
        let labelled = names.says_leader(&pod);
        let found = pod::term(&pod);
        if !labelled && found == Some(term) {
            return Ok(());
        }
        // A write of my own term or a later one does not come from a leader before me.
        if let Some(found) = found.filter(|found| term <= *found)
            && !shared.is_confirmed(term, seen_at).await
        {
            return Err(KubeFailure::newer_term(&format!("pod {name}"), found, term));
        }
        failure = match shared.api.patch::<PodObject>(&name, &pod::fence(&pod, term, names)).await {
            Ok(_) if labelled => {
                tracing::info!(
                    pod = name,
                    term = term.0,
                    "removed the leader label from a pod that does not lead"
                );
                return Ok(());
            }
            Ok(_) => return Ok(()),
            Err(failure) => failure,
        };
        match failure.kind {
            PodFailure::NotFound => return Ok(()),
            PodFailure::Conflict => {
                pod = match shared.api.get(&name).await {
                    Ok(pod) => pod,
                    Err(KubeFailure { kind: PodFailure::NotFound, .. }) => return Ok(()),
                    Err(failure) => return Err(failure),
                }
            }
            PodFailure::Unconfigured
            | PodFailure::Unreachable
            | PodFailure::Silent
            | PodFailure::Unauthorized
            | PodFailure::Forbidden
            | PodFailure::OtherPod
            | PodFailure::Gone
            | PodFailure::TooMany
            | PodFailure::Server
            | PodFailure::NewerTerm
            | PodFailure::Other => return Err(failure),
        }
        seen_at = clock::now();
    }
    Err(failure)
}
