//! An etcd of three servers: one store, a raft leader that changes, leases that its clock counts, and servers that
//! answer late, twice, never, or as the leader they no longer are.
//!
//! The store is what raft has agreed on. What can go wrong on the way to it is here: a request needs a server that
//! hears the leader and a leader that hears a majority, at the moment it takes effect; its answer may be lost after
//! that. A keepalive needs only somebody who believes to be the leader: the one answer of etcd that proves nothing.
//! A change of leader gives every lease a fresh TTL.

use std::time::Duration;

use matriarch::core::store::{KeyChange, StoredKey, Txn};
use matriarch::model::Moment;

use super::clock::At;
use super::executor::{NATURE, Pid};
use super::network::Host;
use super::signal::Signal;
use super::world::Sim;

pub(crate) mod client;
pub(crate) mod store;

use store::{LeaseNotFound, Store};

/// Servers.
pub(crate) const SERVERS: usize = 3;

/// A request.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Txn(Txn),
    Get(String),
    List,
    Grant(Duration),
    Revoke(i64),
    KeepAlive(i64),
}

impl Op {
    /// Whether it is a transaction that writes a value.
    pub(crate) fn puts(&self) -> bool {
        let Op::Txn(txn) = self else { return false };
        txn.then.iter().any(|change| !matches!(change, KeyChange::Delete(_)))
    }

    /// Whether it needs space. A transaction does whether or not its comparisons hold.
    fn grows(&self) -> bool {
        match self {
            Op::Txn(_) => self.puts(),
            Op::Grant(_) => true,
            Op::Get(_) | Op::List | Op::Revoke(_) | Op::KeepAlive(_) => false,
        }
    }
}

/// What it gives.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    Txn { done: bool, now: Option<StoredKey> },
    Key(Option<StoredKey>),
    Keys(std::collections::BTreeMap<String, StoredKey>),
    Lease(i64),
    Done,
    Ttl(Duration),
}

/// An answer with its header.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) raft_term: u64,
    pub(crate) revision: i64,
    pub(crate) body: Body,
    /// Read by whoever asked, before that very request was sent.
    pub(crate) sent_at: Moment,
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Definite.
    LeaseNotFound,
    /// Definite: its database is full.
    NoSpace,
    /// Anything else: nobody knows.
    Unknown(&'static str),
}

/// One server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) pid: Pid,
    /// Whom it takes for the leader, in which term.
    believes: Option<(usize, u64)>,
    /// A deposed leader that has not noticed believes in itself until then.
    deluded_until: At,
}

/// The cluster.
#[derive(Default)]
pub(crate) struct Etcd {
    pub(crate) store: Store,
    pub(crate) servers: Vec<Server>,
    pub(crate) leader: Option<usize>,
    pub(crate) raft_term: u64,
    leaderless_since: At,
    pub(crate) changed: Signal,
    /// Every answer is late by up to this many milliseconds.
    pub(crate) slow_ms: u64,
    /// Watches opened from now on never tell anything.
    pub(crate) deaf_watches: bool,
    /// How often all open watches broke.
    pub(crate) broken_watches: u64,
    /// It takes no writes but deletions, and grants no lease.
    pub(crate) no_space: bool,
}

impl Sim {
    /// Starts the servers.
    pub(crate) fn start_etcd(&self) {
        for _ in 0..SERVERS {
            let pid = self.exec.fork();
            self.world().etcd.servers.push(Server { pid, believes: None, deluded_until: At(0) });
        }
        self.elect(0);
        let sim = self.clone();
        self.exec.spawn(NATURE, async move {
            loop {
                sim.exec.sleep(Duration::from_millis(100)).await;
                sim.tick_raft();
            }
        });
    }

    /// A server that died comes back with all it had agreed to.
    pub(crate) fn restart_etcd_server(&self, index: usize) {
        let pid = self.exec.fork();
        let mut world = self.world();
        if !self.exec.is_alive(world.etcd.servers[index].pid) {
            world.etcd.servers[index] = Server { pid, believes: None, deluded_until: At(0) };
        }
    }

    pub(crate) fn etcd_runs(&self, index: usize) -> bool {
        let pid = self.world().etcd.servers[index].pid;
        self.exec.is_alive(pid) && !self.exec.is_frozen(pid)
    }

    fn hear_each_other(&self, one: usize, other: usize) -> bool {
        one == other || self.world().network.connects(Host::Etcd(one), Host::Etcd(other))
    }

    fn has_majority(&self, leader: usize) -> bool {
        let heard =
            (0..SERVERS).filter(|other| self.etcd_runs(*other) && self.hear_each_other(leader, *other));
        self.etcd_runs(leader) && SERVERS / 2 < heard.count()
    }

    fn elect(&self, leader: usize) {
        let now = self.now();
        let mut world = self.world();
        let world = &mut *world;
        world.etcd.raft_term += 1;
        if let Some(old) = world.etcd.leader {
            let late = self.exec.rng(|rng| rng.millis(0, 4000));
            world.etcd.servers[old].deluded_until = now + late;
        }
        world.etcd.leader = Some(leader);
        world.etcd.servers[leader].deluded_until = At(0);
        for lease in world.etcd.store.leases.values_mut() {
            // Etcd says "fresh"; a lease that had more left keeps it.
            let clock = &world.clocks[world.network.index(Host::Etcd(leader))];
            lease.expires = lease.expires.max(clock.when(clock.read(now) + lease.ttl, now));
        }
        world.trace.note(now, || format!("etcd {leader} leads in raft term {}", world.etcd.raft_term));
    }

    /// The leader goes to another server, for no reason.
    pub(crate) fn move_raft_leader(&self) {
        let now = self.world().etcd.leader;
        let fit: Vec<usize> =
            (0..SERVERS).filter(|index| Some(*index) != now && self.has_majority(*index)).collect();
        if let Some(next) = self.exec.rng(|rng| rng.pick(&fit)) {
            self.elect(next);
        }
    }

    fn tick_raft(&self) {
        let now = self.now();
        let (leader, since) = {
            let world = self.world();
            (world.etcd.leader, world.etcd.leaderless_since)
        };
        let sound = leader.is_some_and(|leader| self.has_majority(leader));
        if sound {
            self.world().etcd.leaderless_since = now;
            self.spread_beliefs();
            self.expire_leases();
        } else {
            let patience = self.exec.rng(|rng| rng.millis(1000, 1700));
            if since + patience <= now {
                let fit: Vec<usize> = (0..SERVERS).filter(|index| self.has_majority(*index)).collect();
                if let Some(next) = self.exec.rng(|rng| rng.pick(&fit)) {
                    self.elect(next);
                }
            }
        }
    }

    fn spread_beliefs(&self) {
        let now = self.now();
        let Some(leader) = self.world().etcd.leader else { return };
        for index in 0..SERVERS {
            if self.etcd_runs(index) && self.hear_each_other(leader, index) {
                let mut world = self.world();
                let belief = Some((leader, world.etcd.raft_term));
                if world.etcd.servers[index].deluded_until <= now {
                    world.etcd.servers[index].believes = belief;
                }
            }
        }
    }

    fn expire_leases(&self) {
        let now = self.now();
        let mut world = self.world();
        let over: Vec<i64> =
            world.etcd.store.leases.iter().filter(|(_, l)| l.expires <= now).map(|(id, _)| *id).collect();
        // Etcd looks twice a second.
        for lease in over {
            if self.exec.rng(|rng| rng.permille(300)) {
                world.etcd.store.revoke(lease);
                world.trace.note(now, || format!("etcd: lease {lease:x} expires"));
                world.etcd.changed.give(&self.exec);
            }
        }
    }

    /// Whether what was agreed on reaches this server.
    pub(crate) fn hears_leader(&self, server: usize) -> bool {
        let Some(leader) = self.world().etcd.leader else { return false };
        self.etcd_runs(server) && self.has_majority(leader) && self.hear_each_other(leader, server)
    }

    /// The raft term in which this server can serve something linearizable now.
    fn route(&self, server: usize) -> Option<u64> {
        let leader = self.world().etcd.leader?;
        let sound = self.has_majority(leader) && self.hear_each_other(leader, server);
        let world = self.world();
        let believes = world.etcd.servers[server].believes == Some((leader, world.etcd.raft_term));
        (sound && believes).then_some(world.etcd.raft_term)
    }

    /// What the server does with a request. Runs in the server's process.
    pub(crate) async fn serve_etcd(&self, server: usize, op: &Op) -> Result<Answer, Refusal> {
        let slow_ms = self.world().etcd.slow_ms;
        if 0 < slow_ms {
            let late = self.exec.rng(|rng| rng.millis(0, slow_ms));
            self.exec.sleep(late).await;
        }
        if let Op::KeepAlive(lease) = op {
            return self.keep_alive(server, *lease).await;
        }
        let give_up_at = self.now() + Duration::from_secs(5);
        let raft_term = loop {
            match self.route(server) {
                Some(term) => break term,
                None if give_up_at <= self.now() => return Err(Refusal::Unknown("etcdserver: no leader")),
                None => self.exec.sleep(Duration::from_millis(50)).await,
            }
        };
        let agreed = self.exec.rng(|rng| rng.micros(300, 2500));
        self.exec.sleep(agreed).await;
        if self.route(server) != Some(raft_term) {
            // Proposed to a leader that is gone: agreed on or not, this server does not know.
            let done = self.exec.rng(|rng| rng.permille(500));
            let leader = self.world().etcd.leader;
            if done && leader.is_some_and(|leader| self.has_majority(leader)) {
                let _ = self.apply(op);
            }
            return Err(Refusal::Unknown("etcdserver: request timed out, possibly due to leader loss"));
        }
        let body = self.apply(op)?;
        let revision = self.world().etcd.store.revision;
        Ok(Answer { raft_term, revision, body, sent_at: Moment::default() })
    }

    fn apply(&self, op: &Op) -> Result<Body, Refusal> {
        let mut world = self.world();
        if world.etcd.no_space && op.grows() {
            return Err(Refusal::NoSpace);
        }
        let before = world.etcd.store.revision;
        let body = match op {
            Op::Txn(txn) => {
                let done = world.etcd.store.txn(txn);
                let (done, now) = done.map_err(|LeaseNotFound| Refusal::LeaseNotFound)?;
                Body::Txn { done, now }
            }
            Op::Get(path) => Body::Key(world.etcd.store.keys.get(path).cloned()),
            Op::List => Body::Keys(world.etcd.store.keys.clone()),
            Op::Grant(ttl) => {
                let expires = world.lease_end(*ttl, self.now());
                Body::Lease(world.etcd.store.grant(*ttl, expires))
            }
            Op::Revoke(lease) if world.etcd.store.revoke(*lease) => Body::Done,
            Op::Revoke(_) | Op::KeepAlive(_) => return Err(Refusal::LeaseNotFound),
        };
        if before != world.etcd.store.revision {
            world.etcd.changed.give(&self.exec);
        }
        Ok(body)
    }

    /// Whoever believes to be the leader answers from what it knows; the others pass it on.
    async fn keep_alive(&self, server: usize, lease: i64) -> Result<Answer, Refusal> {
        let Some((leader, raft_term)) = self.world().etcd.servers[server].believes else {
            return Err(Refusal::Unknown("etcdserver: not leader"));
        };
        if leader != server {
            self.exec.sleep(Duration::from_micros(400)).await;
            let there = self.etcd_runs(leader) && self.hear_each_other(server, leader);
            let leads = self.world().etcd.servers[leader].believes == Some((leader, raft_term));
            if !there || !leads {
                return Err(Refusal::Unknown("etcdserver: request timed out"));
            }
        }
        let mut world = self.world();
        let world = &mut *world;
        let really = world.etcd.leader == Some(leader) && world.etcd.raft_term == raft_term;
        let expires = world.lease_end_of(leader, lease, self.now());
        let answer =
            |ttl| Answer { raft_term, revision: 0, body: Body::Ttl(ttl), sent_at: Moment::default() };
        match world.etcd.store.leases.get_mut(&lease) {
            None => Ok(answer(Duration::ZERO)),
            Some(known) if known.expires <= self.now() && really => Ok(answer(Duration::ZERO)),
            Some(known) => {
                if really {
                    known.expires = known.expires.max(expires);
                }
                Ok(answer(known.ttl))
            }
        }
    }
}
