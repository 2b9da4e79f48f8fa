//! Long actions: spawned, named, cancellable, one at a time in each lane, reporting back as an event.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::events::Event;
use super::fencing::Fencing;
use super::pods;
use crate::etcd::{Cas, Etcd, EtcdError, LeaseKeeper};
use crate::kube::Kube;
use crate::model::{
    Finished, Job, JobKind, Leading, LeaseFacts, LeaseId, MemberName, Moment, Outcome, Running, Term,
    Timeline,
};
use crate::os::clock;
use crate::postgres::{Postgres, Progress, Started};

/// A checkpoint of a large, busy primary takes this long at most; a hand-over gives up sooner.
const CHECKPOINT_WITHIN: Duration = Duration::from_secs(3600);
/// A promotion that takes longer than this has failed; recovery was caught up when it began.
const PROMOTE_WITHIN: Duration = Duration::from_secs(60);

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
        let work = tokio::spawn(async move { run(&tools, lease.as_deref(), job).await });
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

async fn run(tools: &Tools, lease: Option<&LeaseKeeper>, job: Job) -> Outcome {
    let postgres = &tools.postgres;
    let ended = match job {
        Job::TakeLeadership { .. }
        | Job::HandOver { .. }
        | Job::ReleaseLeadership { .. }
        | Job::ReclaimLeadership { .. } => {
            let Some(keeper) = lease else { return Outcome::Failed("there is no lease yet".to_owned()) };
            return write_leader_key(tools, keeper, job).await;
        }
        Job::Bootstrap { seen } => return bootstrap(tools, lease, seen).await,
        Job::Clone { from } => postgres.clone_from(&from, tools.progress.clone()).await,
        Job::StartStandby { follow, within } => {
            pods::before_standby(tools.kube.as_ref(), lease).await;
            if follow.is_none() {
                lower_minimums(tools, lease).await;
            }
            postgres.start_standby(follow.as_ref(), within).await.map(|started| match started {
                Started::Ready => {}
                Started::StillRecovering => tracing::warn!("PostgreSQL is still recovering; waiting on"),
            })
        }
        Job::Stop { mode, within } => {
            pods::before_stop(tools.kube.as_ref(), mode).await;
            postgres.stop(mode, within).await.map(|by| tracing::info!(?by, "PostgreSQL has stopped"))
        }
        Job::Checkpoint => postgres.checkpoint(CHECKPOINT_WITHIN).await,
        Job::Promote { term, above } => {
            let Some(keeper) = lease else { return Outcome::Failed("there is no lease".to_owned()) };
            // A number that is claimed for a promotion that cannot begin is lost.
            if let Err(error) = postgres.await_promotable(PROMOTE_WITHIN).await {
                return Outcome::Failed(error.chain());
            }
            let stripped = pods::strip(tools.kube.as_ref(), term);
            let (claimed, ()) = tokio::join!(claim_timeline(tools, keeper, term, above), stripped);
            match claimed {
                Ok(passed_over) => promote(tools, keeper, term, passed_over).await,
                Err(outcome) => return outcome,
            }
        }
        Job::CrashRecovery => postgres.crash_recovery().await,
        Job::Rewind { from, fork } => postgres.rewind(&from, fork).await.map(|report| {
            tracing::warn!(
                timeline = report.timeline.0, fork = %report.fork, end = %report.end, bytes = report.bytes,
                commits = report.commits, kept_in = %report.kept_in.display(),
                "rewound; what the other history does not have was kept aside"
            );
        }),
    };
    match ended {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::Failed(error.chain()),
    }
}

/// A standby must not have less than its primary, so that the primary comes first.
async fn lower_minimums(tools: &Tools, lease: Option<&LeaseKeeper>) {
    let leads = |facts: &LeaseFacts| match facts.leading {
        Leading::Yes(term) => facts.allows_promotion(term, clock::now()),
        Leading::No | Leading::Unknown => false,
    };
    if lease.is_some_and(|lease| leads(&lease.facts().borrow()))
        && let Err(error) = tools.postgres.lower_minimums().await
    {
        tracing::warn!(error = error.chain(), "some parameters stay as high as they were");
    }
}

/// Before a promotion: no other history has the number of the timeline that it begins, nor will have it.
async fn claim_timeline(
    tools: &Tools,
    keeper: &LeaseKeeper,
    term: Term,
    above: Timeline,
) -> Result<Timeline, Outcome> {
    let failed = |why: &str| Outcome::Failed(why.to_owned());
    let lease = keeper.facts().borrow().lease.ok_or_else(|| failed("there is no lease"))?;
    match tools.etcd.claim_timeline(term, lease, above).await {
        Ok(claimed) => claimed.ok_or_else(|| failed("the leader key is not mine any more")),
        Err(EtcdError::NoSpace(why)) => Err(Outcome::Refused(why)),
        Err(error) => Err(Outcome::Failed(chain(&error))),
    }
}

async fn promote(
    tools: &Tools,
    keeper: &LeaseKeeper,
    term: Term,
    above: Timeline,
) -> Result<(), crate::postgres::Error> {
    tools.postgres.reserve_timelines(above).await?;
    let facts = keeper.facts();
    let still_allowed = || {
        let lease = || facts.borrow().clone();
        // Armed first: a freeze right behind this line ends in the fence, not in a second primary.
        let fenced = tokio::task::block_in_place(|| tools.fencing.promise(lease));
        fenced && lease().allows_promotion(term, clock::now())
    };
    tools.postgres.promote(still_allowed, PROMOTE_WITHIN).await
}

async fn write_leader_key(tools: &Tools, keeper: &LeaseKeeper, job: Job) -> Outcome {
    let facts = keeper.facts().borrow().clone();
    let Some(lease) = facts.lease else { return Outcome::Failed("there is no lease".to_owned()) };
    let result = match job {
        Job::TakeLeadership { by } => tools.etcd.take_leadership(&tools.name, lease, by).await,
        Job::HandOver { term, to, to_lease, status } => {
            tools.etcd.hand_over(term, lease, &to, to_lease, Some(&status)).await
        }
        Job::ReleaseLeadership { term, status } => {
            tools.etcd.release_leadership(term, lease, status.as_ref()).await
        }
        Job::ReclaimLeadership { term } => tools.etcd.reclaim_leadership(term, lease).await,
        _postgres_job => return Outcome::Failed("not a write to the leader key".to_owned()),
    };
    // Whatever came of it, the next renewal reads who leads.
    keeper.renew_now();
    match result {
        Ok(Cas::Done(_)) => Outcome::Done,
        Ok(Cas::Lost) => Outcome::Lost,
        Err(EtcdError::NoSpace(why)) => Outcome::Refused(why),
        Err(EtcdError::LeaseNotFound) => Outcome::LeaseGone,
        Err(error) => Outcome::Unknown(chain(&error)),
    }
}

async fn bootstrap(tools: &Tools, keeper: Option<&LeaseKeeper>, seen: i64) -> Outcome {
    let Some(lease) = keeper.and_then(|keeper| keeper.facts().borrow().lease) else {
        return Outcome::Cancelled;
    };
    match tools.etcd.win_initialize(lease, seen).await {
        Ok(Cas::Done(_)) => {}
        Ok(Cas::Lost) => return Outcome::Lost,
        Err(EtcdError::LeaseNotFound) => return Outcome::LeaseGone,
        Err(error) => {
            tracing::warn!(error = chain(&error), "could not win the initialize key; trying again");
            return Outcome::Cancelled;
        }
    }
    match tools.postgres.bootstrap().await {
        Ok(system_id) => finish_bootstrap(tools, lease, system_id).await,
        Err(error) => {
            if let Err(freeing) = tools.etcd.free_initialize(lease).await {
                tracing::warn!(
                    error = chain(&freeing),
                    "could not free the initialize key; it expires with my lease"
                );
            }
            Outcome::Failed(error.chain())
        }
    }
}

async fn finish_bootstrap(tools: &Tools, lease: LeaseId, system_id: u64) -> Outcome {
    match tools.etcd.finish_initialize(lease, system_id, &tools.first_config).await {
        Ok(Cas::Done(_)) => Outcome::Done,
        Ok(Cas::Lost) => Outcome::Failed("the initialize key was lost while the cluster was made".to_owned()),
        Err(error) => Outcome::Unknown(chain(&error)),
    }
}

/// An etcd error with its causes, on one line.
pub(super) fn chain(error: &EtcdError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
