//! Performs the steps of a job one by one until the job ends. It makes no decisions.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::jobs::Tools;
use super::observe::lease_facts;
use super::pods;
use crate::core::job::{Answer, Machine, Next, Now, PostgresStep, PromotionStep, Step};
use crate::core::store::WriteError;
use crate::etcd::LeaseKeeper;
use crate::model::Outcome;
use crate::os::clock;
use crate::postgres::{Error, PendingPromotion, Started};

/// A promotion that takes longer than this has failed; recovery was caught up when it began.
const PROMOTE_WITHIN: Duration = Duration::from_secs(60);

/// What lasts from one step to a later one. Dropped with the task when it is cancelled.
struct Driver {
    tools: Tools,
    lease: Option<Arc<LeaseKeeper>>,
    stripping: JoinSet<()>,
    promotion: Option<PendingPromotion>,
}

/// Runs a machine.
pub(super) async fn run(tools: Tools, lease: Option<Arc<LeaseKeeper>>, mut machine: Machine) -> Outcome {
    let mut driver = Driver { tools, lease, stripping: JoinSet::new(), promotion: None };
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
            Step::Commit(txn) => Answer::Written(etcd.commit(&txn).await.map_err(WriteError::from)),
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
                self.stripping.spawn(async move { pods::strip(kube.as_ref(), term).await });
                Answer::Done
            }
            Step::AwaitStripped => {
                if let Some(Err(error)) = self.stripping.join_next().await {
                    tracing::warn!(%error, "could not check the labels of the other pods");
                }
                Answer::Done
            }
            Step::Pause(span) => done(tokio::time::sleep(span)).await,
            Step::Postgres(step) => self.change(step).await,
            Step::Promote(step) => self.promote(step).await,
        }
    }

    async fn change(&self, step: PostgresStep) -> Answer {
        let postgres = &self.tools.postgres;
        match step {
            PostgresStep::Initdb => match postgres.bootstrap().await {
                Ok(system_id) => Answer::SystemId(system_id),
                Err(error) => Answer::Failed(error.chain()),
            },
            PostgresStep::SetAside => {
                tracing::warn!("another member created the cluster first: the data directory of this member's initdb is moved aside");
                ended(postgres.abandon_bootstrap())
            }
            PostgresStep::Clone(from) => ended(postgres.clone_from(&from, self.tools.progress.clone()).await),
            PostgresStep::LowerMinimums => {
                if let Err(error) = postgres.lower_minimums().await {
                    tracing::warn!(error = error.chain(), "could not lower some parameters");
                }
                Answer::Done
            }
            PostgresStep::Start { follow, within } => {
                let started = postgres.start_standby(follow.as_ref(), within).await;
                if let Ok(Started::StillRecovering) = started {
                    tracing::warn!("PostgreSQL is still in recovery; still waiting");
                }
                ended(started.map(|_| ()))
            }
            PostgresStep::Stop { mode, within } => {
                let stopped = postgres.stop(mode, within).await;
                ended(stopped.map(|by| tracing::info!(?by, "PostgreSQL has stopped")))
            }
            PostgresStep::Checkpoint { within } => ended(postgres.checkpoint(within).await),
            PostgresStep::CrashRecovery => ended(postgres.crash_recovery().await),
            PostgresStep::Rewind { from, fork } => ended(postgres.rewind(&from, fork).await.map(|report| {
                tracing::warn!(
                    timeline = report.timeline.0, fork = %report.fork, end = %report.end, bytes = report.bytes,
                    commits = report.commits, kept_in = %report.kept_in.display(),
                    "rewound; files that the new timeline does not have were kept"
                );
            })),
        }
    }

    async fn promote(&mut self, step: PromotionStep) -> Answer {
        let postgres = &self.tools.postgres;
        match step {
            PromotionStep::AwaitPromotable => ended(postgres.await_promotable(PROMOTE_WITHIN).await),
            PromotionStep::ReserveTimelines(above) => ended(postgres.reserve_timelines(above).await),
            PromotionStep::Prepare => match postgres.prepare_promotion(PROMOTE_WITHIN).await {
                Ok(prepared) => {
                    self.promotion = prepared;
                    if self.promotion.is_some() { Answer::Done } else { Answer::AlreadyPrimary }
                }
                Err(error) => Answer::Failed(error.chain()),
            },
            PromotionStep::Arm => {
                let lease = || lease_facts(self.lease.as_deref());
                match tokio::task::block_in_place(|| self.tools.fencing.promise(lease)) {
                    true => Answer::Done,
                    false => Answer::Failed("the guard has not confirmed that it is armed".to_owned()),
                }
            }
            PromotionStep::WriteTrigger => match &mut self.promotion {
                Some(promotion) => ended(promotion.write_trigger()),
                None => unprepared(),
            },
            PromotionStep::Signal => match &self.promotion {
                Some(promotion) => ended(promotion.signal()),
                None => unprepared(),
            },
            PromotionStep::AwaitPrimary => match self.promotion.take() {
                Some(promotion) => ended(promotion.await_primary().await),
                None => unprepared(),
            },
        }
    }
}

fn unprepared() -> Answer {
    Answer::Failed("the promotion was not prepared".to_owned())
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
