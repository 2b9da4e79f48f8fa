//! Long actions: spawned, named and cancellable. The end of each is an event.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::events::TaskReport;
use super::fencing::Fencing;
use super::serial::SerialThread;
use super::steps;
use crate::config::Config;
use crate::core::job::{Actor, Machine};
use crate::core::member::MemberEvent;
use crate::core::work_queue::needs_statements;
use crate::etcd::{Etcd, LeaseKeeper};
use crate::kube::Kube;
use crate::model::{Finished, Job, JobKind, MemberName, Outcome};
use crate::postgres::{CloneStatus, Postgres};

/// The parts that a long action needs. Cheap to clone.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) name: MemberName,
    pub(super) postgres: Postgres,
    pub(super) etcd: Etcd,
    pub(super) fencing: Arc<Fencing>,
    pub(super) progress: watch::Sender<CloneStatus>,
    pub(super) reports: mpsc::UnboundedSender<TaskReport>,
    pub(super) first_config: String,
    /// The local configuration, as last read: the scripts are in it.
    pub(super) local: watch::Receiver<Arc<Config>>,
    pub(super) kube: Option<Kube>,
    /// Queries of PostgreSQL, one at a time.
    pub(super) looks: SerialThread,
    /// Changes to PostgreSQL and its files beside the long actions, in the order of the decisions.
    pub(super) statements: SerialThread,
    /// Changes to logical slots, which may take long. Nothing waits for them.
    pub(super) logical_slots: SerialThread,
}

impl Tools {
    /// The member that acts, for a machine.
    pub(super) fn actor(&self) -> Actor {
        Actor { name: self.name.clone(), keys: self.etcd.keys().clone() }
    }
}

/// The tasks of the long actions. The member decides which of them may run.
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
            // The lane is free only when the work has really ended.
            let outcome = match work.await {
                Ok(outcome) => outcome,
                Err(error) if error.is_cancelled() => Outcome::Cancelled,
                Err(error) => Outcome::Failed(error.to_string()),
            };
            // Without a receiver the loop has ended.
            let _ = reports.send(MemberEvent::JobFinished(Finished { job: kind, outcome }).into());
        });
    }

    /// Cancels a running action; its end comes as an event, like every end.
    pub(super) fn cancel(&mut self, job: JobKind) {
        if let Some(work) = self.tasks.get(&job) {
            work.abort();
        }
    }

    /// Records an end.
    pub(super) fn finished(&mut self, job: JobKind) {
        self.tasks.remove(&job);
    }
}
