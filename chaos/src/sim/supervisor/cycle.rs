//! The loop: a driver of the real `matriarch::core::member`, as `src/agent/cycle.rs` is one.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use matriarch::core::member::{
    Decided, LOOK_WITHIN, Levels, Member, MemberEffect, MemberEvent, MemberNext, Notice,
};
use matriarch::decide::Memory;
use matriarch::model::{
    Action, ExitBecause, Job, JobKind, Moment, Observation, PodRole, Request, RequestId, StoreSeen,
    Suspicion, WallTime,
};

use super::distort::{go_on_after_anybody, mutate, mutate_streaming};
use super::driver_fault::{DriverFaults, carried_out};
use super::events::WakeLevels;
use super::serial::{CancelOnDrop, SerialTask};
use super::{Agent, Status};
use crate::invariant::{false_alarm, labelled};
use crate::sim::executor::TaskId;
use crate::sim::mutation::Mutation;
use crate::sim::signal::Reply;

/// The loop with all it owns.
pub(crate) struct Cycle {
    pub(crate) agent: Agent,
    pub(crate) core: Member,
    /// The tasks of the long actions.
    pub(crate) jobs: BTreeMap<JobKind, TaskId>,
    /// Looks at PostgreSQL, one at a time.
    pub(super) looks: SerialTask,
    /// Changes to PostgreSQL and its files beside the long actions, in the order of the decisions.
    pub(super) statements: SerialTask,
    /// The look under way.
    pub(super) look: Option<CancelOnDrop>,
    /// What has arrived and the member has not seen yet.
    pub(super) arrived: Vec<MemberEvent>,
    /// The configuration in force, as the loop last took it.
    pub(super) config: String,
    /// What the loop has seen of what wakes it.
    pub(super) seen: Option<WakeLevels>,
    /// Since when somebody waits for a look, the longest first.
    lookers: Vec<(Moment, Reply<()>)>,
    /// What the next step finds written beside the data directory.
    store_seen: Option<StoreSeen>,
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
            looks: SerialTask::start(agent),
            statements: SerialTask::start(agent),
            look: None,
            arrived: vec![MemberEvent::Woke],
            config: String::new(),
            seen: None,
            lookers: Vec::new(),
            store_seen: None,
            next_request: 0,
            faults: DriverFaults::default(),
        }
    }

    /// The loop lives: its next step begins now.
    fn beat(&self) {
        self.runs_until(self.agent.now());
    }

    /// The next step begins at `due`. A loop whose looks or statements hang is one that hangs.
    fn runs_until(&self, due: Moment) {
        let now = self.agent.now();
        let tasks = [&self.looks, &self.statements];
        let overdue = tasks.into_iter().filter_map(|task| task.overdue_since(now)).min();
        self.agent.shared.liveness.borrow_mut().loop_runs(overdue.unwrap_or(due));
    }

    pub(crate) async fn run(mut self) -> ExitBecause {
        self.beat();
        loop {
            let (flow, wake_at) = self.tick().await;
            if let ControlFlow::Break(because) = flow {
                return because;
            }
            let wake_at = self.awaited_by(wake_at);
            self.runs_until(wake_at);
            self.wait(wake_at).await;
            self.beat();
        }
    }

    /// Who waits for a look is answered in time even where none ends.
    fn awaited_by(&self, wake_at: Moment) -> Moment {
        let now = self.agent.now();
        let looker = self.lookers.first().map(|(since, _)| *since + LOOK_WITHIN);
        looker.filter(|by| now < *by).map_or(wake_at, |by| by.min(wake_at))
    }

    /// Takes what else has arrived, so that a burst is one tick.
    fn drain(&mut self) {
        let (shared, now) = (self.agent.shared.clone(), self.agent.now());
        for event in shared.events.borrow_mut().drain(..) {
            if let MemberEvent::JobFinished(finished) = &event {
                self.jobs.remove(&finished.job);
                if finished.job.replaces_data() {
                    shared.configured.borrow_mut().forget_copy();
                }
                self.agent.note(|| format!("{finished:?}"));
            }
            self.arrived.push(event);
        }
        if shared.password_changed.take() {
            self.take_password();
            self.arrived.push(MemberEvent::LevelChanged);
        }
        for (ask, answer) in shared.requests.borrow_mut().drain(..) {
            self.next_request += 1;
            let id = RequestId(self.next_request);
            shared.answers.borrow_mut().insert(id, answer);
            self.arrived.push(MemberEvent::Asked(Request { id, ask }));
        }
        for looker in shared.lookers.borrow_mut().drain(..) {
            self.lookers.push((now, looker));
            self.arrived.push(MemberEvent::LookWanted);
        }
    }

    async fn tick(&mut self) -> (ControlFlow<ExitBecause>, Moment) {
        self.drain();
        self.faults.deliver(self.agent.mutation(), self.core.job(), &mut self.arrived);
        loop {
            self.agent.step().await;
            let process = self.agent.shared.process.borrow().clone();
            let arrived = std::mem::take(&mut self.arrived);
            let verdict = self.agent.shared.verdict.borrow().clone();
            match self.core.handle(arrived, &process, &verdict, self.agent.now()) {
                MemberNext::Ask(look, question) => {
                    self.agent.step().await;
                    self.look(look, question);
                }
                MemberNext::Await { until } => return (ControlFlow::Continue(()), until),
                MemberNext::Decide => return self.act_on_decision().await,
            }
        }
    }

    async fn act_on_decision(&mut self) -> (ControlFlow<ExitBecause>, Moment) {
        let view_version = self.agent.shared.view_version.get();
        let levels = self.levels();
        let settings_changed = self.take_config();
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
        self.saw(&levels, view_version);
        let (now, looked, looking) = (self.agent.now(), self.core.looked_at(), self.core.is_looking());
        let is_due = |since: Moment| Some(since) <= looked || (looking && since + LOOK_WITHIN <= now);
        for (_, looker) in self.lookers.extract_if(.., |(since, _)| is_due(*since)) {
            looker.fill(&self.agent.sim.exec, ());
        }
        if settings_changed {
            // PostgreSQL has not been told of what changed while it was looked at.
            self.arrived.push(MemberEvent::LookWanted);
            return (flow, now);
        }
        (flow, wake_at)
    }

    fn decide(&mut self, levels: &Levels) -> Decided {
        let (agent, now) = (self.agent.clone(), self.agent.now());
        let Some(mutation) = agent.sim.world().options.mutation else {
            return self.core.decide(levels, now);
        };
        self.core.decide_distorted(levels, now, |memory, seen| {
            match mutation {
                Mutation::TrustRestoredStore => memory.store = StoreSeen::default(),
                Mutation::PromisesForgotten => memory.failsafe.promise = None,
                Mutation::FormerPromiseForgotten => memory.recruit.has_looked = true,
                Mutation::PredecessorForgotten => memory.failsafe.is_free = true,
                Mutation::GoesOnAfterAnybody => go_on_after_anybody(memory, seen, now),
                _other => {}
            }
            mutate_streaming(&agent, Some(mutation), seen);
            mutate(Some(mutation), seen);
        })
    }

    /// The newest of everything that has a level.
    fn levels(&self) -> Levels {
        let agent = self.agent.clone();
        let view = agent.shared.view.borrow().clone();
        let settings = agent.settings();
        agent.save_config();
        agent.set_ttl(settings.ttl);
        let world = agent.sim.world();
        let machine = &world.machines[agent.member()];
        let verdict = agent.shared.verdict.borrow().clone();
        Levels {
            settings,
            view,
            lease: agent.shared.lease.borrow().clone(),
            hearing: agent.shared.heard.get(),
            process: agent.shared.process.borrow().clone(),
            liveness: agent.shared.liveness.borrow().facts(verdict),
            sync_owner: agent.shared.sync_owner.borrow().clone(),
            clients_locked_out: agent.shared.clients_locked_out.get(),
            access: agent.shared.access.borrow().clone(),
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

    async fn perform(&mut self, effect: MemberEffect, levels: &Levels) -> ControlFlow<ExitBecause> {
        match effect {
            MemberEffect::Say(notice) => self.say(notice).await,
            MemberEffect::KeepStore => self.keep_store_seen(),
            // The journal may be lost, and no decision reads it.
            MemberEffect::KeepRecord(_) | MemberEffect::Route(_) | MemberEffect::Label(_) => {}
            MemberEffect::Fence => {
                let _ordered = self.agent.want(&self.agent.shared.lease.borrow().clone());
            }
            MemberEffect::Unfence => self.agent.unwant(),
            MemberEffect::Act(action) => {
                if !matches!(action, Action::PublishMember(_) | Action::PublishStatus { .. }) {
                    self.agent.note(|| format!("{action:?}"));
                }
                return self.act(action, levels);
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
            Notice::IdleSlots(_)
            | Notice::SafeSlots(_)
            | Notice::UnsafeSlots(_)
            | Notice::SyncWaitsCancelled { .. } => {}
        }
    }

    fn publish(&self, seen: Observation) {
        let (memory, now) = (self.core.memory(), self.agent.now());
        let mut recruited = memory.recruited(&seen);
        if self.agent.mutation() == Some(Mutation::PromiseBeforeLeaving) {
            recruited = memory.recruit.promise.as_ref().map(|promise| promise.attempt);
        }
        let suspicion = memory.suspicion(seen.hearing);
        let before = self.agent.shared.status.borrow().suspicion;
        if matches!(suspicion, Suspicion::Suspects(_)) && suspicion != before {
            false_alarm::suspects(&self.agent.sim);
        }
        *self.agent.shared.status.borrow_mut() = Status {
            postgres: seen.postgres,
            store: memory.store.mark(),
            yields: memory.stands_back(now),
            promised: memory.failsafe.is_active(&self.agent.shared.lease.borrow(), now),
            suspicion,
            recruited,
            pod_ends: seen.pod_end.is_some(),
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

/// Before it the process may be frozen or killed, and others see the difference.
fn is_seen_outside(effect: &MemberEffect) -> bool {
    match effect {
        MemberEffect::KeepStore | MemberEffect::Fence | MemberEffect::Unfence | MemberEffect::Act(_) => true,
        MemberEffect::Say(_)
        | MemberEffect::KeepRecord(_)
        | MemberEffect::Route(_)
        | MemberEffect::Label(_) => false,
    }
}
