//! One match over the actions: `src/agent/perform.rs`.

use std::ops::ControlFlow;
use std::time::Duration;

use matriarch::core::job::Machine;
use matriarch::core::member::{Levels, MemberEvent};
use matriarch::core::work_queue::needs_statements;
use matriarch::model::{
    Action, Branch, ExitBecause, Finished, FollowTarget, Job, JobKind, LeaderBranch, Lsn, Outcome, SyncOwner,
    Term, Timeline,
};

use super::Agent;
use super::cycle::Cycle;
use super::jobs::{Purpose, UnderWay};
use crate::sim::mutation::Mutation;
use crate::sim::network::Host;
use crate::sim::postgres::Phase;
use crate::sim::world::index_of;

const HISTORY_WITHIN: Duration = Duration::from_secs(3);
const WRITE_AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Cycle {
    pub(super) fn act(&mut self, action: Action, levels: &Levels) -> ControlFlow<ExitBecause> {
        let agent = self.agent.clone();
        let lease = levels.lease.lease;
        match action {
            Action::Start(job) => self.start(job),
            Action::CancelJob => self.cancel(),
            Action::AskPeers { who } => agent.ask_peers(who),
            Action::AskLeaderBranch { from } => agent.ask_leader_branch(from),
            Action::RenewLease => agent.renew_now(),
            Action::RevokeLease { lease } => {
                let own = agent.clone();
                agent.spawn(async move { own.revoke_lease(lease).await });
            }
            Action::SuspendLivenessCheck { until } => {
                agent.shared.liveness.borrow_mut().suspend_liveness_check(until)
            }
            Action::PublishMember(record) => {
                if let Some(lease) = lease {
                    *agent.shared.record.borrow_mut() = Some((lease, *record));
                    agent.shared.record_bell.give(&agent.sim.exec);
                }
            }
            Action::PublishStatus { .. } => agent.aside(action, levels, MemberEvent::StatusNotPublished),
            Action::PlanFailsafe(plan) => *agent.shared.failsafe.borrow_mut() = plan,
            Action::PublishHistory { .. }
            | Action::PublishFailsafe { .. }
            | Action::PublishSync { .. }
            | Action::PublishUnfenced(_)
            | Action::RestoreInitialize { .. }
            | Action::RestoreConfig { .. }
            | Action::ClearFailover { .. }
            | Action::WriteRecruit(_)
            | Action::WriteGeneration(_) => agent.aside(action, levels, MemberEvent::LookWanted),
            Action::SetSyncNames(names) => {
                let owner = names.map_or(SyncOwner::Operator, SyncOwner::Supervisor);
                *agent.shared.sync_owner.borrow_mut() = owner;
                self.tell("synchronous_standby_names", agent.put_sync_names_in_force());
            }
            Action::SetClientLockout { closed } => self.lock_clients_out(closed),
            Action::Follow(target) => self.follow(target),
            Action::SetSlots(changes) => self.tell("set slots", agent.set_slots(changes)),
            Action::CheckpointAfterPromotion { term: Term(_) } => agent.checkpoint_aside(),
            // The simulated PostgreSQL has no logical slots, and no story asks for any.
            Action::SetLogicalSlots(_) | Action::AskLeaderSlots(_) => {}
            Action::ResumeReplay => {}
            Action::Answer { id, reply } => {
                if let Some(answer) = agent.shared.answers.borrow_mut().remove(&id) {
                    answer.fill(&agent.sim.exec, reply);
                }
            }
            Action::Exit(because) => return ControlFlow::Break(because),
        }
        ControlFlow::Continue(())
    }

    fn start(&mut self, job: Job) {
        let (agent, kind) = (self.agent.clone(), job.kind());
        let under_way = UnderWay::begin(&agent, kind);
        let before = needs_statements(kind).then(|| self.statements.idle());
        let task = self.agent.spawn(async move {
            let _until_the_task_is_gone = under_way;
            if let Some(before) = before {
                before.await;
            }
            let machine = Machine::of(agent.actor(), job.clone(), || agent.first_config());
            let outcome = agent.run_machine(Purpose::Job(job), machine).await;
            agent.event(MemberEvent::JobFinished(Finished { job: kind, outcome }));
        });
        self.jobs.insert(kind, task);
    }

    fn cancel(&mut self) {
        let running = self.core.job().map(|running| running.job.kind());
        if let Some((job, task)) = running.and_then(|job| Some((job, self.jobs.get(&job)?))) {
            if self.agent.mutation() != Some(Mutation::CancelWithoutAbort) {
                self.agent.sim.exec.abort(*task);
            }
            self.agent.event(MemberEvent::JobFinished(Finished { job, outcome: Outcome::Cancelled }));
        }
    }
}

impl Agent {
    /// A write beside the loop; one that failed is tried again by a later tick.
    fn aside(&self, action: Action, levels: &Levels, failed: MemberEvent) {
        let text = || self.restored_config(&levels.settings.sync);
        let Some(machine) = Machine::aside(self.actor(), &action, levels.lease.lease, text) else { return };
        let agent = self.clone();
        self.spawn(async move {
            match agent.run_machine(Purpose::Aside(action), machine).await {
                Outcome::Done | Outcome::Lost | Outcome::Cancelled => {}
                Outcome::LeaseGone | Outcome::Unknown(_) | Outcome::Failed(_) | Outcome::Refused(_) => {
                    agent.sleep(WRITE_AGAIN_AFTER).await;
                    agent.event(failed);
                }
            }
        });
    }

    /// The newest record, until it is written, and the same again when it is ordered again.
    pub(crate) async fn publish_member(self) {
        loop {
            let newest = self.shared.record.borrow_mut().take();
            let Some((lease, record)) = newest else {
                self.shared.record_bell.wait(&self.sim.exec).await;
                continue;
            };
            let name = self.sim.world().machines[self.member()].name.clone();
            if self.commit(self.keys().publish_member(&name, lease, &record)).await.is_err() {
                self.shared.record.borrow_mut().get_or_insert((lease, record));
                self.sim.exec.within(WRITE_AGAIN_AFTER, self.shared.record_bell.wait(&self.sim.exec)).await;
            }
        }
    }

    fn ask_leader_branch(&self, from: FollowTarget) {
        let agent = self.clone();
        self.spawn(async move {
            let asked_at = agent.now();
            let told = agent.sim.exec.within(HISTORY_WITHIN, agent.leader_history(&from)).await;
            let told = told.unwrap_or_else(|| Err("no answer in time".to_owned()));
            let has_slot = told.as_ref().is_ok_and(|(_, has_slot)| *has_slot);
            let answer = told.map(|(branch, _)| branch);
            agent.event(MemberEvent::LeaderBranchTold(LeaderBranch {
                name: from.name,
                asked_at,
                answer,
                has_slot,
                // The simulated disks remove no WAL.
                oldest: Lsn(0),
            }));
        });
    }

    /// Its line of history, and whether it has a slot for me. One that is still in recovery ends where it has replayed.
    async fn leader_history(&self, from: &FollowTarget) -> Result<(Branch, bool), String> {
        let source = index_of(from.name.as_str()).ok_or("no such member")?;
        let (here, there) = (self.host(), Host::Member(source));
        if !self.sim.travel(here, there).await || !self.sim.travel(there, here).await {
            self.sleep(HISTORY_WITHIN).await;
        }
        let number = self.sim.world().machines[source].server.as_ref().map(|server| server.number);
        self.sim.until_it_runs(source, number.ok_or("connection refused")?).await?;
        self.log_in(source)?;
        let world = self.sim.world();
        let machine = &world.machines[source];
        let server = machine.server.as_ref().filter(|server| server.phase != Phase::Starting);
        let server = server.ok_or("the database system is starting up")?;
        let branch = Branch {
            history: machine.disk.wal.history(),
            timeline: Timeline(machine.disk.wal.timeline),
            end: (server.phase == Phase::Standby).then_some(Lsn(server.replayed)),
        };
        Ok((branch, from.slot.as_ref().is_none_or(|slot| machine.disk.slots.contains(slot))))
    }

    pub(crate) fn source_of(&self, target: Option<&FollowTarget>) -> Option<(usize, Option<String>)> {
        target.and_then(|target| Some((index_of(target.name.as_str())?, target.slot.clone())))
    }

    fn checkpoint_aside(&self) {
        let agent = self.clone();
        self.spawn(async move {
            let number =
                agent.sim.world().machines[agent.member()].server.as_ref().map(|server| server.number);
            let outcome = match number {
                None => Outcome::Failed("postgres is down".to_owned()),
                Some(number) => match agent.sim.checkpoint(agent.member(), number).await {
                    Ok(()) => Outcome::Done,
                    Err(why) => Outcome::Failed(why),
                },
            };
            agent.event(MemberEvent::JobFinished(Finished {
                job: JobKind::CheckpointAfterPromotion,
                outcome,
            }));
        });
    }
}
