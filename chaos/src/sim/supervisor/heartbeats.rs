//! The leader's heartbeats, and the members that listen for them: `src/api/grpc` and `src/agent/hearing.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use matriarch::core::heartbeat::HeartbeatWatch;
use matriarch::model::{FailoverBy, Heartbeat, LeaderHearing, Lsn};

use super::Agent;
use crate::sim::channel::Channel;
use crate::sim::executor::NATURE;
use crate::sim::network::{Host, Resident};
use crate::sim::signal::Signal;
use crate::sim::world::Sim;

const BEAT_EVERY: Duration = Duration::from_millis(150);
/// A connection to a member whose answer to a ping takes longer is closed.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(1);

impl Agent {
    /// Sends heartbeats to all members while the lease is valid.
    pub(crate) async fn beat(self) {
        let mut streams = self.sim.world().options.streams_heartbeats.then(BTreeMap::new);
        for number in 1.. {
            self.sleep(BEAT_EVERY).await;
            let term = self.shared.lease.borrow().leading_at(self.now());
            self.note_hearing();
            let Some(term) = term else { continue };
            let members = self.sim.world().machines.len();
            let beat =
                Heartbeat { term, number, flushed: Lsn(0), proof_age: Duration::ZERO, sync_revision: 0 };
            let others = (0..members).filter(|to| *to != self.member());
            match &mut streams {
                Some(streams) => others.for_each(|to| self.stream(streams, to, beat)),
                None => others.for_each(|to| self.send(to, beat)),
            }
        }
    }

    /// Sends it behind those that are under way to that member.
    fn stream(&self, streams: &mut BTreeMap<usize, Channel<Heartbeat>>, to: usize, beat: Heartbeat) {
        let opened = streams.get(&to).filter(|stream| !stream.is_closed()).cloned();
        let stream = opened.unwrap_or_else(|| {
            let stream = Channel::open(&self.sim, self.host(), Host::Member(to), Signal::default());
            let (arriving, sim) = (stream.clone(), self.sim.clone());
            self.sim.exec.spawn(NATURE, async move {
                while !arriving.is_closed() {
                    while let Some(beat) = arriving.take() {
                        deliver(&sim, to, beat);
                    }
                    arriving.bell.wait(&sim.exec).await;
                }
            });
            stream
        });
        stream.send(&self.sim, beat);
        streams.insert(to, stream);
    }

    fn send(&self, to: usize, beat: Heartbeat) {
        let (sim, from, sender) = (self.sim.clone(), self.host(), self.clone());
        let term = beat.term;
        // Elsewhere it would decide nothing.
        let is_acknowledged = self.settings().failover == FailoverBy::Recruit;
        let Resident::Member(to) = sim.world().network.at_address_of(to) else { return };
        self.sim.exec.spawn(NATURE, async move {
            if !sim.travel(from, Host::Member(to)).await {
                return;
            }
            deliver(&sim, to, beat);
            if is_acknowledged && sim.travel(Host::Member(to), from).await {
                sender.shared.acknowledged.set(Some((term, sender.now())));
            }
        });
    }

    fn hear(&self, beat: &Heartbeat) {
        self.shared.hearing.borrow_mut().heard(beat, self.now());
        self.note_hearing();
    }

    /// Polls, so that silence is noticed.
    pub(crate) async fn listen(self) {
        let me = self.sim.world().machines[self.member()].name.clone();
        loop {
            {
                let view = self.shared.view.borrow();
                let leader = view.as_ref().and_then(|view| view.cluster.leader.as_ref());
                let other = leader.filter(|leader| leader.name != me);
                let mut hearing = self.shared.hearing.borrow_mut();
                hearing.listen_to(other.map(|leader| leader.term));
                hearing.poll(self.now());
            }
            self.note_hearing();
            self.sleep(HeartbeatWatch::POLL_EVERY).await;
        }
    }

    fn note_hearing(&self) {
        let now = self.now();
        let leading = self.shared.lease.borrow().leading_at(now);
        let is_lost = |(term, at)| leading == Some(term) && at + ACKNOWLEDGED_WITHIN < now;
        let hearing = match self.shared.hearing.borrow().hearing(now) {
            LeaderHearing::Unknown if self.shared.acknowledged.get().is_some_and(is_lost) => {
                LeaderHearing::Unheard
            }
            heard => heard,
        };
        if self.shared.heard.replace(hearing) != hearing {
            self.shared.bell.give(&self.sim.exec);
        }
    }
}

/// It has arrived at that member.
fn deliver(sim: &Sim, to: usize, beat: Heartbeat) {
    let peer = sim.world().machines[to].supervisor.clone();
    let Some(peer) = peer.filter(|peer| sim.exec.is_alive(peer.pid)) else { return };
    let listener = Agent { sim: sim.clone(), shared: peer.shared };
    sim.exec.spawn(peer.pid, async move { listener.hear(&beat) });
}
