//! One match over [`Action`]. What could be decided is not decided here: no `if` about who should lead.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::cycle::Cycle;
use super::events::Event;
use super::jobs::{Tools, chain};
use crate::config;
use crate::etcd::{Cas, Etcd, EtcdError};
use crate::model::{
    Action, ExitBecause, Finished, FollowTarget, Job, JobKind, LeaderBranch, LeaseId, MemberName,
    MemberRecord, Moment, Observation, Outcome, UnfencedWrite,
};
use crate::os::clock;

/// How long the leader's Postgres may take to tell its history.
const HISTORY_WITHIN: Duration = Duration::from_secs(3);
/// The pause before a failed write beside the loop is tried again.
const WRITE_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Statements and reloads on the local Postgres.
const LOCAL_WITHIN: Duration = Duration::from_secs(3);

impl Cycle {
    /// Carries out one order.
    pub(super) async fn perform(
        &mut self,
        action: Action,
        seen: &Observation,
        now: Moment,
    ) -> ControlFlow<ExitBecause> {
        match action {
            Action::Start(job) => self.start(job, now),
            Action::CancelJob => self.state.job.cancel(),
            Action::AskPeers { who } => self.ask_peers(who),
            Action::AskLeaderBranch { from } => self.ask_leader_branch(from),
            Action::RenewLease => {
                if let Some(keeper) = &self.keeper {
                    keeper.renew_now();
                }
            }
            Action::RevokeLease { lease } => self.revoke_lease(lease),
            Action::PardonPostgres { until } => self.watch.probe().pardon(until),
            Action::PublishMember(record) => {
                self.pods.publish(&record);
                self.member.send_replace(seen.lease.lease.map(|lease| (lease, *record)));
            }
            Action::PublishStatus { term, status } => {
                self.as_leader("status", seen, Event::StatusNotPublished, move |etcd, lease| async move {
                    etcd.publish_status(term, lease, &status).await
                });
            }
            Action::PublishHistory { term, lines } => {
                self.as_leader("history", seen, Event::LookWanted, move |etcd, lease| async move {
                    etcd.publish_history(term, lease, &lines).await
                });
            }
            Action::PublishSync { term, record, mod_revision } => {
                self.as_leader("sync", seen, Event::LookWanted, move |etcd, lease| async move {
                    etcd.write_sync(term, lease, record.as_ref(), mod_revision).await
                });
            }
            Action::PublishUnfenced(write) => self.publish_unfenced(write, seen),
            Action::SetSyncNames(names) => {
                self.local("synchronous_standby_names", self.tools.postgres.set_sync_names(names)).await;
            }
            Action::SetGate { closed } => self.local("gate", self.tools.postgres.set_gate(closed)).await,
            Action::RestoreInitialize { term, system_id } => {
                self.as_leader("initialize", seen, Event::LookWanted, move |etcd, lease| async move {
                    etcd.restore_initialize(term, lease, system_id).await
                });
            }
            Action::RestoreConfig { term } => {
                let text = config::restored(self.dynamic.text(), &seen.settings.sync);
                self.as_leader("config", seen, Event::LookWanted, move |etcd, lease| async move {
                    etcd.restore_config(term, lease, &text).await
                });
            }
            Action::ClearFailover { mod_revision } => self.clear_failover(mod_revision),
            Action::WriteGeneration(write) => {
                self.as_leader("generation", seen, Event::LookWanted, move |etcd, lease| async move {
                    etcd.write_generation(lease, &write).await
                });
            }
            Action::Follow(target) => self.follow(target.as_ref()).await,
            Action::SetSlots { create, drop } => {
                self.local("set slots", self.tools.postgres.set_slots(&create, &drop)).await;
            }
            Action::ResumeReplay => self.local("resume replay", self.tools.postgres.resume_replay()).await,
            Action::CheckpointAfterPromotion { term: _ } => self.checkpoint_aside(),
            Action::Answer { id, reply } => {
                if let Some(answer) = self.state.answers.remove(&id) {
                    // Whoever asked may have gone.
                    let _ = answer.send(reply);
                }
            }
            Action::Exit(because) => return ControlFlow::Break(because),
        }
        ControlFlow::Continue(())
    }

    fn start(&mut self, job: Job, now: Moment) {
        match &job {
            Job::Clone { .. } => self.state.clone_since = Some(now),
            Job::TakeLeadership { .. } => self.pods.takes(self.state.because.as_ref()),
            // Told before PostgreSQL is: no load balancer is sent to a primary that already refuses clients.
            Job::Stop { .. } => {
                self.status.send_modify(|status| Arc::make_mut(status).job = Some(JobKind::Stop));
            }
            _other => {}
        }
        let lane = match job {
            Job::TakeLeadership { .. }
            | Job::HandOver { .. }
            | Job::ReleaseLeadership { .. }
            | Job::ReclaimLeadership { .. } => &mut self.state.writing,
            Job::Bootstrap { .. }
            | Job::Clone { .. }
            | Job::StartStandby { .. }
            | Job::Stop { .. }
            | Job::Checkpoint
            | Job::Promote { .. }
            | Job::CrashRecovery
            | Job::Rewind { .. } => &mut self.state.job,
        };
        lane.start(job, now, &self.tools, self.keeper.as_ref());
    }

    fn publish_unfenced(&self, write: UnfencedWrite, seen: &Observation) {
        self.as_leader("unfenced", seen, Event::LookWanted, move |etcd, lease| async move {
            let held = write.term.map(|term| (term, lease));
            etcd.write_unfenced(held, &write.primaries, write.mod_revision).await
        });
    }

    fn clear_failover(&self, mod_revision: i64) {
        let tools = self.tools.clone();
        tokio::spawn(async move {
            let cleared = tools.etcd.clear_failover(mod_revision).await;
            report(&tools.events, "failover", cleared.map(|_| ()), Event::LookWanted).await;
        });
    }

    fn revoke_lease(&self, lease: LeaseId) {
        let etcd = self.tools.etcd.clone();
        tokio::spawn(async move {
            if let Err(error) = etcd.revoke_lease(lease).await {
                tracing::warn!(%lease, error = chain(&error), "could not revoke my former lease");
            }
        });
    }

    fn ask_leader_branch(&self, from: FollowTarget) {
        let (postgres, events) = (self.tools.postgres.clone(), self.tools.events.clone());
        tokio::spawn(async move {
            let asked_at = clock::now();
            let told = match tokio::time::timeout(HISTORY_WITHIN, postgres.leader_history(&from)).await {
                Ok(told) => told.map_err(|error| error.chain()),
                Err(_) => Err(format!("no answer within {} s", HISTORY_WITHIN.as_secs())),
            };
            let has_slot = told.as_ref().is_ok_and(|told| told.has_slot);
            let oldest = told.as_ref().map(|told| told.oldest).unwrap_or_default();
            let answer = told.map(|told| told.branch);
            if let Err(why) = &answer {
                tracing::debug!(leader = %from.name, why, "the leader did not tell its history");
            }
            let _ = events.send(Event::LeaderBranchTold(LeaderBranch {
                name: from.name,
                asked_at,
                answer,
                has_slot,
                oldest,
            }));
        });
    }

    /// A write that only a leader may make, beside the loop.
    fn as_leader<F>(
        &self,
        key: &'static str,
        seen: &Observation,
        failed: Event,
        write: impl FnOnce(Etcd, LeaseId) -> F,
    ) where
        F: Future<Output = Result<Cas, EtcdError>> + Send + 'static,
    {
        let Some(lease) = seen.lease.lease else { return };
        let (events, write) = (self.tools.events.clone(), write(self.tools.etcd.clone(), lease));
        tokio::spawn(async move { report(&events, key, write.await.map(|_| ()), failed).await });
    }

    /// A source that was not written is compared and written again, but not at once: the disk may be full.
    async fn follow(&self, target: Option<&FollowTarget>) {
        if !self.tried("follow", self.tools.postgres.follow(target)).await {
            let events = self.tools.events.clone();
            tokio::spawn(async move {
                tokio::time::sleep(WRITE_AGAIN_AFTER).await;
                let _ = events.send(Event::NotFollowed);
            });
        }
    }

    async fn local<T>(
        &self,
        what: &'static str,
        step: impl Future<Output = Result<T, crate::postgres::Error>>,
    ) {
        let _warned = self.tried(what, step).await;
    }

    /// False where it failed or took too long, of which the log is told.
    async fn tried<T>(
        &self,
        what: &'static str,
        step: impl Future<Output = Result<T, crate::postgres::Error>>,
    ) -> bool {
        match tokio::time::timeout(LOCAL_WITHIN, step).await {
            Ok(Ok(_)) => return true,
            Ok(Err(error)) => tracing::warn!(error = error.chain(), "{what} failed"),
            Err(_) => tracing::warn!("{what} took longer than {} s", LOCAL_WITHIN.as_secs()),
        }
        false
    }

    fn checkpoint_aside(&self) {
        let (postgres, events) = (self.tools.postgres.clone(), self.tools.events.clone());
        tokio::spawn(async move {
            let outcome = match postgres.checkpoint(Duration::from_secs(3600)).await {
                Ok(()) => Outcome::Done,
                Err(error) => Outcome::Failed(error.chain()),
            };
            let _ =
                events.send(Event::JobFinished(Finished { job: JobKind::CheckpointAfterPromotion, outcome }));
        });
    }
}

/// A write beside the loop that failed is tried again by a tick after [`WRITE_AGAIN_AFTER`]; etcd's trouble is the
/// lease's to report.
async fn report(
    events: &tokio::sync::mpsc::UnboundedSender<Event>,
    key: &'static str,
    written: Result<(), EtcdError>,
    failed: Event,
) {
    if let Err(error) = written {
        tracing::debug!(key, error = chain(&error), "not written");
        tokio::time::sleep(WRITE_AGAIN_AFTER).await;
        let _ = events.send(failed);
    }
}

/// Where to send the member record. One is written at a time and always the newest, so that none can overtake a later
/// one.
pub(super) fn publish_members(tools: &Tools) -> watch::Sender<Option<(LeaseId, MemberRecord)>> {
    let (sender, newest) = watch::channel(None);
    tokio::spawn(publish_member(tools.etcd.clone(), tools.name.clone(), newest));
    sender
}

async fn publish_member(
    etcd: Etcd,
    name: MemberName,
    mut record: watch::Receiver<Option<(LeaseId, MemberRecord)>>,
) {
    while record.changed().await.is_ok() {
        loop {
            let newest = record.borrow_and_update().clone();
            let Some((lease, record_now)) = newest else { break };
            match etcd.publish_member(&name, lease, &record_now).await {
                Ok(_) => break,
                Err(error) => tracing::debug!(key = "members", error = chain(&error), "not written"),
            }
            // A newer one, or the same again after a pause.
            if let Ok(Err(_)) = tokio::time::timeout(WRITE_AGAIN_AFTER, record.changed()).await {
                return;
            }
        }
    }
}
