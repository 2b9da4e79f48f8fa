//! etcd's store goes back in time or is emptied: all servers end, and come back with what a snapshot held.

use std::collections::BTreeMap;
use std::time::Duration;

use matriarch::core::list_watch::KeyEvent;

use crate::invariant;
use crate::sim::clock::At;
use crate::sim::etcd::SERVERS;
use crate::sim::etcd::store::{Lease, Store};
use crate::sim::postgres::disk::Data;
use crate::sim::world::{Machine, Sim};

impl Sim {
    /// A snapshot of any earlier moment is restored, mostly of when another led, or none. Not before the cluster was
    /// made; and only where every member has data, and has seen more than what comes back, and who led last: who was
    /// away since before cannot know.
    pub(super) fn store_fault(&self) {
        let Some((first, last)) = self.snapshots() else { return };
        let others_led = self.others_led();
        let sim = self.clone();
        let (revision, lasts) = self.exec.rng(|rng| {
            let revision = match rng.below(100) {
                0..=24 => 0,
                25..=49 => rng.between(first, last),
                _ => rng.pick(&others_led).unwrap_or(first).clamp(first, last),
            };
            // Leases may outlive it.
            let longest = rng.pick(&[1_500, 1_500, 20_000]).unwrap_or(1_500);
            (revision as i64, rng.millis(50, longest))
        });
        self.note(|| format!("fault: etcd goes away for {lasts:?} and comes back at revision {revision}"));
        self.end_etcd();
        self.spawn_environment(async move {
            sim.exec.sleep(lasts).await;
            let faulty = sim.now() < sim.world().faults_end;
            // A member may have lost its data meanwhile.
            if faulty && sim.snapshots().is_some_and(|(_, last)| revision.unsigned_abs() <= last) {
                sim.end_etcd();
                sim.restore(revision);
            }
            (0..SERVERS).for_each(|server| sim.restart_etcd_server(server));
        });
    }

    /// Revisions after which the leader key or the key `sync` has changed.
    fn others_led(&self) -> Vec<u64> {
        let world = self.world();
        let paths = ["leader", "sync"].map(|name| world.keys.path(name));
        let changes = world.etcd.store.events.iter().filter(|event| paths.contains(&event.path));
        changes.map(|event| (event.revision - 1).unsigned_abs()).collect()
    }

    fn end_etcd(&self) {
        let servers: Vec<_> = self.world().etcd.servers.iter().map(|server| server.pid).collect();
        servers.into_iter().for_each(|pid| self.exec.kill(pid));
        self.world().etcd.leader = None;
    }

    /// The revisions that may come back, from first to last.
    fn snapshots(&self) -> Option<(u64, u64)> {
        let newest = self.others_led().last().map_or(0, |before| before + 1);
        let world = self.world();
        let initialize = world.keys.path("initialize");
        let made = world.etcd.store.events.iter().find(|event| event.path == initialize && whole(event))?;
        let ready = |machine: &Machine| machine.disk.data == Data::Ready;
        let seen = world.machines.iter().map(|machine| machine.store_seen.revision).min()?;
        let range = (made.revision.unsigned_abs(), (seen - 1).max(0).unsigned_abs());
        let known = newest <= seen.unsigned_abs() && world.machines.iter().all(ready);
        Some(range).filter(|(first, last)| first <= last && known)
    }

    /// Every lease that a key hangs on has its whole TTL again.
    fn restore(&self, revision: i64) {
        invariant::store_lost(self, revision);
        let now = self.now();
        let mut world = self.world();
        let ttl = world.options.settings.ttl;
        let expires = world.lease_end(ttl, now);
        world.etcd.store.go_back(revision, ttl, expires);
        world.trace.note(now, || format!("etcd: the store is that of revision {revision}"));
        world.etcd.changed.give(&self.exec);
    }
}

/// The cluster is made: the key `initialize` holds its system identifier.
fn whole(event: &KeyEvent) -> bool {
    event.now.as_ref().is_some_and(|key| !key.value.is_empty())
}

impl Store {
    /// What it was in that revision. No identifier of a lease is given twice.
    fn go_back(&mut self, revision: i64, ttl: Duration, expires: At) {
        let until = self.events.partition_point(|event| event.revision <= revision);
        self.events.truncate(until);
        let mut keys = BTreeMap::new();
        for event in &self.events {
            match &event.now {
                Some(key) => drop(keys.insert(event.path.clone(), key.clone())),
                None => drop(keys.remove(&event.path)),
            }
        }
        self.leases.clear();
        let leases = keys.values().map(|key| key.lease).filter(|lease| *lease != 0);
        self.leases.extend(leases.map(|lease| (lease, Lease { ttl, expires })));
        (self.keys, self.revision) = (keys, revision);
        self.compacted = self.compacted.min(revision);
    }
}
