//! The loop: wait for anything that can wake it, then observe, decide, perform, publish.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::dynamic::Dynamic;
use super::events::Event;
use super::fencing::Fencing;
use super::jobs::{Lane, Tools};
use super::observe::{PostgresWatch, lease_facts};
use super::peers::PeerAnswers;
use super::pods::Pods;
use super::secrets::Rotation;
use super::store_file::StoreFile;
use super::{Order, Status};
use crate::decide::{Decision, Memory, decide};
use crate::etcd::LeaseKeeper;
use crate::model::{
    CloneProgress, ExitBecause, Finished, JobKind, LeaderBranch, LeaseId, Me, MemberRecord, Moment,
    Observation, Outcome, Reason, Reply, Request, RequestId, View, WriteFacts,
};
use crate::os::clock;
use crate::os::notify::Systemd;
use crate::os::signal::{SignalEvent, Signals};
use crate::peer::Peers;
use crate::postgres::Progress;

/// More events than this in one tick are left for the next.
const EVENTS_PER_TICK_MAX: usize = 256;

/// The loop with everything it owns.
pub(super) struct Cycle {
    pub(super) me: Me,
    pub(super) scope: String,
    pub(super) tools: Tools,
    pub(super) peers: Peers,
    pub(super) member: watch::Sender<Option<(LeaseId, MemberRecord)>>,
    pub(super) keeper: Option<Arc<LeaseKeeper>>,
    pub(super) fencing: Arc<Fencing>,
    pub(super) dynamic: Dynamic,
    pub(super) watch: PostgresWatch,
    pub(super) pods: Pods,
    pub(super) view: watch::Receiver<Option<View>>,
    pub(super) progress: watch::Receiver<Progress>,
    pub(super) writes: watch::Receiver<WriteFacts>,
    pub(super) events: mpsc::UnboundedReceiver<Event>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) signals: Signals,
    pub(super) service: Systemd,
    pub(super) status: watch::Sender<Arc<Status>>,
    pub(super) state: State,
}

/// What the loop keeps between ticks besides the decision's own memory.
#[derive(Default)]
pub(super) struct State {
    pub(super) memory: Memory,
    pub(super) job: Lane,
    pub(super) writing: Lane,
    pub(super) finished: Vec<Finished>,
    pub(super) requests: Vec<Request>,
    pub(super) answers: BTreeMap<RequestId, oneshot::Sender<Reply>>,
    pub(super) next_request: u64,
    pub(super) lookers: Vec<oneshot::Sender<()>>,
    pub(super) peers: PeerAnswers,
    pub(super) leader_branch: Option<LeaderBranch>,
    pub(super) shutting_down: bool,
    pub(super) rotation: Rotation,
    pub(super) own_role_retry_at: Option<Moment>,
    pub(super) because: Option<Reason>,
    pub(super) trouble: Option<String>,
    pub(super) writes_refused: Option<String>,
    pub(super) without_slot: Vec<String>,
    pub(super) clone_since: Option<Moment>,
    pub(super) ticks: u64,
    pub(super) etcd_seen_wall: i64,
    pub(super) etcd_seen_at: Option<Moment>,
    pub(super) store: StoreFile,
}

impl State {
    /// With what a previous incarnation has seen of etcd's store.
    pub(super) fn recalled(rotation: Rotation, store: StoreFile) -> State {
        State { rotation, memory: store.recalled(), store, ..State::default() }
    }
}

impl Cycle {
    /// Runs until a decision ends it.
    pub(super) async fn run(mut self) -> ExitBecause {
        self.beat();
        super::heartbeat::ping_while_it_beats(&self.service, self.watch.probe());
        self.service.ready();
        loop {
            let (flow, wake_at) = self.tick().await;
            if let ControlFlow::Break(because) = flow {
                self.service.stopping();
                return because;
            }
            self.watch.probe().loop_runs(wake_at);
            self.wait(wake_at).await;
            self.beat();
            self.drain();
        }
    }

    /// The loop lives: its next step begins now.
    fn beat(&self) {
        self.watch.probe().loop_runs(clock::now());
    }

    /// Waits for a level, not an edge: each source marks what it saw, and the tick reads the newest of everything.
    async fn wait(&mut self, wake_at: Moment) {
        let mut process = self.tools.postgres.process();
        process.borrow_and_update();
        let mut verdict = self.watch.probe().verdict();
        let mut lease = self.keeper.as_ref().map(|keeper| keeper.facts());
        let stale = *process.borrow() != self.status.borrow().postgres.process
            || *verdict.borrow_and_update() != self.status.borrow().postgres.liveness.verdict
            || lease
                .as_mut()
                .is_some_and(|lease| differs(&lease.borrow_and_update(), &self.status.borrow().lease));
        let (mut writes, refused) = (self.writes.clone(), self.state.writes_refused.clone());
        if stale || writes.borrow().refused != refused {
            return;
        }
        tokio::select! {
            Some(event) = self.events.recv() => self.take(event),
            Some(order) = self.orders.recv() => self.order(order),
            signal = self.signals.next() => self.signal(signal),
            Ok(()) = self.view.changed() => {}
            Ok(()) = process.changed() => {}
            Ok(()) = verdict.changed() => {}
            () = lease_changed(lease) => {}
            _ = writes.wait_for(|writes| writes.refused != refused) => {}
            Ok(()) = self.progress.changed() => {}
            () = self.pods.changed() => {}
            () = clock::sleep_until(wake_at) => {}
        }
    }

    /// Takes what else has arrived, so that a burst is one tick.
    fn drain(&mut self) {
        for _ in 0..EVENTS_PER_TICK_MAX {
            if let Ok(event) = self.events.try_recv() {
                self.take(event);
            } else if let Ok(order) = self.orders.try_recv() {
                self.order(order);
            } else {
                return;
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::JobFinished(finished) => self.finish(finished),
            Event::PeerAnswered(name, answer) => self.peer_answered(name, answer),
            Event::LeaderBranchTold(told) => {
                // What was long on its way does not replace the answer to a later question.
                let known = self.state.leader_branch.take().filter(|known| told.asked_at < known.asked_at);
                self.state.leader_branch = known.or(Some(told));
            }
            Event::StatusNotPublished => self.state.memory.status = None,
            Event::NotFollowed => self.state.memory.following = None,
            Event::SecretsChanged => self.reload(true),
            Event::LookWanted => {}
        }
    }

    pub(super) fn finish(&mut self, finished: Finished) {
        let _lane = self.state.job.finished(finished.job) || self.state.writing.finished(finished.job);
        match &finished.outcome {
            Outcome::Done => tracing::debug!(job = %finished.job, "done"),
            Outcome::Lost => tracing::info!(job = %finished.job, "somebody else was faster"),
            Outcome::Cancelled => tracing::info!(job = %finished.job, "cancelled"),
            Outcome::LeaseGone => {
                tracing::info!(job = %finished.job, "my lease is gone: waiting for a new one")
            }
            Outcome::Unknown(why) | Outcome::Failed(why) | Outcome::Refused(why) => {
                tracing::warn!(job = %finished.job, why, "failed")
            }
        }
        if matches!(finished.job, JobKind::Bootstrap | JobKind::Clone | JobKind::Rewind) {
            self.dynamic.kept.forget();
        }
        self.watch.forget_data();
        self.state.finished.push(finished);
    }

    fn signal(&mut self, signal: SignalEvent) {
        match signal {
            SignalEvent::Terminate | SignalEvent::Interrupt | SignalEvent::Quit => {
                self.state.shutting_down = true;
                self.service.stopping();
                tracing::info!(?signal, "asked to end");
            }
            SignalEvent::Reload => self.reload(false),
        }
    }

    /// One tick; also says when the next one is due at the latest.
    async fn tick(&mut self) -> (ControlFlow<ExitBecause>, Moment) {
        self.follow_settings().await;
        self.beat();
        self.follow_passwords().await;
        self.make_own_role();
        self.beat();
        let (seen, settings_changed) = self.observe().await;
        self.beat();
        let now = clock::now();
        let decision = decide(&self.state.memory, &seen, now);
        self.narrate(&decision, &seen);
        let Decision { memory, actions, pod, route, because, wake } = decision;
        self.state.memory = memory;
        self.state.store.keep(&self.state.memory.store).await;
        self.pods.route(route);
        self.pods.say(pod, &because, &seen.lease);
        self.keep_fence(&seen);
        let mut flow = ControlFlow::Continue(());
        for action in actions {
            if let ControlFlow::Break(because) = self.perform(action, &seen, now).await {
                flow = ControlFlow::Break(because);
            }
            self.beat();
        }
        // Postgres has not been told of what changed while it was looked at.
        let wake_at = if settings_changed { now } else { wake.0 };
        self.publish(&seen, wake.0);
        for looker in self.state.lookers.drain(..) {
            // Whoever asked may have gone.
            let _ = looker.send(());
        }
        (flow, wake_at)
    }

    /// One look at everything, and whether the settings changed meanwhile.
    async fn observe(&mut self) -> (Observation, bool) {
        let job = self.state.job.running();
        let kind = job.as_ref().map(|running| running.job.kind());
        // Somebody waits for a look, or something just ended: what was seen before does not count.
        let ended = !self.state.finished.is_empty();
        let anew = ended || !self.state.lookers.is_empty();
        let hurry = ended || job.is_some() || self.state.writing.running().is_some();
        let postgres = self.watch.look(kind, (anew, hurry), self.dynamic.settings().loop_wait).await;
        let view = self.view.borrow_and_update().clone();
        self.note_etcd(view.as_ref());
        let cluster = view.as_ref().map(|view| &view.cluster);
        let settings_changed = self.take_settings(cluster);
        let settings = self.dynamic.settings_over(cluster);
        let pod = self.pods.facts();
        let seen = Observation {
            me: self.me.clone(),
            settings,
            view,
            lease: lease_facts(self.keeper.as_deref()),
            postgres,
            peers: self.state.peers.newest().clone(),
            leader_branch: self.state.leader_branch.clone(),
            clone_progress: self.clone_progress(kind),
            job,
            writing: self.state.writing.running(),
            finished: std::mem::take(&mut self.state.finished),
            requests: std::mem::take(&mut self.state.requests),
            shutting_down: self.state.shutting_down,
            watchdog_failed: self.fencing.watchdog_failed(self.dynamic.settings(), clock::now()),
            pod_end: pod.as_ref().and_then(|facts| facts.end),
            pod_trouble: pod.and_then(|facts| facts.complaint()),
            writes: self.writes.borrow_and_update().clone(),
            wall: clock::wall(),
        };
        (seen, settings_changed)
    }

    fn clone_progress(&self, job: Option<JobKind>) -> Option<CloneProgress> {
        let since = self.state.clone_since.filter(|_| job == Some(JobKind::Clone))?;
        let progress = *self.progress.borrow();
        Some(CloneProgress {
            bytes: progress.done,
            total: progress.total,
            elapsed: clock::now().since(since),
        })
    }

    /// A confirmed renewal or a newer view is a sign of life of etcd.
    fn note_etcd(&mut self, view: Option<&View>) {
        let renewed = lease_facts(self.keeper.as_deref()).trouble.is_none() && self.keeper.is_some();
        let seen_at = view.map(|view| view.seen_at);
        if renewed || seen_at > self.state.etcd_seen_at {
            self.state.etcd_seen_at = seen_at.max(renewed.then(clock::now));
            self.state.etcd_seen_wall = clock::wall().0 / 1000;
        }
    }

    /// Names the members that have to stream without a slot, because their names become another's.
    fn narrate_slots(&mut self, seen: &Observation) {
        let cluster = seen.view.as_ref().map(|view| &view.cluster).filter(|_| seen.settings.use_slots);
        let pairs = cluster.map(|cluster| cluster.without_slot()).unwrap_or_default();
        let said: Vec<String> = pairs.iter().map(|(name, holder)| format!("{name} ({holder})")).collect();
        if said != self.state.without_slot && !said.is_empty() {
            tracing::warn!(
                members = said.join(", "),
                "these members stream without a replication slot, because their names become the slot of the member in \
                 parentheses; give each another `name`"
            );
        }
        self.state.without_slot = said;
    }

    /// Names the slots that will be dropped, before they are.
    fn narrate_idle_slots(&self, decision: &Decision) {
        let before = &self.state.memory.slots.idle;
        let more = decision.memory.slots.idle.keys().filter(|slot| !before.contains_key(*slot));
        let slots: Vec<&str> = more.map(String::as_str).collect();
        if !slots.is_empty() {
            tracing::warn!(
                slots = slots.join(", "),
                "nobody uses these replication slots and no member asks for them: they hold WAL back, and are dropped \
                 after `member_slots_ttl` on a primary and after `loop_wait` on a standby, unless `ignore_slots` or \
                 `slots` in the dynamic configuration names them"
            );
        }
    }

    /// One line for each change of decision, with its reason; nothing on an idle loop.
    fn narrate(&mut self, decision: &Decision, seen: &Observation) {
        self.narrate_slots(seen);
        self.narrate_idle_slots(decision);
        // While a job stops or starts Postgres its silence is no news.
        let trouble = seen.postgres.sql_trouble.clone().filter(|_| seen.job.is_none());
        if let Some(why) = trouble.as_ref().filter(|_| trouble != self.state.trouble) {
            tracing::warn!(why, "PostgreSQL runs and cannot be asked");
        }
        self.state.trouble = trouble;
        if seen.writes.refused != self.state.writes_refused {
            match &seen.writes.refused {
                Some(why) => tracing::warn!(
                    why,
                    "etcd takes no writes: nobody else can lead until it does, and no change is published"
                ),
                None => tracing::info!("etcd takes writes again"),
            }
            self.state.writes_refused.clone_from(&seen.writes.refused);
        }
        let (before, cancelled) = (self.state.memory.sync.cancelled, decision.memory.sync.cancelled);
        if before < cancelled {
            let more = cancelled - before;
            tracing::warn!(
                more,
                cancelled,
                "commits whose wait for a standby was cancelled: a failover may lose them"
            );
        }
        if self.state.because.as_ref() != Some(&decision.because) {
            let term = seen.lease.leading_at(clock::now()).map(|term| term.0);
            match &decision.because {
                Reason::Store(_) => {
                    tracing::warn!(term, "{}", decision.because);
                }
                _usual => tracing::info!(term, "{}", decision.because),
            }
            self.service.status(&decision.because.to_string());
            self.state.because = Some(decision.because.clone());
        }
    }

    /// Once Postgres is proved to be no primary, and none is being made, there is nothing to fence.
    fn keep_fence(&self, seen: &Observation) {
        let promoting = seen.job.as_ref().is_some_and(|running| running.job.kind() == JobKind::Promote);
        if seen.postgres.may_be_primary() {
            let facts = || lease_facts(self.keeper.as_deref());
            if facts().leading_at(clock::now()).is_some() {
                self.fencing.want(facts);
            }
        } else if !promoting && self.state.job.running().is_none() {
            self.fencing.unwant();
        }
    }
}

/// Renewals move the deadline all the time; only what a decision can see is a reason to tick.
fn differs(new: &crate::model::LeaseFacts, old: &crate::model::LeaseFacts) -> bool {
    new.leading != old.leading || new.lease != old.lease
}

/// Ends when the lease's facts change in a way that a decision can see.
async fn lease_changed(facts: Option<watch::Receiver<crate::model::LeaseFacts>>) {
    let Some(mut facts) = facts else { return std::future::pending().await };
    let before = facts.borrow().clone();
    while facts.changed().await.is_ok() {
        if differs(&facts.borrow(), &before) {
            return;
        }
    }
    std::future::pending().await
}
