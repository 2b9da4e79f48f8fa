//! Everything there is, and the handle through which every task reaches it.

use std::cell::{RefCell, RefMut};
use std::rc::Rc;
use std::time::Duration;

use matriarch::core::store::Keys;
use matriarch::model::{MemberName, Moment, PodEnd, RecruitKey, Settings, StoreSeen, Term};

use super::clients::Ledger;
use super::clock::{At, Clock};
use super::etcd::Etcd;
use super::executor::{Executor, NATURE};
use super::fault::FaultState;
use super::guard::GuardPlace;
use super::mutation::Mutation;
use super::network::{Host, Network};
use super::postgres::Server;
use super::postgres::disk::Disk;
use super::postgres::roles::RoleChanges;
use super::signal::Signal;
use super::supervisor::Supervisor;
use super::trace::Trace;

/// What one seed's world is like.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) members: usize,
    pub(crate) clients: usize,
    /// What the operator wants now.
    pub(crate) settings: Settings,
    /// What the members' files say of the TTL.
    pub(crate) file_ttl: Duration,
    /// `bootstrap.wait_for_members`.
    pub(crate) wait_for_members: Duration,
    /// Commits are this many times as large.
    pub(crate) bytes_factor: u64,
    /// The program that made the cluster gave the supervisors no role of their own.
    pub(crate) made_by_another: bool,
    /// An operator replaces the password of the roles.
    pub(crate) secrets_change: bool,
    /// A heartbeat that is lost is sent again, and those behind it wait, as on a connection.
    pub(crate) streams_heartbeats: bool,
    pub(crate) mutation: Option<Mutation>,
}

/// A member's machine.
pub(crate) struct Machine {
    pub(crate) name: MemberName,
    pub(crate) disk: Disk,
    pub(crate) server: Option<Server>,
    pub(crate) last_exit: Option<String>,
    pub(crate) replay_lag_ms: u64,
    /// So many faults keep what is written to the disk, or read from it, from being done.
    pub(crate) disk_hangs: u32,
    pub(crate) fault_state: FaultState,
    /// What a supervisor has seen of etcd's store, beside the data directory.
    pub(crate) store_seen: StoreSeen,
    /// Nobody reads the log any more; nobody ever will.
    pub(crate) unread: bool,
    /// The pod that it is ends, or is gone.
    pub(crate) pod_end: Option<PodEnd>,
    /// So many faults keep a supervisor that starts from telling what runs.
    pub(crate) untold: u32,
    /// The postmaster came, went, or turned primary.
    pub(crate) changed: Signal,
    pub(crate) guard: GuardPlace,
    pub(crate) supervisor: Option<Supervisor>,
    /// The number of the password in the file that the supervisor reads.
    pub(crate) secret: u64,
    /// The passwords for PostgreSQL's programs, beside the data directory.
    pub(crate) password_file: Vec<String>,
    /// Since when each login was refused, at which member, and which password was in force there.
    pub(crate) refused: Option<(At, usize, Option<String>)>,
}

/// The whole.
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) network: Network,
    pub(crate) clocks: Vec<Clock>,
    pub(crate) etcd: Etcd,
    pub(crate) keys: Keys,
    pub(crate) machines: Vec<Machine>,
    pub(crate) ledger: Ledger,
    /// So many looks and statements of a thousand take long.
    pub(crate) slow_work: u64,
    /// And at most so long.
    pub(crate) slowest_work_ms: u64,
    /// After all faults the operator leaves the cluster in pause.
    pub(crate) stays_paused: bool,
    /// No fault begins or goes on after it.
    pub(crate) faults_end: At,
    pub(crate) next_record: u64,
    pub(crate) next_number: i32,
    /// The number of the newest password.
    pub(crate) secret: u64,
    pub(crate) role_changes: RoleChanges,
    pub(crate) trace: Trace,
}

impl World {
    fn new(options: Options, executor: &Executor, trace: Trace) -> World {
        let network = Network::new(options.members, super::etcd::SERVERS, options.clients);
        let clock = |_| {
            executor.rng(|rng| {
                let drift = super::clock::DRIFT_MAX_PPM as u64;
                let ppm = rng.between(0, 2 * drift) as i64 - drift as i64;
                Clock::new(rng.between(1_000_000_000_000, 9_000_000_000_000), ppm)
            })
        };
        let clocks = network.hosts().map(clock).collect();
        let machine = |index: usize| Machine {
            name: name_of(index),
            disk: Disk::default(),
            server: None,
            last_exit: None,
            replay_lag_ms: 0,
            disk_hangs: 0,
            fault_state: FaultState::default(),
            store_seen: StoreSeen::default(),
            unread: false,
            pod_end: None,
            untold: 0,
            changed: Signal::default(),
            guard: GuardPlace::default(),
            supervisor: None,
            secret: 0,
            password_file: Vec::new(),
            refused: None,
        };
        let machines = (0..options.members).map(machine).collect();
        World {
            options,
            network,
            clocks,
            etcd: Etcd::default(),
            keys: Keys::new("/service/herd"),
            machines,
            ledger: Ledger::default(),
            slow_work: 0,
            slowest_work_ms: 4_000,
            stays_paused: false,
            faults_end: At(0),
            next_record: 0,
            next_number: 100,
            secret: 0,
            role_changes: RoleChanges::new(),
            trace,
        }
    }

    /// When a lease that is renewed now ends, by the clock of etcd's leader.
    pub(crate) fn lease_end(&self, ttl: Duration, now: At) -> At {
        let leader = self.etcd.leader.unwrap_or(0);
        let clock = &self.clocks[self.network.index(Host::Etcd(leader))];
        clock.when(clock.read(now) + ttl, now)
    }

    pub(crate) fn lease_end_of(&self, server: usize, lease: i64, now: At) -> At {
        let ttl = self.etcd.store.leases.get(&lease).map_or(Duration::ZERO, |lease| lease.ttl);
        let clock = &self.clocks[self.network.index(Host::Etcd(server))];
        clock.when(clock.read(now) + ttl, now)
    }

    /// Whom the key `unfenced` names.
    pub(crate) fn unfenced(&self) -> Vec<MemberName> {
        if !self.etcd.store.keys.contains_key(&self.keys.path("unfenced")) {
            return Vec::new();
        }
        let view = self.keys.view(&self.etcd.store.keys, self.etcd.store.revision).unwrap_or_default();
        view.unfenced(None).map(|(name, _)| name.clone()).collect()
    }

    /// The attempt to replace a leader that is in the key `recruit`.
    pub(crate) fn attempt(&self) -> Option<RecruitKey> {
        let key = self.etcd.store.keys.get(&self.keys.path("recruit"))?;
        Keys::recruit(&String::from_utf8_lossy(&key.value), key.mod_revision)
    }

    /// Who has the leader key, in which term.
    pub(crate) fn leader(&self) -> Option<(String, Term)> {
        let key = self.etcd.store.keys.get(&self.keys.path("leader"))?;
        Some((String::from_utf8_lossy(&key.value).into_owned(), Term(key.mod_revision)))
    }

    /// A machine's clock.
    pub(crate) fn clock(&self, member: usize) -> &Clock {
        &self.clocks[self.network.index(Host::Member(member))]
    }
}

/// The members' names, in order.
pub(crate) fn name_of(index: usize) -> MemberName {
    let letter = char::from(b'a' + index as u8);
    MemberName::try_from(letter.to_string()).expect("a letter is a name")
}

/// And back.
pub(crate) fn index_of(name: &str) -> Option<usize> {
    let letter = name.bytes().next().filter(|_| name.len() == 1)?;
    letter.checked_sub(b'a').map(usize::from)
}

/// The handle; clones share one world.
#[derive(Clone)]
pub(crate) struct Sim {
    pub(crate) exec: Executor,
    world: Rc<RefCell<World>>,
}

impl Sim {
    pub(crate) fn new(executor: Executor, options: Options, trace: Trace) -> Sim {
        let world = World::new(options, &executor, trace);
        Sim { exec: executor, world: Rc::new(RefCell::new(world)) }
    }

    /// For one statement: it must not be held where a task gives way.
    pub(crate) fn world(&self) -> RefMut<'_, World> {
        self.world.borrow_mut()
    }

    pub(crate) fn now(&self) -> At {
        self.exec.now()
    }

    /// What a member's clock shows.
    pub(crate) fn read_clock(&self, member: usize) -> Moment {
        self.world().clock(member).read(self.now())
    }

    /// When it will show `moment`.
    pub(crate) fn when(&self, member: usize, moment: Moment) -> At {
        self.world().clock(member).when(moment, self.now())
    }

    /// A message's way; false when it was lost.
    pub(crate) async fn travel(&self, from: Host, to: Host) -> bool {
        let takes = {
            let world = self.world();
            self.exec.rng(|rng| world.network.travel(rng, from, to))
        };
        match takes {
            None => false,
            Some(span) => {
                self.exec.sleep(span).await;
                self.world().network.passes(from, to)
            }
        }
    }

    /// A line of the trace, if there is one.
    pub(crate) fn note(&self, text: impl FnOnce() -> String) {
        let now = self.now();
        self.world().trace.note(now, text);
    }

    /// Begins a task that nothing can freeze.
    pub(crate) fn spawn_environment(&self, work: impl Future<Output = ()> + 'static) {
        self.exec.spawn(NATURE, work);
    }
}
