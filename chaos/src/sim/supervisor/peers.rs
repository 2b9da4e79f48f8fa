//! Asking other members over REST, and being asked: `src/peer`, `src/api` and the loop's orders.

use std::time::Duration;

use matriarch::model::{Lsn, MemberName, Moment, PeerAnswer, Role, Standby, Tags};

use super::{Agent, Event, Status, Supervisor};
use crate::sim::executor::NATURE;
use crate::sim::network::Host;
use crate::sim::signal::Reply;
use crate::sim::world::index_of;

const ASK_WITHIN: Duration = Duration::from_secs(1);
/// A loop that does not answer in time is judged by what it last said.
const LOOK_WITHIN: Duration = Duration::from_millis(800);

/// The answer of a member that gave none.
fn unreachable(asked_at: Moment) -> PeerAnswer {
    PeerAnswer {
        asked_at,
        reachable: false,
        in_recovery: false,
        role: Role::Uninitialized,
        lsn: Lsn(0),
        exact: false,
        receives: false,
        replayed: Lsn(0),
        timeline: None,
        tags: Tags::default(),
        watchdog_failed: false,
        yields: false,
        trouble: Some("no answer".to_owned()),
    }
}

/// What the body of `/patroni` says.
fn read(asked_at: Moment, status: &Status) -> PeerAnswer {
    let Some(sql) = status.postgres.answering() else { return unreachable(asked_at) };
    let (in_recovery, lsn, replayed) = match &sql.standby {
        Standby::No => (false, sql.flushed, Lsn(0)),
        Standby::Yes { received, replayed, .. } => (true, (*received).max(*replayed), *replayed),
    };
    let role = if in_recovery { Role::Replica } else { Role::Primary };
    let answer = unreachable(asked_at);
    PeerAnswer {
        reachable: true,
        in_recovery,
        role,
        lsn,
        exact: sql.is_exact(),
        receives: sql.receives(),
        replayed,
        timeline: sql.timeline,
        yields: status.yields,
        trouble: None,
        ..answer
    }
}

impl Agent {
    pub(crate) fn ask_peers(&self, who: Vec<(MemberName, String)>) {
        for (name, _) in who {
            let agent = self.clone();
            self.spawn(async move {
                let asked_at = agent.now();
                let asked = index_of(name.as_str()).map(|to| agent.ask_peer(to));
                let status = match asked {
                    Some(reply) => agent.sim.exec.within(ASK_WITHIN, reply.wait(&agent.sim.exec)).await,
                    None => None,
                };
                let answer =
                    status.flatten().map_or_else(|| unreachable(asked_at), |status| read(asked_at, &status));
                agent.event(Event::PeerAnswered(name, answer));
            });
        }
    }

    fn ask_peer(&self, to: usize) -> Reply<Option<Status>> {
        let (reply, sim, from, to_host) = (Reply::new(), self.sim.clone(), self.host(), Host::Member(to));
        let filled = reply.clone();
        self.sim.nature(async move {
            if !sim.travel(from, to_host).await {
                return;
            }
            let peer = sim.world().machines[to].supervisor.clone();
            let back = {
                let sim = sim.clone();
                move |status| async move {
                    if sim.travel(to_host, from).await {
                        filled.fill(&sim.exec, status);
                    }
                }
            };
            let Some(Supervisor { pid, shared }) = peer.filter(|peer| sim.exec.is_alive(peer.pid)) else {
                return back(None).await;
            };
            let serving = Agent { sim: sim.clone(), shared };
            sim.exec.spawn(pid, async move {
                serving.look_anew().await;
                let status = serving.shared.status.borrow().clone();
                serving.sim.exec.spawn(NATURE, back(Some(status)));
            });
        });
        reply
    }

    /// `Order::Look`: the loop looks into Postgres before the answer is given.
    async fn look_anew(&self) {
        let reply = Reply::new();
        self.shared.lookers.borrow_mut().push(reply.clone());
        self.shared.bell.give(&self.sim.exec);
        self.sim.exec.within(LOOK_WITHIN, reply.wait(&self.sim.exec)).await;
    }
}
