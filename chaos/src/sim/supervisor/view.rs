//! Following the cluster: `src/etcd/view.rs`. Lists, watches, and lists again when something is odd.

use std::collections::BTreeMap;
use std::time::Duration;

use matriarch::core::store::StoredKey;
use matriarch::model::{ClusterView, Moment, View};

use super::Agent;
use crate::sim::channel::Channel;
use crate::sim::etcd::store::Event;
use crate::sim::etcd::{Answer, Body, Op, Refusal};
use crate::sim::mutation::Mutation;
use crate::sim::network::Host;
use crate::sim::signal::Signal;
use crate::sim::world::Sim;

const HEDGE_AFTER: Duration = Duration::from_millis(300);
const LIST_WITHIN: Duration = Duration::from_secs(3);
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

struct Listed {
    keys: BTreeMap<String, StoredKey>,
    revision: i64,
    /// Without the events of the watch since.
    listed: i64,
    asked_at: Moment,
}

/// What a watch tells.
enum Told {
    Events(Vec<Event>),
    Cancelled,
}

impl Agent {
    pub(crate) async fn follow_for_ever(self) {
        let mut backoff = BACKOFF.0;
        loop {
            let began_at = self.sim.now();
            let _ = self.follow().await;
            if began_at + BACKOFF.1 < self.sim.now() {
                backoff = BACKOFF.0;
            }
            self.sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF.1);
        }
    }

    async fn list(&self) -> Result<Listed, Refusal> {
        let asked_at = self.now();
        let Answer { revision, body: Body::Keys(keys), .. } =
            self.shared.etcd.hedged(HEDGE_AFTER, LIST_WITHIN, Op::List).await?
        else {
            return Err(Refusal::Unknown("not an answer to a list"));
        };
        Ok(Listed { keys, revision, listed: revision, asked_at })
    }

    async fn follow(&self) -> Result<(), Refusal> {
        let mut listed = self.list().await?;
        self.show(&listed);
        let bell = self.shared.view_bell.clone();
        let mut watch = self.open_watch(listed.revision, &bell);
        let relist = self.sim.world().options.mutation != Some(Mutation::NeverRelist);
        loop {
            let relist_at = listed.asked_at + self.settings().loop_wait;
            let relist_at = self.sim.when(self.member(), relist_at);
            match watch.take() {
                Some(Told::Events(events)) => {
                    let last = events.last().map_or(0, |event| event.revision);
                    for Event { path, now, .. } in
                        events.into_iter().filter(|event| listed.revision < event.revision)
                    {
                        match now {
                            Some(key) => drop(listed.keys.insert(path, key)),
                            None => drop(listed.keys.remove(&path)),
                        }
                    }
                    listed.revision = listed.revision.max(last);
                    self.show(&listed);
                }
                Some(Told::Cancelled) => return Ok(()),
                None if watch.is_closed() => return Err(Refusal::Unknown("the watch broke")),
                None if relist && (relist_at <= self.sim.now() || self.shared.look_again.get()) => {
                    self.shared.look_again.set(false);
                    let again = self.list().await?;
                    let missed = again.keys != listed.keys;
                    listed = again;
                    self.show(&listed);
                    if missed {
                        watch.close(&self.sim);
                        watch = self.open_watch(listed.revision, &bell);
                    }
                }
                None if relist => {
                    self.sim.exec.by(relist_at, bell.wait(&self.sim.exec)).await;
                }
                None => bell.wait(&self.sim.exec).await,
            }
        }
    }

    fn show(&self, listed: &Listed) {
        let Ok(cluster) = self.sim.world().keys.view(&listed.keys, listed.revision) else { return };
        let cluster = ClusterView { listed: listed.listed, ..cluster };
        let view = View { cluster, seen_at: listed.asked_at };
        let mut shown = self.shared.view.borrow_mut();
        let news = shown.as_ref().is_none_or(|shown| shown.cluster != view.cluster);
        *shown = Some(view);
        drop(shown);
        if news {
            self.shared.view_version.set(self.shared.view_version.get() + 1);
        }
        self.shared.bell.give(&self.sim.exec);
    }

    fn open_watch(&self, after: i64, bell: &Signal) -> Channel<Told> {
        let server = self.shared.etcd.ranked()[0];
        let from = Host::Etcd(server);
        let channel = Channel::open(&self.sim, from, self.host(), bell.clone());
        let (sim, told, to) = (self.sim.clone(), channel.clone(), self.host());
        self.sim.spawn_environment(async move { sim.serve_watch(server, to, after, told).await });
        channel
    }
}

impl Sim {
    /// A server tells what it hears of; one without a leader knows nothing new and after a while says so.
    async fn serve_watch(&self, server: usize, to: Host, after: i64, told: Channel<Told>) {
        let (deaf, broken) = {
            let world = self.world();
            (world.etcd.deaf_watches, world.etcd.broken_watches)
        };
        if !self.travel(to, Host::Etcd(server)).await {
            // It was never opened, and nobody knows: a relist finds out.
            return;
        }
        let pid = self.world().etcd.servers[server].pid;
        let mut at = after;
        let mut lost_for = 0;
        loop {
            if told.is_closed() {
                return;
            }
            if !self.exec.is_alive(pid) || broken != self.world().etcd.broken_watches {
                return told.close(self);
            }
            let (events, changed) = {
                let hears = self.hears_leader(server);
                lost_for = if hears { 0 } else { lost_for + 1 };
                let world = self.world();
                if after + 1 < world.etcd.store.compacted {
                    drop(world);
                    told.send(self, Told::Cancelled);
                    return;
                }
                let first = world.etcd.store.events.partition_point(|event| event.revision <= at);
                let events =
                    if hears && !deaf { world.etcd.store.events[first..].to_vec() } else { Vec::new() };
                (events, world.etcd.changed.clone())
            };
            if 5 < lost_for && !deaf {
                told.send(self, Told::Cancelled);
                return;
            }
            if let Some(last) = events.last() {
                at = last.revision;
                told.send(self, Told::Events(events));
            }
            self.exec.within(Duration::from_millis(600), changed.wait(&self.exec)).await;
        }
    }
}
