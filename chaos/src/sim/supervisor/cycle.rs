//! The loop: wait, observe, decide, perform. `src/agent/cycle.rs`, with the real `decide`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use matriarch::decide::{Decision, Memory, decide};
use matriarch::model::{
    Action, Branch, DataDirectory, ExitBecause, Finished, Job, JobKind, LeaderBranch, Leading, LeaseFacts,
    Me, MemberName, Moment, Observation, PeerAnswer, PodRole, Request, RequestId, Running, Standby,
    StoreSeen, SyncMode, Tags, View, WallTime,
};

use super::observe::PostgresWatch;
use super::peers::SCOPE;
use super::{Agent, Event, Status};
use crate::invariant::labelled;
use crate::sim::executor::TaskId;
use crate::sim::mutation::Mutation;

/// At most one long action.
#[derive(Default)]
pub(crate) struct Lane {
    pub(crate) running: Option<(Running, TaskId)>,
}

impl Lane {
    pub(crate) fn running(&self) -> Option<Running> {
        self.running.as_ref().map(|(running, _)| running.clone())
    }

    fn finished(&mut self, kind: JobKind) {
        if self.running.as_ref().is_some_and(|(running, _)| running.job.kind() == kind) {
            self.running = None;
        }
    }
}

/// The loop with all it owns.
pub(crate) struct Cycle {
    pub(crate) agent: Agent,
    pub(crate) me: Me,
    pub(crate) memory: Memory,
    pub(crate) watch: PostgresWatch,
    pub(crate) job: Lane,
    pub(crate) writing: Lane,
    finished: Vec<Finished>,
    peers: BTreeMap<MemberName, PeerAnswer>,
    leader_branch: Option<LeaderBranch>,
    /// What the next step finds written beside the data directory.
    store_seen: Option<StoreSeen>,
    seen_version: u64,
    next_request: u64,
}

impl Cycle {
    pub(crate) fn new(agent: &Agent) -> Cycle {
        let name = agent.sim.world().machines[agent.member()].name.clone();
        let me = Me {
            scope: SCOPE.to_owned(),
            session: agent.session(),
            tags: Tags::default(),
            conn_url: format!("postgres://{name}:5432/postgres"),
            api_url: format!("http://{name}:8008/patroni"),
            proxy_url: None,
            may_bootstrap: true,
            wait_for_members: agent.sim.world().options.wait_for_members,
            name,
        };
        Cycle {
            agent: agent.clone(),
            me,
            memory: Memory {
                store: agent.sim.world().machines[agent.member()].store_seen.clone(),
                ..Memory::default()
            },
            watch: PostgresWatch::default(),
            job: Lane::default(),
            writing: Lane::default(),
            finished: Vec::new(),
            peers: BTreeMap::new(),
            leader_branch: None,
            store_seen: None,
            seen_version: 0,
            next_request: 0,
        }
    }

    /// The loop lives: its next step begins now.
    fn beat(&self) {
        let now = self.agent.now();
        self.agent.shared.liveness.borrow_mut().loop_runs(now);
    }

    pub(crate) async fn run(mut self) -> ExitBecause {
        self.beat();
        loop {
            let (flow, wake_at) = self.tick().await;
            if let ControlFlow::Break(because) = flow {
                return because;
            }
            self.agent.shared.liveness.borrow_mut().loop_runs(wake_at);
            self.wait(wake_at).await;
            self.beat();
            self.drain();
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
                return;
            }
            let bell = shared.bell.wait(&self.agent.sim.exec);
            self.agent.sim.exec.by(wake_at, bell).await;
        }
    }

    fn drain(&mut self) {
        loop {
            let next = self.agent.shared.events.borrow_mut().pop_front();
            let Some(event) = next else { return };
            match event {
                Event::JobFinished(finished) => {
                    self.job.finished(finished.job);
                    self.writing.finished(finished.job);
                    self.watch.forget_data();
                    self.agent.note(|| format!("{:?}", finished));
                    self.finished.push(finished);
                }
                Event::PeerAnswered(name, answer) => drop(self.peers.insert(name, answer)),
                Event::LeaderBranchTold(told) => {
                    let known = self.leader_branch.take().filter(|known| told.asked_at < known.asked_at);
                    self.leader_branch = known.or(Some(told));
                }
                Event::StatusNotPublished => self.memory.status = None,
                Event::NotFollowed => self.memory.following = None,
                Event::LookWanted => {}
            }
        }
    }

    async fn tick(&mut self) -> (ControlFlow<ExitBecause>, Moment) {
        let lookers = std::mem::take(&mut *self.agent.shared.lookers.borrow_mut());
        let anew = !lookers.is_empty() || !self.finished.is_empty();
        let seen = self.observe(anew).await;
        self.agent.step().await;
        let now = self.agent.now();
        self.keep_store_seen();
        let Decision { memory, actions, pod, route: _, because, wake } =
            decide(&self.memory, &self.mutated(&seen), now);
        self.memory = memory;
        labelled::decided(&self.agent.sim, self.agent.member(), self.mislabelled(pod, &actions), &actions);
        let because = because.to_string();
        if self.agent.shared.status.borrow().because != because {
            self.agent.log(&because).await;
        }
        self.keep_fence(&seen);
        let mut flow = ControlFlow::Continue(());
        for action in actions {
            self.agent.step().await;
            if !matches!(action, Action::PublishMember(_) | Action::PublishStatus { .. }) {
                self.agent.note(|| format!("{action:?}"));
            }
            if let ControlFlow::Break(because) = self.perform(action, &seen, now).await {
                flow = ControlFlow::Break(because);
            }
            self.beat();
        }
        *self.agent.shared.status.borrow_mut() = Status {
            postgres: seen.postgres,
            lease: self.agent.shared.lease.borrow().clone(),
            store: self.memory.store.mark(),
            because,
            yields: self.memory.stands_back(now),
            pod_ends: seen.pod_end.is_some(),
            writes_refused: seen.writes.refused.is_some(),
        };
        for looker in lookers {
            looker.fill(&self.agent.sim.exec, ());
        }
        (flow, wake.0)
    }

    /// Beside the loop: what a step leaves is written by the next.
    fn keep_store_seen(&mut self) {
        let mut world = self.agent.sim.world();
        let written = &mut world.machines[self.agent.member()].store_seen;
        if let Some(seen) = self.store_seen.take() {
            *written = seen;
        }
        self.store_seen = self.memory.store.adds_to(written).then(|| self.memory.store.clone());
        if world.options.mutation == Some(Mutation::TrustRestoredStore) {
            self.memory.store = StoreSeen::default();
        }
    }

    async fn observe(&mut self, anew: bool) -> Observation {
        let job = self.job.running();
        let kind = job.as_ref().map(|running| running.job.kind());
        let agent = self.agent.clone();
        let postgres = self.watch.look(&agent, kind, anew).await;
        self.seen_version = agent.shared.view_version.get();
        let view = agent.shared.view.borrow().clone();
        let settings = agent.settings();
        agent.keep_config();
        agent.set_ttl(settings.ttl);
        let lease = agent.shared.lease.borrow().clone();
        let requests = std::mem::take(&mut *agent.shared.requests.borrow_mut());
        Observation {
            me: self.me.clone(),
            settings,
            view,
            lease,
            postgres,
            peers: self.peers.clone(),
            leader_branch: self.leader_branch.clone(),
            clone_progress: None,
            job,
            writing: self.writing.running(),
            finished: std::mem::take(&mut self.finished),
            requests: requests.into_iter().map(|request| self.numbered(request)).collect(),
            shutting_down: agent.shared.shutting_down.get(),
            watchdog_failed: false,
            pod_end: agent.sim.world().machines[agent.member()].pod_end,
            pod_trouble: None,
            writes: agent.shared.etcd.writes(),
            wall: WallTime((agent.sim.now().0 / 1_000_000) as i64),
        }
    }

    fn numbered(&mut self, request: Request) -> Request {
        self.next_request += 1;
        Request { id: RequestId(self.next_request), ..request }
    }

    /// What a mutation makes of what was seen of streaming.
    fn mutate_streaming(&self, mutation: Option<Mutation>, seen: &mut Observation) {
        match mutation {
            Some(Mutation::ConfirmTooEarly) => {
                if let Some(sql) = &mut seen.postgres.sql {
                    for standby in &mut sql.sync.walsenders {
                        standby.flushed = Some(sql.flushed);
                    }
                }
            }
            Some(Mutation::AttachUnchecked) => {
                let own = seen.postgres.branch_at_most().or_else(|| seen.postgres.branch());
                if let (Some(told), Some(own)) = (&mut seen.leader_branch, own) {
                    told.answer = Ok(Branch { end: None, ..own });
                }
            }
            Some(Mutation::ReceiverGoneAtOnce) => {
                let member = self.agent.member();
                let told_to_end = {
                    let world = self.agent.sim.world();
                    world.machines[member].server.as_ref().is_some_and(|server| server.follow.is_none())
                };
                if let (true, Some(Standby::Yes { receiver, .. })) =
                    (told_to_end, seen.postgres.sql.as_mut().map(|sql| &mut sql.standby))
                {
                    *receiver = None;
                }
            }
            _others => {}
        }
    }

    /// What a mutation makes of what was seen.
    fn mutated(&self, seen: &Observation) -> Observation {
        let mut seen = seen.clone();
        let mutation = self.agent.sim.world().options.mutation;
        self.mutate_streaming(mutation, &mut seen);
        match mutation {
            Some(Mutation::NoLagLimit) => seen.settings.maximum_lag_on_failover = u64::MAX,
            Some(Mutation::IgnoreSyncRecord) => {
                let standby = seen.postgres.sql.as_ref().is_some_and(|sql| !sql.is_primary());
                let key = seen.view.as_mut().and_then(|view| view.cluster.sync.as_mut());
                if let Some(key) = key.filter(|key| standby && key.record.is_in_force()) {
                    key.record.leader = Some(seen.me.name.clone());
                }
            }
            Some(Mutation::PromoteUnprepared) => {
                let standby = seen.postgres.sql.as_ref().is_some_and(|sql| !sql.is_primary());
                if let (Some(view), true, Leading::Yes(_)) = (&mut seen.view, standby, seen.lease.leading) {
                    (view.cluster.sync, seen.settings.sync.mode) = (None, SyncMode::Off);
                }
            }
            Some(Mutation::ForgetCluster) => {
                let bare = !matches!(seen.postgres.data, DataDirectory::Ready(_));
                let led = |view: &&mut View| bare && view.cluster.status.is_some();
                if let Some(view) = seen.view.as_mut().filter(led) {
                    view.cluster.initialize = None;
                    view.cluster.members.retain(|name, _| *name == seen.me.name);
                }
            }
            Some(Mutation::NoGuard) => {
                // The supervisor does not notice that its lease ends, either.
                seen.lease.deadline = seen.lease.deadline.map(|at| at + seen.settings.ttl * 100);
            }
            Some(Mutation::IgnoreUnfenced) => {
                if let Some(view) = &mut seen.view {
                    // Its own it does not forget: it would never end.
                    let key = view.cluster.unfenced.as_mut();
                    key.into_iter().for_each(|key| key.primaries.retain(|name, _| *name == seen.me.name));
                }
            }
            Some(Mutation::TrustAnyAnswer) => {
                let names: Vec<MemberName> = seen.peers.keys().cloned().collect();
                for name in names {
                    let asked = seen.identity_of(&name);
                    if let (Some(answer), Some(asked)) = (seen.peers.get_mut(&name), asked) {
                        answer.identity = asked;
                    }
                }
            }
            Some(Mutation::HandOverUnproved) => {
                for answer in seen.peers.values_mut() {
                    if let Some(control) = seen.postgres.control() {
                        answer.replayed = matriarch::model::Lsn(control.checkpoint.0 + 1);
                        answer.timeline = Some(control.checkpoint_timeline);
                    }
                }
            }
            _other => {}
        }
        seen
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

    fn keep_fence(&self, seen: &Observation) {
        let promoting = seen.job.as_ref().is_some_and(|running| running.job.kind() == JobKind::Promote);
        if seen.postgres.may_be_primary() {
            let facts = self.agent.shared.lease.borrow().clone();
            if facts.leading_at(self.agent.now()).is_some() {
                self.agent.want(&facts);
            }
        } else if !promoting && self.job.running().is_none() {
            self.agent.unwant();
        }
    }
}

fn differs(new: &LeaseFacts, old: &LeaseFacts) -> bool {
    new.leading != old.leading || new.lease != old.lease
}
