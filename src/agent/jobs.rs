//! Long actions: spawned, named, cancellable, one at a time in each lane, reporting back as an event.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::events::Event;
use super::fencing::Fencing;
use super::steps;
use crate::core::job::{Actor, Machine};
use crate::etcd::{Etcd, LeaseKeeper};
use crate::kube::Kube;
use crate::model::{Finished, Job, JobKind, MemberName, Moment, Outcome, Running};
use crate::postgres::{Postgres, Progress};

/// What a long action needs. Cheap to clone.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) name: MemberName,
    pub(super) postgres: Postgres,
    pub(super) etcd: Etcd,
    pub(super) fencing: Arc<Fencing>,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) first_config: String,
    pub(super) kube: Option<Kube>,
}

impl Tools {
    /// Who acts, for a machine.
    pub(super) fn actor(&self) -> Actor {
        Actor {
            name: self.name.clone(),
            keys: self.etcd.keys().clone(),
            first_config: self.first_config.clone(),
        }
    }
}

/// One lane: at most one long action.
#[derive(Default)]
pub(super) struct Lane {
    running: Option<(Running, AbortHandle)>,
}

impl Lane {
    pub(super) fn running(&self) -> Option<Running> {
        self.running.as_ref().map(|(running, _)| running.clone())
    }

    /// Begins `job`; its end comes as an event. Ignored with a log line while another runs: the loop never asks.
    pub(super) fn start(&mut self, job: Job, now: Moment, tools: &Tools, lease: Option<&Arc<LeaseKeeper>>) {
        if let Some((running, _)) = &self.running {
            tracing::error!(asked = %job.kind(), runs = %running.job.kind(), "two long actions at a time");
            return;
        }
        let (tools, lease, running) =
            (tools.clone(), lease.cloned(), Running { job: job.clone(), since: now });
        let (events, kind) = (tools.events.clone(), job.kind());
        let work = tokio::spawn(steps::run(tools.clone(), lease, Machine::of(tools.actor(), job)));
        self.running = Some((running, work.abort_handle()));
        tokio::spawn(async move {
            // Only when the work is really gone does the lane count as free.
            let outcome = match work.await {
                Ok(outcome) => outcome,
                Err(error) if error.is_cancelled() => Outcome::Cancelled,
                Err(error) => Outcome::Failed(error.to_string()),
            };
            // The loop has ended when nobody listens.
            let _ = events.send(Event::JobFinished(Finished { job: kind, outcome }));
        });
    }

    /// Cancels the running action, if there is one; its end comes as an event, as every end.
    pub(super) fn cancel(&self) {
        if let Some((_, work)) = &self.running {
            work.abort();
        }
    }

    /// Takes note of an end; true if it was this lane's.
    pub(super) fn finished(&mut self, kind: JobKind) -> bool {
        let mine = self.running.as_ref().is_some_and(|(running, _)| running.job.kind() == kind);
        if mine {
            self.running = None;
        }
        mine
    }
}
