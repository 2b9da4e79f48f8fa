//! Long actions: spawned, named, cancellable, reporting back as an event.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::events::TaskReport;
use super::fencing::Fencing;
use super::serial::SerialThread;
use super::steps;
use crate::core::job::{Actor, Machine};
use crate::core::member::MemberEvent;
use crate::core::work_queue::needs_statements;
use crate::etcd::{Etcd, LeaseKeeper};
use crate::kube::Kube;
use crate::model::{Finished, Job, JobKind, MemberName, Outcome};
use crate::postgres::{CloneStatus, Postgres};

/// What a long action needs. Cheap to clone.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) name: MemberName,
    pub(super) postgres: Postgres,
    pub(super) etcd: Etcd,
    pub(super) fencing: Arc<Fencing>,
    pub(super) progress: watch::Sender<CloneStatus>,
    pub(super) reports: mpsc::UnboundedSender<TaskReport>,
    pub(super) first_config: String,
    pub(super) kube: Option<Kube>,
    /// Looks at PostgreSQL, one at a time.
    pub(super) looks: SerialThread,
    /// Changes to PostgreSQL and its files beside the long actions, in the order of the decisions.
    pub(super) statements: SerialThread,
}

impl Tools {
    /// Who acts, for a machine.
    pub(super) fn actor(&self) -> Actor {
        Actor { name: self.name.clone(), keys: self.etcd.keys().clone() }
    }
}

/// The tasks of the long actions; which of them may run is the member's to say.
#[derive(Default)]
pub(super) struct Jobs {
    tasks: BTreeMap<JobKind, AbortHandle>,
}

impl Jobs {
    /// Begins `job`; its end comes as an event.
    pub(super) fn start(&mut self, job: Job, tools: &Tools, lease: Option<&Arc<LeaseKeeper>>) {
        let (kind, reports) = (job.kind(), tools.reports.clone());
        let machine = Machine::of(tools.actor(), job, || tools.first_config.clone());
        let before = needs_statements(kind).then(|| tools.statements.idle());
        let (tools, lease) = (tools.clone(), lease.cloned());
        let work = tokio::spawn(async move {
            if let Some(before) = before {
                before.await;
            }
            steps::run(tools, lease, machine).await
        });
        self.tasks.insert(kind, work.abort_handle());
        tokio::spawn(async move {
            // Only when the work is really gone does the lane count as free.
            let outcome = match work.await {
                Ok(outcome) => outcome,
                Err(error) if error.is_cancelled() => Outcome::Cancelled,
                Err(error) => Outcome::Failed(error.to_string()),
            };
            // The loop has ended when nobody listens.
            let _ = reports.send(MemberEvent::JobFinished(Finished { job: kind, outcome }).into());
        });
    }

    /// Cancels a running action; its end comes as an event, as every end.
    pub(super) fn cancel(&mut self, job: JobKind) {
        if let Some(work) = self.tasks.get(&job) {
            work.abort();
        }
    }

    /// Takes note of an end.
    pub(super) fn finished(&mut self, job: JobKind) {
        self.tasks.remove(&job);
    }
}
