//! One match over [`MemberEffect`] and one over [`Action`]. Nothing in them waits. What could be decided is not decided
//! here: no `if` about who should lead.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::cycle::Cycle;
use super::events::TaskReport;
use super::jobs::Tools;
use super::steps;
use crate::config;
use crate::core::job::Machine;
use crate::core::member::{Levels, MemberEffect, MemberEvent};
use crate::etcd::Etcd;
use crate::model::{
    Action, ExitBecause, Finished, FollowTarget, Job, JobKind, LeaderBranch, LeaderSlotsQuestion, LeaseId,
    LogicalSlotChanges, MemberName, MemberRecord, Outcome, Process, SyncOwner,
};
use crate::os::clock;
use crate::os::error_chain::ErrorChain;
use crate::postgres::{Error, LeaderHistory};

/// How long the leader's Postgres may take to tell its history.
const HISTORY_WITHIN: Duration = Duration::from_secs(3);
/// The pause before a failed write beside the loop is tried again.
const WRITE_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Statements and reloads on the local Postgres.
const LOCAL_WITHIN: Duration = Duration::from_secs(3);

impl Cycle {
    /// Does one thing that the member decided.
    pub(super) async fn perform(
        &mut self,
        effect: MemberEffect,
        levels: &Levels,
    ) -> ControlFlow<ExitBecause> {
        match effect {
            MemberEffect::Say(notice) => self.say(notice),
            MemberEffect::KeepStore => self.state.store.keep(&self.core.memory().store).await,
            MemberEffect::KeepRecord(record) => {
                self.state.tally.record(&record);
                self.journal.keep(*record);
            }
            MemberEffect::Route(route) => self.pods.route(route),
            MemberEffect::Label(role) => {
                if let Some(because) = self.core.because() {
                    self.pods.say(role, because, &levels.lease);
                }
            }
            MemberEffect::Fence => {
                // Whether the guard has acknowledged is asked before PostgreSQL may become a primary.
                let _ordered = self.fencing.want(|| self.lease());
            }
            MemberEffect::Unfence => self.fencing.unwant(),
            MemberEffect::Act(action) => return self.act(action, levels),
        }
        ControlFlow::Continue(())
    }

    /// Carries out one order.
    fn act(&mut self, action: Action, levels: &Levels) -> ControlFlow<ExitBecause> {
        let postgres = self.tools.postgres.clone();
        match action {
            Action::Start(job) => self.start(job),
            Action::CancelJob => {
                if let Some(running) = self.core.job() {
                    self.state.jobs.cancel(running.job.kind());
                }
            }
            Action::AskPeers { who } => self.ask_peers(who),
            Action::AskLeaderBranch { from } => self.ask_leader_branch(from),
            Action::RenewLease => {
                if let Some(keeper) = &self.keeper {
                    keeper.renew_now();
                }
            }
            Action::RevokeLease { lease } => self.revoke_lease(lease),
            Action::SuspendLivenessCheck { until } => self.probe.suspend_liveness_check(until),
            Action::PublishMember(record) => {
                self.pods.publish(&record);
                self.member.send_replace(levels.lease.lease.map(|lease| (lease, *record)));
            }
            Action::PublishStatus { .. } => {
                self.write("status", &action, levels, MemberEvent::StatusNotPublished)
            }
            Action::PublishHistory { .. } => self.write("history", &action, levels, MemberEvent::LookWanted),
            Action::PublishSync { .. } => self.write("sync", &action, levels, MemberEvent::LookWanted),
            Action::PublishFailsafe { .. } => {
                self.write("failsafe", &action, levels, MemberEvent::LookWanted)
            }
            Action::PlanFailsafe(plan) => self.failsafe.plan(plan),
            Action::PublishUnfenced(_) => self.write("unfenced", &action, levels, MemberEvent::LookWanted),
            Action::RestoreInitialize { .. } => {
                self.write("initialize", &action, levels, MemberEvent::LookWanted)
            }
            Action::RestoreConfig { .. } => self.write("config", &action, levels, MemberEvent::LookWanted),
            Action::ClearFailover { .. } => self.write("failover", &action, levels, MemberEvent::LookWanted),
            Action::WriteRecruit(_) => self.write("recruit", &action, levels, MemberEvent::LookWanted),
            Action::WriteGeneration(_) => self.write("generation", &action, levels, MemberEvent::LookWanted),
            Action::SetSyncNames(names) => {
                postgres.set_sync_owner(names.map_or(SyncOwner::Operator, SyncOwner::Supervisor));
                self.tell("synchronous_standby_names", async move { postgres.write_sync_names().await });
            }
            Action::SetClientLockout { closed } => self.lock_clients_out(closed),
            Action::Follow(target) => self.follow(target),
            Action::SetSlots(changes) => {
                self.tell("set slots", async move { postgres.set_slots(&changes).await });
            }
            Action::SetLogicalSlots(changes) => self.set_logical_slots(changes),
            Action::AskLeaderSlots(question) => self.ask_leader_slots(question),
            Action::ResumeReplay => self.tell("resume replay", async move { postgres.resume_replay().await }),
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

    fn start(&mut self, job: Job) {
        match &job {
            Job::Clone { .. } => self.state.clone_since = Some(clock::now()),
            Job::TakeLeadership { .. } => self.pods.takes(self.core.because()),
            // Told before PostgreSQL is: no load balancer is sent to a primary that already refuses clients.
            Job::Stop { .. } => {
                self.status.send_modify(|status| Arc::make_mut(status).job = Some(JobKind::Stop));
            }
            _other => {}
        }
        self.state.jobs.start(job, &self.tools, self.keeper.as_ref());
    }

    fn revoke_lease(&self, lease: LeaseId) {
        let etcd = self.tools.etcd.clone();
        tokio::spawn(async move {
            if let Err(error) = etcd.revoke_lease(lease).await {
                tracing::warn!(%lease, %error, "could not revoke the previous lease of this member");
            }
        });
    }

    fn ask_leader_branch(&self, from: FollowTarget) {
        let (postgres, reports) = (self.tools.postgres.clone(), self.tools.reports.clone());
        let mine = self.status.borrow().postgres.control().map(|control| control.system_id);
        tokio::spawn(async move {
            let asked_at = clock::now();
            let history_answer =
                match tokio::time::timeout(HISTORY_WITHIN, postgres.leader_history(&from)).await {
                    Ok(history_answer) => of_same_database(history_answer, mine),
                    Err(_) => Err(format!("no answer within {} s", HISTORY_WITHIN.as_secs())),
                };
            let has_slot = history_answer.as_ref().is_ok_and(|history_answer| history_answer.has_slot);
            let oldest =
                history_answer.as_ref().map(|history_answer| history_answer.oldest).unwrap_or_default();
            let answer = history_answer.map(|history_answer| history_answer.branch);
            if let Err(why) = &answer {
                tracing::debug!(leader = %from.name, why, "could not read the timeline history of the leader");
            }
            let history_answer = MemberEvent::LeaderBranchTold(LeaderBranch {
                name: from.name,
                asked_at,
                answer,
                has_slot,
                oldest,
            });
            let _ = reports.send(history_answer.into());
        });
    }

    /// A write to etcd beside the loop. One that failed is tried again by a tick after [`WRITE_AGAIN_AFTER`]; etcd's
    /// trouble is the lease's to report.
    fn write(&self, key: &'static str, action: &Action, levels: &Levels, failed: MemberEvent) {
        let text = || config::restored(self.dynamic.text(), &levels.settings.sync);
        let Some(machine) = Machine::aside(self.tools.actor(), action, levels.lease.lease, text) else {
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
            let _ = tools.reports.send(failed.into());
        });
    }

    /// Has PostgreSQL told something, after what it was told before.
    fn tell(
        &mut self,
        what: &'static str,
        statement: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) {
        self.core.statement_waits();
        self.tools.statements.run(what, async move {
            let _warned = tried(what, statement).await;
        });
    }

    /// Rules that let clients in and were not written are written again, but not at once: the disk may be full. A start
    /// writes those that lock clients out.
    fn lock_clients_out(&mut self, closed: bool) {
        self.core.statement_waits();
        let (postgres, reports) = (self.tools.postgres.clone(), self.tools.reports.clone());
        postgres.set_client_lockout(closed);
        self.tools.statements.run("client lockout", async move {
            match tried("client lockout", postgres.write_client_lockout()).await {
                true => {}
                // A start writes them. A server that runs lets clients in as before.
                false if closed => {
                    if let Process::Up { .. } = *postgres.process().borrow() {
                        postgres.set_client_lockout(false);
                    }
                }
                false => report_later(reports, MemberEvent::ClientsNotLetIn),
            }
        });
    }

    /// A source that was not written is compared and written again, but not at once: the disk may be full.
    fn follow(&mut self, target: Option<FollowTarget>) {
        self.core.statement_waits();
        let (postgres, reports) = (self.tools.postgres.clone(), self.tools.reports.clone());
        self.tools.statements.run("follow", async move {
            if !tried("follow", postgres.follow(target.as_ref())).await {
                report_later(reports, MemberEvent::NotFollowed);
            }
        });
    }

    fn set_logical_slots(&self, changes: LogicalSlotChanges) {
        let (postgres, reports) = (self.tools.postgres.clone(), self.tools.reports.clone());
        self.tools.logical_slots.run("logical slots", async move {
            let broken = postgres.set_logical_slots(&changes).await;
            if !broken.is_empty() {
                // The loop has ended when nobody listens.
                let _ = reports.send(MemberEvent::SlotsBroken(broken).into());
            }
        });
    }

    fn ask_leader_slots(&self, question: LeaderSlotsQuestion) {
        let (postgres, reports) = (self.tools.postgres.clone(), self.tools.reports.clone());
        self.tools.logical_slots.run("slots of the leader", async move {
            match postgres.leader_slots(&question).await {
                Ok(told) => drop(reports.send(MemberEvent::LeaderSlotsTold(told).into())),
                Err(error) => {
                    let leader = question.leader.name;
                    tracing::warn!(%leader, error = error.chain(), "could not ask for the logical slots of the leader");
                }
            }
        });
    }

    fn checkpoint_aside(&self) {
        let (postgres, reports) = (self.tools.postgres.clone(), self.tools.reports.clone());
        tokio::spawn(async move {
            let outcome = match postgres.checkpoint(Duration::from_secs(3600)).await {
                Ok(()) => Outcome::Done,
                Err(error) => Outcome::Failed(error.chain()),
            };
            let finished = Finished { job: JobKind::CheckpointAfterPromotion, outcome };
            let _ = reports.send(MemberEvent::JobFinished(finished).into());
        });
    }
}

/// A server of another database has nothing to do with the WAL here.
fn of_same_database(
    answer: Result<LeaderHistory, Error>,
    mine: Option<u64>,
) -> Result<LeaderHistory, String> {
    let answer = answer.map_err(|error| error.chain())?;
    match mine.filter(|mine| *mine != answer.system_id) {
        Some(mine) => Err(format!(
            "it has the system identifier {}, and the data here has {mine}: it is another database",
            answer.system_id
        )),
        None => Ok(answer),
    }
}

fn report_later(reports: mpsc::UnboundedSender<TaskReport>, event: MemberEvent) {
    tokio::spawn(async move {
        tokio::time::sleep(WRITE_AGAIN_AFTER).await;
        // The loop has ended when nobody listens.
        let _ = reports.send(event.into());
    });
}

/// False where it failed or took too long, of which the log is told.
async fn tried<T>(what: &'static str, step: impl Future<Output = Result<T, Error>>) -> bool {
    match tokio::time::timeout(LOCAL_WITHIN, step).await {
        Ok(Ok(_)) => return true,
        Ok(Err(error)) => tracing::warn!(error = error.chain(), "{what} failed"),
        Err(_) => tracing::warn!("{what} took longer than {} s", LOCAL_WITHIN.as_secs()),
    }
    false
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
