//! The loop: a driver of the real `matriarch::core::member`, as `src/agent/cycle.rs` is one.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use matriarch::core::member::{
    Decided, Levels, LookAnswer, Member, MemberEffect, MemberEvent, MemberNext, Notice, Question,
};
use matriarch::decide::Memory;
use matriarch::model::{
    Action, ExitBecause, Job, JobKind, LeaseFacts, Moment, Observation, PodRole, Request, RequestId,
    StoreSeen, WallTime,
};

use super::distort::{mutate, mutate_streaming};
use super::driver_fault::{DriverFaults, carried_out};
use super::{Agent, Status};
use crate::invariant::labelled;
use crate::sim::executor::TaskId;
use crate::sim::mutation::Mutation;

/// The loop with all it owns.
pub(crate) struct Cycle {
    pub(crate) agent: Agent,
    pub(crate) core: Member,
    /// The tasks of the long actions.
    pub(crate) jobs: BTreeMap<JobKind, TaskId>,
    /// What the next step finds written beside the data directory.
    store_seen: Option<StoreSeen>,
    seen_version: u64,
    next_request: u64,
    faults: DriverFaults,
}

impl Cycle {
    pub(crate) fn new(agent: &Agent) -> Cycle {
        let store = agent.sim.world().machines[agent.member()].store_seen.clone();
        Cycle {
            agent: agent.clone(),
            core: Member::new(agent.me(), Memory { store, ..Memory::default() }),
            jobs: BTreeMap::new(),
            store_seen: None,
            seen_version: 0,
            next_request: 0,
            faults: DriverFaults::default(),
        }
    }

    /// The loop lives: its next step begins now.
    fn beat(&self) {
        let now = self.agent.now();
        self.agent.shared.liveness.borrow_mut().loop_runs(now);
    }

    pub(crate) async fn run(mut self) -> ExitBecause {
        self.beat();
        self.agent.event(MemberEvent::Woke);
        loop {
            let (flow, wake_at) = self.tick().await;
            if let ControlFlow::Break(because) = flow {
                return because;
            }
            self.agent.shared.liveness.borrow_mut().loop_runs(wake_at);
            self.wait(wake_at).await;
            self.beat();
        }
    }

    async fn wait(&mut self, wake_at: Moment) {
        let wake_at = self.agent.sim.when(self.agent.member(), wake_at);
        loop {
            let shared = &self.agent.shared;
            let status = shared.status.borrow().clone();
            let news = *shared.process.borrow() != status.postgres.process
                || *shared.verdict.borrow() != status.postgres.liveness.verdict
                || differs(&shared.lease.borrow(), &status.lease)
                || shared.etcd.writes().refused.is_some() != status.writes_refused
                || shared.view_version.get() != self.seen_version
                || !shared.events.borrow().is_empty()
                || !shared.requests.borrow().is_empty()
                || !shared.lookers.borrow().is_empty();
            if news || wake_at <= self.agent.sim.now() {
                return self.agent.event(MemberEvent::Woke);
            }
            let bell = shared.bell.wait(&self.agent.sim.exec);
            self.agent.sim.exec.by(wake_at, bell).await;
        }
    }

    /// What has arrived since.
    fn arrived(&mut self) -> Vec<MemberEvent> {
        let shared = self.agent.shared.clone();
        let mut arrived: Vec<MemberEvent> = shared.events.borrow_mut().drain(..).collect();
        for event in &arrived {
            if let MemberEvent::JobFinished(finished) = event {
                self.jobs.remove(&finished.job);
                self.agent.note(|| format!("{finished:?}"));
            }
        }
        for request in shared.requests.borrow_mut().drain(..) {
            self.next_request += 1;
            arrived.push(MemberEvent::Asked(Request { id: RequestId(self.next_request), ..request }));
        }
        arrived
    }

    async fn tick(&mut self) -> (ControlFlow<ExitBecause>, Moment) {
        let lookers = std::mem::take(&mut *self.agent.shared.lookers.borrow_mut());
        let mut arrived = self.arrived();
        arrived.extend((!lookers.is_empty()).then_some(MemberEvent::LookWanted));
        self.faults.deliver(self.agent.mutation(), self.core.job(), &mut arrived);
        loop {
            self.agent.step().await;
            let process = self.agent.shared.process.borrow().clone();
            match self.core.handle(std::mem::take(&mut arrived), &process, self.agent.now()) {
                MemberNext::Ask(look, question) => {
                    self.agent.step().await;
                    arrived.push(MemberEvent::Answered(look, self.answer(question).await));
                    self.beat();
                }
                // Not in this loop: it answers each question before it goes on.
                MemberNext::Await { until } => return (ControlFlow::Continue(()), until),
                MemberNext::Decide => break,
            }
        }
        let levels = self.levels();
        let Decided { effects, seen, wake_at } = self.decide(&levels);
        self.judge(&effects);
        let mut flow = ControlFlow::Continue(());
        for effect in carried_out(self.agent.mutation(), effects) {
            if is_seen_outside(&effect) {
                self.agent.step().await;
            }
            if let ControlFlow::Break(because) = self.perform(effect, &levels).await {
                flow = ControlFlow::Break(because);
            }
            self.beat();
        }
        self.publish(seen);
        for looker in lookers {
            looker.fill(&self.agent.sim.exec, ());
        }
        (flow, wake_at)
    }

    fn decide(&mut self, levels: &Levels) -> Decided {
        let (agent, now) = (self.agent.clone(), self.agent.now());
        let Some(mutation) = agent.sim.world().options.mutation else {
            return self.core.decide(levels, now);
        };
        self.core.decide_distorted(levels, now, |memory, seen| {
            if mutation == Mutation::TrustRestoredStore {
                memory.store = StoreSeen::default();
            }
            mutate_streaming(&agent, Some(mutation), seen);
            mutate(Some(mutation), seen);
        })
    }

    /// The newest of everything that has a level.
    fn levels(&mut self) -> Levels {
        let agent = self.agent.clone();
        self.seen_version = agent.shared.view_version.get();
        let view = agent.shared.view.borrow().clone();
        let settings = agent.settings();
        agent.keep_config();
        agent.set_ttl(settings.ttl);
        let world = agent.sim.world();
        let machine = &world.machines[agent.member()];
        let verdict = agent.shared.verdict.borrow().clone();
        Levels {
            settings,
            view,
            lease: agent.shared.lease.borrow().clone(),
            process: agent.shared.process.borrow().clone(),
            liveness: agent.shared.liveness.borrow().facts(verdict),
            sync_owner: agent.shared.sync_owner.borrow().clone(),
            clients_locked_out: machine.disk.clients_locked_out,
            access: Default::default(),
            writes: agent.shared.etcd.writes(),
            clone_progress: None,
            shutting_down: agent.shared.shutting_down.get(),
            watchdog_failed: false,
            pod_end: machine.pod_end,
            pod_trouble: None,
            wall: WallTime((agent.sim.now().0 / 1_000_000) as i64),
        }
    }

    /// What the pod shall say is judged when it is decided.
    fn judge(&self, effects: &[MemberEffect]) {
        let pod = effects.iter().find_map(|effect| match effect {
            MemberEffect::Label(pod) => Some(*pod),
            _other => None,
        });
        let Some(pod) = pod else { return };
        let actions: Vec<Action> = effects
            .iter()
            .filter_map(|effect| match effect {
                MemberEffect::Act(action) => Some(action.clone()),
                _other => None,
            })
            .collect();
        labelled::decided(&self.agent.sim, self.agent.member(), self.mislabelled(pod, &actions), &actions);
    }

    async fn answer(&self, question: Question) -> LookAnswer {
        match question {
            Question::Prepare => LookAnswer::Prepared { changed: false },
            Question::AskPostgres { .. } => {
                LookAnswer::PostgresAnswered(Box::new(self.agent.ask_postgres().await))
            }
            Question::ReadDataDirectory => LookAnswer::DataDirectoryRead(Some(self.agent.data_directory())),
        }
    }

    async fn perform(&mut self, effect: MemberEffect, levels: &Levels) -> ControlFlow<ExitBecause> {
        match effect {
            MemberEffect::Say(notice) => self.say(notice).await,
            MemberEffect::KeepStore => self.keep_store_seen(),
            MemberEffect::Route(_) | MemberEffect::Label(_) => {}
            MemberEffect::Fence => {
                let _ordered = self.agent.want(&self.agent.shared.lease.borrow().clone());
            }
            MemberEffect::Unfence => self.agent.unwant(),
            MemberEffect::Act(action) => {
                if !matches!(action, Action::PublishMember(_) | Action::PublishStatus { .. }) {
                    self.agent.note(|| format!("{action:?}"));
                }
                return self.act(action, levels).await;
            }
        }
        ControlFlow::Continue(())
    }

    async fn say(&self, notice: Notice) {
        match notice {
            Notice::Decided(because) => self.agent.log(&because.to_string()).await,
            Notice::TwoJobs { asked, runs } => {
                let text = format!("two long actions at a time: {asked} while {runs} runs");
                self.agent.sim.world().ledger.break_promise("one_job", text);
            }
            Notice::IdleSlots(_) | Notice::SyncWaitsCancelled { .. } => {}
        }
    }

    fn publish(&self, seen: Observation) {
        let (memory, now) = (self.core.memory(), self.agent.now());
        *self.agent.shared.status.borrow_mut() = Status {
            postgres: seen.postgres,
            lease: self.agent.shared.lease.borrow().clone(),
            store: memory.store.mark(),
            yields: memory.stands_back(now),
            pod_ends: seen.pod_end.is_some(),
            writes_refused: seen.writes.refused.is_some(),
        };
    }

    /// Beside the loop: what a step leaves is written by the next.
    fn keep_store_seen(&mut self) {
        let mut world = self.agent.sim.world();
        let written = &mut world.machines[self.agent.member()].store_seen;
        if let Some(seen) = self.store_seen.take() {
            *written = seen;
        }
        let seen = &self.core.memory().store;
        self.store_seen = seen.adds_to(written).then(|| seen.clone());
    }

    /// What a mutation makes of what the pod shall say.
    fn mislabelled(&self, pod: Option<PodRole>, actions: &[Action]) -> Option<PodRole> {
        let promotes = actions.iter().find_map(|action| match action {
            Action::Start(Job::Promote { term, above: _ }) => Some(PodRole::Leader(*term)),
            _other => None,
        });
        match self.agent.sim.world().options.mutation {
            Some(Mutation::LabelEarly) => promotes.or(pod),
            Some(Mutation::LabelLate) => pod.filter(|pod| *pod != PodRole::Nothing),
            _other => pod,
        }
    }
}

fn differs(new: &LeaseFacts, old: &LeaseFacts) -> bool {
    new.leading != old.leading || new.lease != old.lease
}

/// Before it the process may be frozen or killed, and others see the difference.
fn is_seen_outside(effect: &MemberEffect) -> bool {
    match effect {
        MemberEffect::KeepStore | MemberEffect::Fence | MemberEffect::Unfence | MemberEffect::Act(_) => true,
        MemberEffect::Say(_) | MemberEffect::Route(_) | MemberEffect::Label(_) => false,
    }
}
