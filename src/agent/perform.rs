//! One match over [`Action`]. What could be decided is not decided here: no `if` about who should lead.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::cycle::Cycle;
use super::events::Event;
use super::jobs::Tools;
use super::steps;
use crate::config;
use crate::core::job::Machine;
use crate::etcd::Etcd;
use crate::model::{
    Action, ExitBecause, Finished, FollowTarget, Job, JobKind, LeaderBranch, LeaseId, MemberName,
    MemberRecord, Moment, Observation, Outcome,
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
            Action::PublishStatus { .. } => self.write("status", &action, seen, Event::StatusNotPublished),
            Action::PublishHistory { .. } => self.write("history", &action, seen, Event::LookWanted),
            Action::PublishSync { .. } => self.write("sync", &action, seen, Event::LookWanted),
            Action::PublishUnfenced(_) => self.write("unfenced", &action, seen, Event::LookWanted),
            Action::RestoreInitialize { .. } => self.write("initialize", &action, seen, Event::LookWanted),
            Action::RestoreConfig { .. } => self.write("config", &action, seen, Event::LookWanted),
            Action::ClearFailover { .. } => self.write("failover", &action, seen, Event::LookWanted),
            Action::WriteGeneration(_) => self.write("generation", &action, seen, Event::LookWanted),
            Action::SetSyncNames(names) => {
                self.local("synchronous_standby_names", self.tools.postgres.set_sync_names(names)).await;
            }
            Action::SetGate { closed } => self.local("gate", self.tools.postgres.set_gate(closed)).await,
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

    fn revoke_lease(&self, lease: LeaseId) {
        let etcd = self.tools.etcd.clone();
        tokio::spawn(async move {
            if let Err(error) = etcd.revoke_lease(lease).await {
                tracing::warn!(%lease, %error, "could not revoke my former lease");
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

    /// A write to etcd beside the loop. One that failed is tried again by a tick after [`WRITE_AGAIN_AFTER`]; etcd's
    /// trouble is the lease's to report.
    fn write(&self, key: &'static str, action: &Action, seen: &Observation, failed: Event) {
        let text = config::restored(self.dynamic.text(), &seen.settings.sync);
        let Some(machine) = Machine::aside(self.tools.actor(), action, seen.lease.lease, &text) else {
            return;
        };
        let (tools, lease) = (self.tools.clone(), self.keeper.clone());
        tokio::spawn(async move {
            match steps::run(tools.clone(), lease, machine).await {
                Outcome::Done | Outcome::Lost | Outcome::Cancelled => return,
                Outcome::LeaseGone => tracing::debug!(key, "not written: the lease is gone"),
                Outcome::Unknown(why) | Outcome::Failed(why) | Outcome::Refused(why) => {
                    tracing::debug!(key, why, "not written");
                }
            }
            tokio::time::sleep(WRITE_AGAIN_AFTER).await;
            // The loop has ended when nobody listens.
            let _ = tools.events.send(failed);
        });
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
            match etcd.commit(&etcd.keys().publish_member(&name, lease, &record_now)).await {
                Ok(_) => break,
                Err(error) => tracing::debug!(key = "members", %error, "not written"),
            }
            // A newer one, or the same again after a pause.
            if let Ok(Err(_)) = tokio::time::timeout(WRITE_AGAIN_AFTER, record.changed()).await {
                return;
            }
        }
    }
}
