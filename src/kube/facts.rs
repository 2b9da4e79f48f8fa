//! The facts for the REST interface: the label as last shown, the tasks that fail, and how often.

use tokio::sync::watch;

use super::failure::KubeFailure;
use crate::model::{PodEnd, PodFacts, PodTask, PodTrouble};
use crate::os::clock;

/// The facts, published at every change that matters to an operator.
#[derive(Debug)]
pub(super) struct Facts(watch::Sender<PodFacts>);

impl Facts {
    pub(super) fn new() -> Facts {
        Facts(watch::Sender::default())
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<PodFacts> {
        self.0.subscribe()
    }

    pub(super) fn shows(&self, role: Option<&str>) {
        self.0.send_if_modified(|facts| {
            let changed = facts.role.as_deref() != role;
            facts.role = role.map(str::to_owned);
            changed
        });
    }

    /// Records the end of the pod.
    pub(super) fn ends(&self, end: Option<PodEnd>) {
        self.0.send_if_modified(|facts| {
            let changed = facts.end != end;
            if let Some(end) = end.filter(|_| changed) {
                tracing::warn!("{end}: handing leadership over if this member leads");
            }
            facts.end = end;
            changed
        });
    }

    /// Records a success of `task`.
    pub(super) fn well(&self, task: PodTask) {
        self.0.send_if_modified(|facts| {
            let before = facts.complaint();
            if let Some(trouble) = facts.trouble.remove(&task).filter(PodTrouble::lasts) {
                tracing::info!(
                    task = task.as_str(),
                    failures = trouble.count,
                    "requests to the Kubernetes API succeed again"
                );
            }
            before != facts.complaint()
        });
    }

    /// Drops the trouble of `task`: no further attempt is made.
    pub(super) fn forget_trouble(&self, task: PodTask) {
        self.0.send_if_modified(|facts| facts.trouble.remove(&task).is_some_and(|trouble| trouble.lasts()));
    }

    /// Records a failure of `task`.
    pub(super) fn failed(&self, task: PodTask, failure: &KubeFailure) {
        self.0.send_if_modified(|facts| {
            let before = facts.complaint();
            *facts.failures.entry((task, failure.kind)).or_default() += 1;
            let since = clock::now();
            let fresh = || PodTrouble { kind: failure.kind, since, count: 0, text: String::new() };
            let trouble = facts.trouble.entry(task).or_insert_with(fresh);
            let told = trouble.lasts() && trouble.kind == failure.kind;
            trouble.count += 1;
            (trouble.kind, trouble.text) = (failure.kind, failure.text.clone());
            if trouble.lasts() && !told {
                tracing::warn!(
                    task = task.as_str(),
                    error = failure.text,
                    "a request to the Kubernetes API failed"
                );
            }
            before != facts.complaint()
        });
    }
}
