//! Performs the steps of a job one by one until the job ends. It makes no decisions.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::jobs::Tools;
use super::observe::lease_facts;
use super::pods;
use crate::core::job::{
    JobAnswer, JobNext, JobStep, Machine, Now, OperatorScript, PostgresStep, PrimaryStartStep, PromotionStep,
};
use crate::core::store::WriteError;
use crate::etcd::LeaseKeeper;
use crate::model::{CloneMethods, DataDirectory, Leading, Outcome, Process, ReplicaMethod, Term};
use crate::os::clock;
use crate::os::error_chain::ErrorChain;
use crate::postgres::{Error, HeldPostmaster, PendingPromotion, ReplicaOrder, Started};

/// A promotion that takes longer than this has failed, since recovery had caught up before.
const PROMOTE_WITHIN: Duration = Duration::from_secs(60);
/// The most time for `pre_promote`: until it ends, the cluster has no primary.
const PRE_PROMOTE_WITHIN: Duration = Duration::from_secs(60);
/// The interval between looks at the lease while a script of the operator runs.
const WATCH_LEASE_EVERY: Duration = Duration::from_millis(50);

/// State that lasts from one step to a later one. It is dropped with the task when that is cancelled.
struct JobDriver {
    tools: Tools,
    lease: Option<Arc<LeaseKeeper>>,
    stripping: JoinSet<()>,
    promotion: Option<PendingPromotion>,
    held: Option<HeldPostmaster>,
}

/// Runs a machine.
pub(super) async fn run(tools: Tools, lease: Option<Arc<LeaseKeeper>>, mut machine: Machine) -> Outcome {
    let mut driver = JobDriver { tools, lease, stripping: JoinSet::new(), promotion: None, held: None };
    let mut answer = JobAnswer::Begin;
    loop {
        let lease = lease_facts(driver.lease.as_deref());
        match machine.next(answer, Now { lease: &lease, at: clock::now() }) {
            JobNext::Do(step) => answer = driver.perform(step).await,
            JobNext::End(outcome) => return outcome,
        }
    }
}

impl JobDriver {
    async fn perform(&mut self, step: JobStep) -> JobAnswer {
        let Tools { etcd, kube, .. } = &self.tools;
        match step {
            JobStep::Read(path) => JobAnswer::Key(etcd.get(&path).await.map_err(WriteError::from)),
            JobStep::Commit(txn) => JobAnswer::Written(etcd.commit(&txn).await.map_err(WriteError::from)),
            JobStep::RenewLease => {
                self.lease.iter().for_each(|keeper| keeper.renew_now());
                JobAnswer::Done
            }
            JobStep::ReadCluster => {
                etcd.look_again().notify_one();
                JobAnswer::Done
            }
            JobStep::Unlabel => done(pods::unlabel(kube.as_ref())).await,
            JobStep::Unroute => done(pods::unroute(kube.as_ref(), self.lease.as_deref())).await,
            JobStep::BeginStrip(term) => {
                let kube = kube.clone();
                self.stripping.spawn(async move { pods::strip(kube.as_ref(), term).await });
                JobAnswer::Done
            }
            JobStep::AwaitStripped => {
                if let Some(Err(error)) = self.stripping.join_next().await {
                    tracing::warn!(%error, "could not check the labels of the other pods");
                }
                JobAnswer::Done
            }
            JobStep::Pause(span) => done(tokio::time::sleep(span)).await,
            JobStep::Script(OperatorScript::PrePromote(term)) => self.pre_promote(term).await,
            JobStep::Script(OperatorScript::BeforeStop { within }) => self.before_stop(within).await,
            JobStep::Postgres(step) => self.change(step).await,
            JobStep::Promote(step) => self.promote(step).await,
            JobStep::StartPrimary(step) => self.start_primary(step).await,
        }
    }

    /// Beside the loop, which may hang: so the lease is watched here.
    async fn pre_promote(&self, term: Term) -> JobAnswer {
        let Some(words) = self.tools.local.borrow().postgresql.pre_promote.clone() else {
            return JobAnswer::Done;
        };
        tokio::select! {
            done = self.tools.postgres.run_script("pre_promote", &words, PRE_PROMOTE_WITHIN) => ended(done),
            () = self.lease_ends(term) => {
                JobAnswer::Failed("pre_promote was ended: the lease does not allow a promotion any more".to_owned())
            }
        }
    }

    async fn before_stop(&self, within: Duration) -> JobAnswer {
        let postgres = &self.tools.postgres;
        let runs = matches!(*postgres.process().borrow(), Process::Up { .. });
        let words = self.tools.local.borrow().postgresql.before_stop.clone();
        let Some(words) = words.filter(|_| runs) else { return JobAnswer::Done };
        let leading = lease_facts(self.lease.as_deref()).leading;
        let lease_ends = async {
            match leading {
                Leading::Yes(term) => self.lease_ends(term).await,
                Leading::No | Leading::Unknown => std::future::pending().await,
            }
        };
        let mut process = postgres.process();
        tokio::select! {
            done = postgres.run_script("before_stop", &words, within) => {
                if let Err(error) = done {
                    tracing::warn!(error = error.chain(), "before_stop failed: stopping PostgreSQL all the same");
                }
            }
            () = lease_ends => tracing::warn!("before_stop was ended: the lease ends, and PostgreSQL has to stop"),
            _down = process.wait_for(|process| matches!(process, Process::Down { .. })) => {
                tracing::warn!("before_stop was ended: PostgreSQL has ended");
            }
        }
        JobAnswer::Done
    }

    /// Until the lease of this term does not last for a demotion any more.
    async fn lease_ends(&self, term: Term) {
        while lease_facts(self.lease.as_deref()).allows_promotion(term, clock::now()) {
            tokio::time::sleep(WATCH_LEASE_EVERY).await;
        }
    }

    async fn change(&self, step: PostgresStep) -> JobAnswer {
        let postgres = &self.tools.postgres;
        match step {
            PostgresStep::Initdb => match postgres.bootstrap().await {
                Ok(system_id) => JobAnswer::SystemId(system_id),
                Err(error) => JobAnswer::Failed(error.chain()),
            },
            PostgresStep::CopyRemote { from, methods } => {
                let order = ReplicaOrder { from, methods: self.methods(methods), system_id: None };
                self.copy_remote(order).await
            }
            PostgresStep::SetAside => {
                tracing::warn!("another member created the cluster first: the data directory of this member's initdb is moved aside");
                ended(postgres.abandon_bootstrap())
            }
            PostgresStep::Clone { from, methods, system_id } => {
                let order = ReplicaOrder { from, methods: self.methods(methods), system_id };
                ended(postgres.make_replica(order, self.tools.progress.clone()).await)
            }
            PostgresStep::UndoClone => ended(postgres.undo_clone().await),
            PostgresStep::LowerMinimums => {
                if let Err(error) = postgres.lower_minimums().await {
                    tracing::warn!(error = error.chain(), "could not lower some parameters");
                }
                JobAnswer::Done
            }
            PostgresStep::Start { follow, within, role } => {
                if let Some(role) = role {
                    postgres.set_settings_role(role);
                }
                started(postgres.start_standby(follow.as_ref(), within).await)
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

    fn methods(&self, methods: CloneMethods) -> Vec<ReplicaMethod> {
        let local = self.tools.local.borrow();
        match methods {
            CloneMethods::Configured => local.postgresql.replica_methods.clone(),
            CloneMethods::BasebackupOnly => vec![ReplicaMethod::Basebackup],
            CloneMethods::Named(names) => {
                names.iter().filter_map(|name| local.postgresql.method(name)).collect()
            }
        }
    }

    async fn copy_remote(&self, order: ReplicaOrder) -> JobAnswer {
        let postgres = &self.tools.postgres;
        if let Err(error) = postgres.make_replica(order, self.tools.progress.clone()).await {
            return JobAnswer::Failed(error.chain());
        }
        match postgres.look().await.0 {
            DataDirectory::Ready(control) => JobAnswer::SystemId(control.system_id),
            _unusable => JobAnswer::Failed("the copy of the remote primary cannot be read".to_owned()),
        }
    }

    async fn start_primary(&mut self, step: PrimaryStartStep) -> JobAnswer {
        match (step, &mut self.held) {
            (PrimaryStartStep::Hold, held) => match self.tools.postgres.hold_primary().await {
                Ok(postmaster) => {
                    *held = Some(postmaster);
                    JobAnswer::Done
                }
                Err(error) => JobAnswer::Failed(error.chain()),
            },
            (PrimaryStartStep::Release, Some(held)) => ended(held.release().await),
            (PrimaryStartStep::AwaitReady(within), Some(held)) => started(held.await_ready(within).await),
            (PrimaryStartStep::Release | PrimaryStartStep::AwaitReady(_), None) => unprepared(),
        }
    }

    async fn promote(&mut self, step: PromotionStep) -> JobAnswer {
        let postgres = &self.tools.postgres;
        match step {
            PromotionStep::AwaitPromotable => ended(postgres.await_promotable(PROMOTE_WITHIN).await),
            PromotionStep::ReserveTimelines(above) => ended(postgres.reserve_timelines(above).await),
            PromotionStep::Prepare => match postgres.prepare_promotion(PROMOTE_WITHIN).await {
                Ok(prepared) => {
                    self.promotion = prepared;
                    if self.promotion.is_some() { JobAnswer::Done } else { JobAnswer::AlreadyPrimary }
                }
                Err(error) => JobAnswer::Failed(error.chain()),
            },
            PromotionStep::Arm => {
                let lease = || lease_facts(self.lease.as_deref());
                match tokio::task::block_in_place(|| self.tools.fencing.promise(lease)) {
                    true => JobAnswer::Done,
                    false => JobAnswer::Failed("the guard has not confirmed that it is armed".to_owned()),
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

fn started(started: Result<Started, Error>) -> JobAnswer {
    if let Ok(Started::StillRecovering) = started {
        tracing::warn!("PostgreSQL is still in recovery; still waiting");
    }
    ended(started.map(|_| ()))
}

fn unprepared() -> JobAnswer {
    JobAnswer::Failed("it was not prepared".to_owned())
}

fn ended(done: Result<(), Error>) -> JobAnswer {
    match done {
        Ok(()) => JobAnswer::Done,
        Err(error) => JobAnswer::Failed(error.chain()),
    }
}

async fn done(work: impl Future<Output = ()>) -> JobAnswer {
    work.await;
    JobAnswer::Done
}
