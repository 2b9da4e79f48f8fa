//! What etcd keeps: leases and the leader key.

use std::collections::BTreeMap;
use std::time::Duration;

use matriarch::core::lease::LeaderRead;
use matriarch::model::{LeaseId, Moment, Term};

#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) ends_at: Moment,
    pub(super) ttl: Duration,
    /// The member that asked for it.
    pub(super) owner: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Etcd {
    pub(super) raft_term: u64,
    /// A deposed leader of etcd still answers keepalives, in the raft term before.
    pub(super) deposed: bool,
    /// The leases that live.
    pub(super) leases: BTreeMap<LeaseId, Lease>,
    /// The leader key.
    pub(super) leader: Option<(LeaseId, Term)>,
    revision: i64,
}

impl Default for Etcd {
    fn default() -> Etcd {
        Etcd { raft_term: 2, deposed: false, leases: BTreeMap::new(), leader: None, revision: 0 }
    }
}

/// etcd's clock may be fast by one in a hundred, as the drift allowance assumes.
fn end(now: Moment, ttl: Duration) -> Moment {
    now + (ttl - ttl / 100)
}

impl Etcd {
    pub(super) fn grant(&mut self, owner: usize, now: Moment, ttl: Duration) -> LeaseId {
        self.revision += 1;
        let lease = LeaseId(self.revision);
        self.leases.insert(lease, Lease { ends_at: end(now, ttl), ttl, owner });
        lease
    }

    /// The TTL of a lease that lives, and now lives on.
    pub(super) fn keep_alive(&mut self, now: Moment, lease: LeaseId) -> Option<Duration> {
        let lease = self.leases.get_mut(&lease)?;
        lease.ends_at = end(now, lease.ttl);
        Some(lease.ttl)
    }

    /// Another member of etcd becomes its leader: every lease gets its whole TTL again.
    pub(super) fn elect(&mut self, now: Moment) {
        self.raft_term += 1;
        self.deposed = true;
        for lease in self.leases.values_mut() {
            lease.ends_at = end(now, lease.ttl);
        }
    }

    pub(super) fn expire(&mut self, lease: LeaseId) {
        self.leases.remove(&lease);
        self.leader = self.leader.filter(|(owner, _)| *owner != lease);
    }

    /// Whose lease the leader key hangs on.
    pub(super) fn owner(&self) -> Option<usize> {
        let (lease, _) = self.leader?;
        self.leases.get(&lease).map(|lease| lease.owner)
    }

    pub(super) fn read(&self) -> LeaderRead {
        LeaderRead { raft_term: self.raft_term, leader: self.leader }
    }

    /// The leader key under `lease`, if it lives.
    pub(super) fn put_leader(&mut self, lease: LeaseId) {
        if self.leases.contains_key(&lease) {
            self.revision += 1;
            self.leader = Some((lease, Term(self.revision)));
        }
    }
}
