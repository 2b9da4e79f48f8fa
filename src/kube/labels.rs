//! Keeps the own pod's labels as wanted: one patch at a time, made from the newest known and the newest wanted state.

use std::sync::Arc;
use std::time::Duration;

use super::api::Selector;
use super::backoff::Backoff;
use super::failure::KubeFailure;
use super::follow::{Seen, follow};
use super::handle::{KubeShared, Own};
use super::objects::PodObject;
use super::pod::{self, Wanted};
use super::strip;
use crate::model::{Moment, PodFailure, PodRole, PodTask, Term};
use crate::os::clock;

/// The interval between questions whether the lease is still mine.
pub(super) const LEASE_SOON: Duration = Duration::from_millis(100);
/// How long a status waits for a label to be written with it, or for a later status.
const STATUS_WAITS: Duration = Duration::from_secs(1);

/// Reports the changes of the own pod. Runs as long as the supervisor.
pub(super) async fn watch_own(shared: Arc<KubeShared>) {
    let selector = Selector::Named(shared.api.setup().pod.clone());
    let announce = |seen: Seen<PodObject>| match seen {
        Seen::All(pods, version) => {
            match pods.is_empty() {
                true => shared.lost(|life, uid| life.missed(&version, uid)),
                false => pods.into_iter().for_each(|pod| shared.read(pod)),
            }
            shared.listed.send_modify(|count| *count += 1);
        }
        Seen::Changed(pod) => shared.read(pod),
        Seen::Gone(pod) => shared.lost(|life, uid| life.deleted(&pod.metadata, uid)),
    };
    follow((&shared.api, &shared.facts, PodTask::Watch), &selector, announce).await;
}

/// Maintains its labels. Runs as long as the supervisor.
pub(super) async fn keep(shared: Arc<KubeShared>) {
    let mut keeping = LabelTask::default();
    let (mut wanted, mut seen) = (shared.wanted.subscribe(), shared.own.subscribe());
    let mut listed = shared.listed.subscribe();
    loop {
        let (now_wanted, now_seen) = (wanted.borrow_and_update().clone(), seen.borrow_and_update().clone());
        if now_wanted.role != keeping.role {
            keeping.role = now_wanted.role;
            keeping.label.hurry();
            keeping.gate.hurry();
            if now_wanted.role.and_then(PodRole::term).is_none() {
                shared.facts.forget_trouble(PodTask::Strip);
            }
        }
        let now_listed = *listed.borrow_and_update();
        if now_listed != keeping.listed {
            keeping.listed = now_listed;
            keeping.label.hurry();
            keeping.gate.hurry();
        }
        // A step for an outdated role is abandoned: its request fails by the object's version.
        let role = now_wanted.role;
        let step = tokio::select! {
            step = keeping.step(&shared, &now_wanted, &now_seen) => step,
            _ = wanted.wait_for(|wanted| wanted.role != role) => continue,
        };
        tokio::select! {
            _ = wanted.changed() => {}
            _ = seen.changed() => {}
            _ = listed.changed() => {}
            () = clock::sleep_until_some(step) => {}
        }
    }
}

#[derive(Default)]
struct LabelTask {
    role: Option<PodRole>,
    /// The count of lists at the last step.
    listed: u64,
    label: Backoff,
    gate: Backoff,
    /// Since when only the status differs.
    status_since: Option<Moment>,
    /// It was logged that other members cannot find the pod.
    warned: bool,
}

impl LabelTask {
    /// One check, and at most one patch of each kind. Returns the time of the next check; `None`: at the next change.
    async fn step(&mut self, shared: &KubeShared, wanted: &Wanted, own: &Own) -> Option<Moment> {
        let setup = shared.api.setup();
        let (pod, at) = match mine(shared, own) {
            Ok(Some(read)) => read,
            Ok(None) => return None,
            Err(failure) => {
                shared.facts.shows(None);
                return settle(shared, PodTask::Label, &mut self.label, Err(failure));
            }
        };
        if !setup.names.selects(pod) && !std::mem::replace(&mut self.warned, true) {
            let labels = setup.names.leaders();
            tracing::warn!(labels, "this pod lacks labels that a new leader needs to find it");
        }
        shared.facts.shows(pod::label(pod, &setup.names.role_label).map(String::as_str));
        if let Some(change) = pod::change(pod, wanted, &setup.names) {
            if !change.routes {
                let since = *self.status_since.get_or_insert_with(clock::now);
                if clock::now() < since + STATUS_WAITS {
                    return Some(since + STATUS_WAITS);
                }
            }
            if let Some(at) = self.label.not_before().filter(|at| clock::now() < *at) {
                return Some(at);
            }
            if let (Some(term), true) = (wanted.role.and_then(PodRole::term), change.routes) {
                if !shared.leads(term) {
                    // The loop will change the role soon, too.
                    return Some(clock::now() + LEASE_SOON);
                }
                if let Err(failure) = clear_the_way(shared, pod, at, term).await {
                    return settle(shared, PodTask::Label, &mut self.label, Err(failure));
                }
            }
            let patched = write(shared, shared.api.patch(&setup.pod, &change.patch).await).await;
            self.status_since = None;
            return settle(shared, PodTask::Label, &mut self.label, patched);
        }
        self.status_since = None;
        shared.facts.well(PodTask::Label);
        self.let_clients_in(shared, wanted, pod).await
    }

    /// Only after the label: a client that waits for the readiness gate finds the label in place.
    async fn let_clients_in(
        &mut self,
        shared: &KubeShared,
        wanted: &Wanted,
        pod: &PodObject,
    ) -> Option<Moment> {
        let setup = shared.api.setup();
        let open = match wanted.role? {
            PodRole::Leader(_) | PodRole::StandbyLeader(_) | PodRole::Follower => true,
            PodRole::Bootstrapping | PodRole::Nothing => false,
        };
        let patch = pod::gate(pod, setup.names.readiness_gate.as_ref()?, open, clock::wall())?;
        if let Some(at) = self.gate.not_before().filter(|at| clock::now() < *at) {
            return Some(at);
        }
        let patched = write(shared, shared.api.patch_status(&setup.pod, &patch).await).await;
        settle(shared, PodTask::Gate, &mut self.gate, patched)
    }
}

/// The own pod and the time of its read; `None` before that. An error if the pod with my name is not the one in which I
/// run.
pub(super) fn mine<'a>(
    shared: &KubeShared,
    own: &'a Own,
) -> Result<Option<(&'a PodObject, Moment)>, KubeFailure> {
    let name = &shared.api.setup().pod;
    let (pod, at) = match own {
        Own::Unknown => return Ok(None),
        Own::Gone => return Err(KubeFailure::new(PodFailure::NotFound, format!("there is no pod {name}"))),
        Own::Read { pod, at } => (pod, *at),
    };
    match (shared.own_uid(), &pod.metadata.uid) {
        (Some(mine), Some(uid)) if mine != uid => {
            let text = format!("pod {name} has the uid {uid}, and mine is {mine}");
            Err(KubeFailure::new(PodFailure::OtherPod, text))
        }
        (_, _) => Ok(Some((pod, at))),
    }
}

/// To be called before my pod gets the leader's label in `term`: no later leader has written it, and no other pod has
/// the label.
async fn clear_the_way(
    shared: &KubeShared,
    pod: &PodObject,
    seen_at: Moment,
    term: Term,
) -> Result<(), KubeFailure> {
    if let Some(found) = pod::term(pod).filter(|found| term < *found)
        && !shared.is_confirmed(term, seen_at).await
    {
        return Err(KubeFailure::newer_term(&format!("pod {}", shared.api.setup().pod), found, term));
    }
    if *shared.stripped.borrow() != Some(term) {
        strip::strip(shared, term).await?;
        shared.facts.well(PodTask::Strip);
    }
    Ok(())
}

/// Records the present state of the pod, whether the patch succeeded or not.
async fn write(shared: &KubeShared, patched: Result<PodObject, KubeFailure>) -> Result<(), KubeFailure> {
    match patched {
        Ok(pod) => {
            shared.read(pod);
            Ok(())
        }
        Err(failure) if failure.kind == PodFailure::Conflict => {
            shared.read(shared.api.get::<PodObject>(&shared.api.setup().pod).await?);
            Err(failure)
        }
        Err(failure) => Err(failure),
    }
}

pub(super) fn settle(
    shared: &KubeShared,
    task: PodTask,
    backoff: &mut Backoff,
    done: Result<(), KubeFailure>,
) -> Option<Moment> {
    match done {
        Ok(()) => {
            backoff.succeeded();
            shared.facts.well(task);
            None
        }
        Err(failure) => {
            shared.facts.failed(task, &failure);
            backoff.failed(&failure, clock::now());
            backoff.not_before()
        }
    }
}
