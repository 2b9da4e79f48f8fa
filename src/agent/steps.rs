//! Does the steps of a machine, one after the other, until it ends. Nothing is decided here.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::jobs::Tools;
use super::observe::lease_facts;
use super::pods;
use crate::core::job::{Answer, Machine, Next, Now, Step};
use crate::core::store::{Cas, WriteError};
use crate::etcd::{EtcdError, LeaseKeeper};
use crate::model::Outcome;
use crate::os::clock;
use crate::postgres::{Error, PendingPromotion, Started};

/// A promotion that takes longer than this has failed; recovery was caught up when it began.
const PROMOTE_WITHIN: Duration = Duration::from_secs(60);

/// What lasts from one step to a later one. Dropped with the task when it is cancelled.
struct Driver {
    tools: Tools,
    lease: Option<Arc<LeaseKeeper>>,
    stripping: Option<JoinHandle<()>>,
    promotion: Option<PendingPromotion>,
}

/// Runs a machine.
pub(super) async fn run(tools: Tools, lease: Option<Arc<LeaseKeeper>>, mut machine: Machine) -> Outcome {
    let mut driver = Driver { tools, lease, stripping: None, promotion: None };
    let mut answer = Answer::Begin;
    loop {
        let lease = lease_facts(driver.lease.as_deref());
        match machine.next(answer, Now { lease: &lease, at: clock::now() }) {
            Next::Do(step) => answer = driver.perform(step).await,
            Next::End(outcome) => return outcome,
        }
    }
}

impl Driver {
    async fn perform(&mut self, step: Step) -> Answer {
        let Tools { etcd, kube, .. } = &self.tools;
        match step {
            Step::Read(path) => Answer::Key(etcd.get(&path).await.map_err(WriteError::from)),
            Step::Commit(txn) => written(etcd.commit(&txn).await),
            Step::RenewLease => {
                self.lease.iter().for_each(|keeper| keeper.renew_now());
                Answer::Done
            }
            Step::ReadCluster => {
                etcd.look_again().notify_one();
                Answer::Done
            }
            Step::Unlabel => done(pods::unlabel(kube.as_ref())).await,
            Step::Unroute => done(pods::unroute(kube.as_ref(), self.lease.as_deref())).await,
            Step::BeginStrip(term) => {
                let kube = kube.clone();
                self.stripping = Some(tokio::spawn(async move { pods::strip(kube.as_ref(), term).await }));
                Answer::Done
            }
            Step::AwaitStripped => {
                if let Some(stripping) = self.stripping.take()
                    && let Err(error) = stripping.await
                {
                    tracing::warn!(%error, "the other pods' labels were not looked at");
                }
                Answer::Done
            }
            Step::Pause(span) => done(tokio::time::sleep(span)).await,
            Step::AwaitPromotable
            | Step::ReserveTimelines(_)
            | Step::PreparePromotion
            | Step::Arm
            | Step::WriteTrigger
            | Step::SignalPromotion
            | Step::AwaitPrimary => self.promote(step).await,
            postgres => self.change_postgres(postgres).await,
        }
    }

    async fn change_postgres(&self, step: Step) -> Answer {
        let postgres = &self.tools.postgres;
        match step {
            Step::Initdb => match postgres.bootstrap().await {
                Ok(system_id) => Answer::SystemId(system_id),
                Err(error) => Answer::Failed(error.chain()),
            },
            Step::SetAside => {
                tracing::warn!("another member made the cluster meanwhile: what initdb made here is set aside");
                ended(postgres.abandon_bootstrap())
            }
            Step::Clone(from) => ended(postgres.clone_from(&from, self.tools.progress.clone()).await),
            Step::LowerMinimums => {
                if let Err(error) = postgres.lower_minimums().await {
                    tracing::warn!(error = error.chain(), "some parameters stay as high as they were");
                }
                Answer::Done
            }
            Step::Start { follow, within } => {
                let started = postgres.start_standby(follow.as_ref(), within).await;
                if let Ok(Started::StillRecovering) = started {
                    tracing::warn!("PostgreSQL is still recovering; waiting on");
                }
                ended(started.map(|_| ()))
            }
            Step::Stop { mode, within } => {
                let stopped = postgres.stop(mode, within).await;
                ended(stopped.map(|by| tracing::info!(?by, "PostgreSQL has stopped")))
            }
            Step::Checkpoint { within } => ended(postgres.checkpoint(within).await),
            Step::CrashRecovery => ended(postgres.crash_recovery().await),
            Step::Rewind { from, fork } => ended(postgres.rewind(&from, fork).await.map(|report| {
                tracing::warn!(
                    timeline = report.timeline.0, fork = %report.fork, end = %report.end, bytes = report.bytes,
                    commits = report.commits, kept_in = %report.kept_in.display(),
                    "rewound; what the other history does not have was kept aside"
                );
            })),
            other => Answer::Failed(format!("not a change of PostgreSQL: {other:?}")),
        }
    }

    async fn promote(&mut self, step: Step) -> Answer {
        let postgres = &self.tools.postgres;
        match (step, &mut self.promotion) {
            (Step::AwaitPromotable, _) => ended(postgres.await_promotable(PROMOTE_WITHIN).await),
            (Step::ReserveTimelines(above), _) => ended(postgres.reserve_timelines(above).await),
            (Step::PreparePromotion, promotion) => match postgres.prepare_promotion(PROMOTE_WITHIN).await {
                Ok(None) => Answer::AlreadyPrimary,
                Ok(prepared) => {
                    *promotion = prepared;
                    Answer::Done
                }
                Err(error) => Answer::Failed(error.chain()),
            },
            (Step::Arm, _) => {
                let lease = || lease_facts(self.lease.as_deref());
                match tokio::task::block_in_place(|| self.tools.fencing.promise(lease)) {
                    true => Answer::Done,
                    false => Answer::Failed("the guard has not confirmed that it is armed".to_owned()),
                }
            }
            (Step::WriteTrigger, Some(promotion)) => ended(promotion.write_trigger()),
            (Step::SignalPromotion, Some(promotion)) => ended(promotion.signal()),
            (Step::AwaitPrimary, promotion) if promotion.is_some() => match promotion.take() {
                Some(promotion) => ended(promotion.await_primary().await),
                None => Answer::Done,
            },
            (other, _) => Answer::Failed(format!("not a step of a promotion under way: {other:?}")),
        }
    }
}

fn ended(done: Result<(), Error>) -> Answer {
    match done {
        Ok(()) => Answer::Done,
        Err(error) => Answer::Failed(error.chain()),
    }
}

async fn done(work: impl Future<Output = ()>) -> Answer {
    work.await;
    Answer::Done
}

fn written(written: Result<Cas, EtcdError>) -> Answer {
    if let Err(error) = &written {
        tracing::debug!(%error, "etcd did not confirm a write");
    }
    Answer::Written(written.map_err(WriteError::from))
}
