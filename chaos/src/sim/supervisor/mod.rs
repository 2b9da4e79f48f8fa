//! A supervisor: the machines of the product's `core` with `decide` inside them, its liveness verdict, and around them
//! the runtime of `src/agent`, task by task, small: each module is named after the one that it stands for.
//!
//! What a step can be interrupted at is every `.await`; what the product does between two system calls is one step
//! here only where nothing outside can see the difference.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use matriarch::core::guard::{Arming, KeepGuard};
use matriarch::core::heartbeat::HeartbeatWatch;
use matriarch::core::member::MemberEvent;
use matriarch::core::roles::RoleWork;
use matriarch::model::{
    Ask, FailsafePlan, JobKind, KnownPassword, LeaderHearing, LeaseFacts, LeaseId, Liveness, LivenessVerdict,
    Me, MemberRecord, Moment, OwnAccess, PostgresFacts, Process, RequestId, Settings, StoreMark, Suspicion,
    SyncOwner, Tags, Term, View,
};

use self::peers::SCOPE;

use super::etcd::client::Client;
use super::executor::Pid;
use super::mutation::Mutation;
use super::network::Host;
use super::signal::{Reply, Signal};
use super::world::Sim;

pub(crate) mod configured;
pub(crate) mod cycle;
pub(crate) mod distort;
mod driver_fault;
pub(crate) mod events;
pub(crate) mod fencing;
mod heartbeats;
pub(crate) mod jobs;
pub(crate) mod lease;
pub(crate) mod link;
pub(crate) mod observe;
pub(crate) mod peers;
pub(crate) mod perform;
pub(crate) mod probe;
pub(crate) mod roles;
pub(crate) mod serial;
pub(crate) mod starts;
mod startup;
pub(crate) mod statements;
pub(crate) mod view;
pub(crate) mod write;

/// What other members are told.
#[derive(Clone, Default)]
pub(crate) struct Status {
    pub(crate) postgres: PostgresFacts,
    pub(crate) store: StoreMark,
    pub(crate) yields: bool,
    pub(crate) promised: bool,
    pub(crate) suspicion: Suspicion,
    pub(crate) recruited: Option<i64>,
    pub(crate) pod_ends: bool,
}

/// What the tasks of one supervisor share.
pub(crate) struct Shared {
    pub(crate) member: usize,
    pub(crate) pid: Pid,
    /// Wakes the loop.
    pub(crate) bell: Signal,
    pub(crate) lease: RefCell<LeaseFacts>,
    /// The TTL that the lease should have.
    pub(crate) ttl: Cell<Duration>,
    pub(crate) renew_now: Cell<bool>,
    pub(crate) lease_bell: Signal,
    pub(crate) hearing: RefCell<HeartbeatWatch>,
    /// When the machine of another member last acknowledged a heartbeat, and of which term.
    pub(crate) acknowledged: Cell<Option<(Term, Moment)>>,
    /// What it came to.
    pub(crate) heard: Cell<LeaderHearing>,
    pub(crate) view: RefCell<Option<View>>,
    pub(crate) view_version: Cell<u64>,
    /// The view is not what it should be.
    pub(crate) look_again: Cell<bool>,
    pub(crate) view_bell: Signal,
    pub(crate) process: RefCell<Process>,
    pub(crate) process_bell: Signal,
    pub(crate) liveness: RefCell<Liveness>,
    pub(crate) verdict: RefCell<LivenessVerdict>,
    pub(crate) keep: RefCell<KeepGuard<()>>,
    pub(crate) link_bell: Signal,
    pub(crate) held_bell: Signal,
    pub(crate) arming: RefCell<Arming>,
    pub(crate) events: RefCell<VecDeque<MemberEvent>>,
    pub(crate) requests: RefCell<Vec<(Ask, Reply<matriarch::model::Reply>)>>,
    /// Who waits for the answer to a request.
    pub(crate) answers: RefCell<BTreeMap<RequestId, Reply<matriarch::model::Reply>>>,
    /// What is asked of the members while etcd does not answer.
    pub(crate) failsafe: RefCell<FailsafePlan>,
    pub(crate) lookers: RefCell<Vec<Reply<()>>>,
    pub(crate) record: RefCell<Option<(LeaseId, MemberRecord)>>,
    pub(crate) record_bell: Signal,
    pub(crate) status: RefCell<Status>,
    pub(crate) shutting_down: Cell<bool>,
    /// The long actions whose tasks are there.
    pub(crate) under_way: RefCell<Vec<JobKind>>,
    pub(crate) sync_owner: RefCell<SyncOwner>,
    /// What PostgreSQL's files say of it, or shall say.
    pub(crate) clients_locked_out: Cell<bool>,
    pub(crate) configured: RefCell<configured::Configured>,
    /// Of the roles that other members and the supervisor use.
    pub(crate) password: RefCell<KnownPassword>,
    /// The file has another one.
    pub(crate) password_changed: Cell<bool>,
    pub(crate) roles: RefCell<RoleWork>,
    pub(crate) access: RefCell<OwnAccess>,
    pub(crate) etcd: Client,
}

/// A running supervisor.
#[derive(Clone)]
pub(crate) struct Supervisor {
    pub(crate) pid: Pid,
    pub(crate) shared: Rc<Shared>,
}

/// One task's hold on its supervisor.
#[derive(Clone)]
pub(crate) struct Agent {
    pub(crate) sim: Sim,
    pub(crate) shared: Rc<Shared>,
}

impl Agent {
    pub(crate) fn member(&self) -> usize {
        self.shared.member
    }

    /// Who this member is.
    pub(crate) fn me(&self) -> Me {
        let world = self.sim.world();
        let name = world.machines[self.member()].name.clone();
        Me {
            scope: SCOPE.to_owned(),
            session: self.session(),
            tags: Tags::default(),
            conn_url: format!("postgres://{name}:5432/postgres"),
            api_url: format!("http://{name}:8008/patroni"),
            proxy_url: None,
            may_bootstrap: true,
            wait_for_members: world.options.wait_for_members,
            scripts: Default::default(),
            name,
        }
    }

    /// `CLOCK_BOOTTIME`.
    pub(crate) fn now(&self) -> Moment {
        self.sim.read_clock(self.member())
    }

    pub(crate) async fn sleep(&self, span: Duration) {
        self.sim.exec.sleep(span).await;
    }

    /// Between two lines of code: nothing lasts no time.
    pub(crate) async fn step(&self) {
        let takes = self.sim.exec.rng(|rng| match rng.permille(8) {
            true => rng.millis(1, 40),
            false => rng.micros(1, 80),
        });
        self.sim.exec.sleep(takes).await;
    }

    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + 'static) -> super::executor::TaskId {
        self.sim.exec.spawn(self.shared.pid, work)
    }

    pub(crate) fn event(&self, event: MemberEvent) {
        self.shared.events.borrow_mut().push_back(event);
        self.shared.bell.give(&self.sim.exec);
    }

    pub(crate) fn mutation(&self) -> Option<Mutation> {
        self.sim.world().options.mutation
    }

    pub(crate) fn host(&self) -> Host {
        Host::Member(self.member())
    }

    /// A line of the log, which nothing waits for.
    pub(crate) async fn log(&self, line: &str) {
        self.note(|| line.to_owned());
        let mutation = self.sim.world().options.mutation;
        while mutation == Some(Mutation::LogBlocks) && self.sim.world().machines[self.member()].unread {
            self.sleep(Duration::from_secs(1)).await;
        }
    }

    pub(crate) fn note(&self, text: impl FnOnce() -> String) {
        let member = self.member();
        self.sim.note(|| format!("{member}: {}", text()));
    }
}

impl Sim {
    /// Starts a supervisor, unless one runs there (the lock beside the data directory).
    pub(crate) fn start_supervisor(&self, member: usize) {
        let running = self.world().machines[member].supervisor.as_ref().map(|running| running.pid);
        if running.is_some_and(|pid| self.exec.is_alive(pid)) {
            return;
        }
        let pid = self.exec.fork();
        let now = self.read_clock(member);
        let (kept, locked_out) = {
            let disk = &self.world().machines[member].disk;
            (disk.configured.clone(), disk.clients_locked_out)
        };
        let (password, replaced) = self.recalled_password(member);
        let mut configured = configured::Configured::recalled(kept);
        let ttl = configured.ttl(self.world().options.file_ttl);
        let shared = Rc::new(Shared {
            member,
            pid,
            bell: Signal::default(),
            lease: RefCell::default(),
            ttl: Cell::new(ttl),
            renew_now: Cell::default(),
            lease_bell: Signal::default(),
            hearing: RefCell::new(HeartbeatWatch::new(Settings::default().suspect_after)),
            acknowledged: Cell::default(),
            heard: Cell::default(),
            view: RefCell::default(),
            view_version: Cell::default(),
            look_again: Cell::default(),
            view_bell: Signal::default(),
            process: RefCell::default(),
            process_bell: Signal::default(),
            liveness: RefCell::new(Liveness::new(ttl, now)),
            verdict: RefCell::default(),
            keep: RefCell::new(KeepGuard::new(false)),
            link_bell: Signal::default(),
            held_bell: Signal::default(),
            arming: RefCell::default(),
            events: RefCell::default(),
            requests: RefCell::default(),
            answers: RefCell::default(),
            failsafe: RefCell::default(),
            lookers: RefCell::default(),
            record: RefCell::default(),
            record_bell: Signal::default(),
            status: RefCell::default(),
            shutting_down: Cell::default(),
            under_way: RefCell::default(),
            sync_owner: RefCell::default(),
            clients_locked_out: Cell::new(locked_out),
            configured: RefCell::new(configured),
            password: RefCell::new(password),
            password_changed: Cell::default(),
            roles: RefCell::new(RoleWork::recalled(replaced, true)),
            access: RefCell::default(),
            etcd: Client::new(self, Host::Member(member)),
        });
        let agent = Agent { sim: self.clone(), shared: shared.clone() };
        self.world().machines[member].supervisor = Some(Supervisor { pid, shared });
        self.note(|| format!("{member}: supervisor starts"));
        self.exec.spawn(pid, async move { agent.run().await });
    }
}
