//! The main loop: it waits for the events that can wake the member, and performs the effects that the member returns.
//! It waits for nothing else: what takes time is done beside it and reports its end.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::callbacks::CallbackScripts;
use super::dynamic::LiveConfig;
use super::events::{TaskReport, WakeLevels};
use super::failsafe::Failsafe;
use super::fencing::Fencing;
use super::jobs::{Jobs, Tools};
use super::journal::JournalKeeper;
use super::observe::{RecoveryWatch, lease_facts};
use super::peer_channel::PeerChannel;
use super::pods::Pods;
use super::serial::CancelOnDrop;
use super::store_file::StoreFile;
use super::{ApiOrder, Status};
use crate::core::member::{Decided, LOOK_WITHIN, Levels, LookAnswer, Member, MemberEvent, MemberNext};
use crate::core::roles::RoleWork;
use crate::etcd::LeaseKeeper;
use crate::model::{
    CloneProgress, ExitBecause, Finished, JobKind, LeaseFacts, LeaseId, MemberName, MemberRecord, Moment,
    Outcome, Reply, RequestId, Tally, View,
};
use crate::os::clock;
use crate::os::notify::Systemd;
use crate::os::signal::{SignalEvent, Signals};
use crate::peer::Peers;
use crate::postgres::{CloneStatus, Probe};

/// More events than this in one tick are left for the next.
const EVENTS_PER_TICK_MAX: usize = 256;

/// The loop with everything it owns.
pub(super) struct Cycle {
    pub(super) scope: String,
    pub(super) core: Member,
    pub(super) tools: Tools,
    pub(super) peers: Peers,
    pub(super) channel: Arc<PeerChannel>,
    pub(super) member: watch::Sender<Option<(LeaseId, MemberRecord)>>,
    pub(super) keeper: Option<Arc<LeaseKeeper>>,
    pub(super) failsafe: Failsafe,
    pub(super) fencing: Arc<Fencing>,
    pub(super) dynamic: LiveConfig,
    pub(super) probe: Probe,
    pub(super) pods: Pods,
    pub(super) journal: JournalKeeper,
    pub(super) view: watch::Receiver<Option<View>>,
    pub(super) progress: watch::Receiver<CloneStatus>,
    pub(super) wakes: WakeLevels,
    pub(super) reports: mpsc::UnboundedReceiver<TaskReport>,
    pub(super) orders: mpsc::Receiver<ApiOrder>,
    pub(super) signals: Signals,
    pub(super) service: Systemd,
    pub(super) status: watch::Sender<Arc<Status>>,
    pub(super) state: LoopState,
}

/// What the loop keeps besides the member.
#[derive(Default)]
pub(super) struct LoopState {
    /// What has arrived and the member has not seen yet.
    pub(super) arrived: Vec<MemberEvent>,
    pub(super) jobs: Jobs,
    pub(super) answers: BTreeMap<RequestId, oneshot::Sender<Reply>>,
    pub(super) next_request: u64,
    /// The look under way.
    pub(super) look: Option<CancelOnDrop>,
    /// Since when somebody waits for a look, the longest first.
    pub(super) lookers: Vec<(Moment, oneshot::Sender<()>)>,
    /// Why the answers at these members' addresses do not count, as last said.
    pub(super) misdirected: BTreeMap<MemberName, String>,
    pub(super) shutting_down: bool,
    pub(super) roles: RoleWork,
    pub(super) recovery: RecoveryWatch,
    pub(super) trouble: Option<String>,
    pub(super) writes_refused: Option<String>,
    pub(super) without_slot: Vec<String>,
    pub(super) refused_slots: Vec<String>,
    pub(super) unsynchronous: Vec<String>,
    pub(super) clone_since: Option<Moment>,
    pub(super) ticks: u64,
    pub(super) tally: Tally,
    pub(super) etcd_seen_wall: i64,
    pub(super) etcd_seen_at: Option<Moment>,
    pub(super) store: StoreFile,
    pub(super) callbacks: CallbackScripts,
}

impl LoopState {
    /// With what a previous incarnation has left.
    pub(super) fn recalled(roles: RoleWork, store: StoreFile) -> LoopState {
        LoopState { roles, store, arrived: vec![MemberEvent::Woke], ..LoopState::default() }
    }
}

impl Cycle {
    /// Runs until a decision ends it. The last script may still run then.
    pub(super) async fn run(mut self) -> (ExitBecause, CallbackScripts) {
        self.beat();
        super::service_watchdog::ping_while_it_beats(&self.service, &self.probe);
        self.service.ready();
        loop {
            let (flow, wake_at) = self.tick().await;
            if let ControlFlow::Break(because) = flow {
                self.service.stopping();
                self.journal.settle().await;
                return (because, self.state.callbacks);
            }
            let wake_at = self.awaited_by(wake_at);
            self.runs_until(wake_at);
            self.wait(wake_at).await;
            self.beat();
            self.drain();
        }
    }

    /// The loop lives: its next step begins now.
    pub(super) fn beat(&self) {
        self.runs_until(clock::now());
    }

    /// The next step begins at `due`. A loop whose looks or statements hang is one that hangs: what it decides is not
    /// done.
    fn runs_until(&self, due: Moment) {
        let now = clock::now();
        let threads = [&self.tools.looks, &self.tools.statements];
        let overdue = threads.into_iter().filter_map(|thread| thread.overdue_since(now)).min();
        self.probe.loop_runs(overdue.unwrap_or(due));
    }

    /// Who waits for a look is answered in time even where none ends.
    fn awaited_by(&self, wake_at: Moment) -> Moment {
        let now = clock::now();
        let looker = self.state.lookers.first().map(|(since, _)| *since + LOOK_WITHIN);
        looker.filter(|by| now < *by).map_or(wake_at, |by| by.min(wake_at))
    }

    /// Waits for a level, not an edge: each source marks what it saw, and the tick reads the newest of everything.
    async fn wait(&mut self, wake_at: Moment) {
        let event = tokio::select! {
            Some(report) = self.reports.recv() => return self.take(report),
            Some(order) = self.orders.recv() => return self.order(order),
            signal = self.signals.next() => return self.signal(signal),
            Ok(()) = self.view.changed() => MemberEvent::LevelChanged,
            () = self.wakes.changed() => MemberEvent::LevelChanged,
            Ok(()) = self.progress.changed() => MemberEvent::LevelChanged,
            () = self.pods.changed() => MemberEvent::LevelChanged,
            () = clock::sleep_until(wake_at) => MemberEvent::Woke,
        };
        self.state.arrived.push(event);
    }

    /// Takes what else has arrived, so that a burst is one tick.
    fn drain(&mut self) {
        for _ in 0..EVENTS_PER_TICK_MAX {
            if let Ok(report) = self.reports.try_recv() {
                self.take(report);
            } else if let Ok(order) = self.orders.try_recv() {
                self.order(order);
            } else {
                return;
            }
        }
    }

    fn take(&mut self, report: TaskReport) {
        match report {
            TaskReport::Member(event) => {
                match &*event {
                    MemberEvent::JobFinished(finished) => self.finish(finished),
                    MemberEvent::PeerAnswered(name, answer) => self.peer_answered(name, answer),
                    _other => {}
                }
                self.state.arrived.push(*event);
            }
            TaskReport::Prepared { look, applied, passwords_set } => {
                let changed = applied.is_some();
                if let Some((parameters, taken)) = applied {
                    self.dynamic.applied(*parameters, taken);
                    if taken {
                        self.call_back_reload();
                    }
                }
                if passwords_set {
                    self.state.roles.passwords_set(look);
                }
                self.state.arrived.push(MemberEvent::Answered(look, LookAnswer::Prepared { changed }));
            }
            TaskReport::SecretsChanged => {
                self.reload();
                self.state.arrived.push(MemberEvent::LevelChanged);
            }
        }
    }

    fn finish(&mut self, finished: &Finished) {
        self.state.jobs.finished(finished.job);
        match &finished.outcome {
            Outcome::Done => tracing::debug!(job = %finished.job, "done"),
            Outcome::Lost => tracing::info!(job = %finished.job, "another member was faster"),
            Outcome::Cancelled => tracing::info!(job = %finished.job, "cancelled"),
            Outcome::LeaseGone => {
                tracing::info!(job = %finished.job, "the lease has ended: waiting for a new lease")
            }
            Outcome::Unknown(why) | Outcome::Failed(why) | Outcome::Refused(why) => {
                tracing::warn!(job = %finished.job, why, "failed")
            }
        }
        if finished.job.replaces_data() {
            self.dynamic.saved.forget();
        }
    }

    fn signal(&mut self, signal: SignalEvent) {
        match signal {
            SignalEvent::Terminate | SignalEvent::Interrupt | SignalEvent::Quit => {
                self.state.shutting_down = true;
                self.state.arrived.push(MemberEvent::LevelChanged);
                self.service.stopping();
                tracing::info!(?signal, "shutdown requested");
            }
            SignalEvent::Reload => {
                self.reload();
                self.state.arrived.push(MemberEvent::LevelChanged);
            }
        }
    }

    /// Hands what has arrived to the member, begins to answer its questions, and does what it decides; also says when
    /// it wants to be woken at the latest.
    async fn tick(&mut self) -> (ControlFlow<ExitBecause>, Moment) {
        loop {
            let process = self.tools.postgres.process().borrow().clone();
            let arrived = std::mem::take(&mut self.state.arrived);
            let verdict = self.probe.verdict().borrow().clone();
            match self.core.handle(arrived, &process, &verdict, clock::now()) {
                MemberNext::Ask(look, question) => self.look(look, question).await,
                MemberNext::Await { until } => return (ControlFlow::Continue(()), until),
                MemberNext::Decide => return self.act_on_decision().await,
            }
        }
    }

    async fn act_on_decision(&mut self) -> (ControlFlow<ExitBecause>, Moment) {
        let (levels, settings_changed) = self.levels();
        let Decided { effects, seen, wake_at } = self.core.decide(&levels, clock::now());
        let mut flow = ControlFlow::Continue(());
        for effect in effects {
            if let ControlFlow::Break(because) = self.perform(effect, &levels).await {
                flow = ControlFlow::Break(because);
            }
            self.beat();
        }
        self.probe.lead_standby_cluster(seen.standby_leader(clock::now()));
        self.publish(&seen, wake_at);
        self.call_back(&seen);
        self.wakes.saw(&levels);
        let (now, looked, looking) = (clock::now(), self.core.looked_at(), self.core.is_looking());
        // While a look hangs the status says that PostgreSQL does not answer, which is an answer.
        let is_due = |since: Moment| Some(since) <= looked || (looking && since + LOOK_WITHIN <= now);
        for (_, looker) in self.state.lookers.extract_if(.., |(since, _)| is_due(*since)) {
            // Whoever asked may have gone.
            let _ = looker.send(());
        }
        if settings_changed {
            // PostgreSQL has not been told of what changed while it was looked at.
            self.state.arrived.push(MemberEvent::LookWanted);
            return (flow, now);
        }
        (flow, wake_at)
    }

    /// The newest of everything that has a level, and whether that brought other settings.
    fn levels(&mut self) -> (Levels, bool) {
        let view = self.view.borrow_and_update().clone();
        self.note_etcd(view.as_ref());
        let cluster = view.as_ref().map(|view| &view.cluster);
        let settings_changed = self.take_settings(cluster);
        let settings = self.dynamic.settings_over(cluster);
        self.channel.configure(settings.suspect_after);
        let pod = self.pods.facts();
        let postgres = &self.tools.postgres;
        let levels = Levels {
            settings,
            view,
            lease: self.lease(),
            hearing: self.wakes.hearing(),
            process: postgres.process().borrow().clone(),
            liveness: self.probe.facts(),
            sync_owner: postgres.sync_owner(),
            clients_locked_out: postgres.are_clients_locked_out(),
            access: postgres.access(),
            writes: self.wakes.writes(),
            clone_progress: self.clone_progress(),
            shutting_down: self.state.shutting_down,
            watchdog_failed: self.fencing.watchdog_failed(self.dynamic.settings(), clock::now()),
            pod_end: pod.as_ref().and_then(|facts| facts.end),
            pod_trouble: pod.and_then(|facts| facts.complaint()),
            wall: clock::wall(),
        };
        (levels, settings_changed)
    }

    /// The lease as its thread last said.
    pub(super) fn lease(&self) -> LeaseFacts {
        lease_facts(self.keeper.as_deref())
    }

    fn clone_progress(&self) -> Option<CloneProgress> {
        let cloning = self.core.job().is_some_and(|running| running.job.kind() == JobKind::Clone);
        let since = self.state.clone_since.filter(|_| cloning)?;
        let progress = *self.progress.borrow();
        Some(CloneProgress {
            bytes: progress.done,
            total: progress.total,
            elapsed: clock::now().since(since),
        })
    }

    /// A confirmed renewal or a newer view is a sign of life of etcd.
    fn note_etcd(&mut self, view: Option<&View>) {
        let renewed = self.lease().trouble.is_none() && self.keeper.is_some();
        let seen_at = view.map(|view| view.seen_at);
        if renewed || seen_at > self.state.etcd_seen_at {
            self.state.etcd_seen_at = seen_at.max(renewed.then(clock::now));
            self.state.etcd_seen_wall = clock::wall().0 / 1000;
        }
    }
}
