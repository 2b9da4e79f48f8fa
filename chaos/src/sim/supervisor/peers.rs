//! Asking other members over REST, and being asked: `src/peer`, `src/api` and the loop's orders.

use std::time::Duration;

use matriarch::model::{Lsn, MemberName, Moment, PeerAnswer, PeerIdentity, Role, SessionId, Standby};

use super::{Agent, MemberEvent, Status, Supervisor};
use crate::sim::executor::NATURE;
use crate::sim::network::{Host, Resident};
use crate::sim::signal::Reply;
use crate::sim::world::{index_of, name_of};

/// The cluster's name.
pub(crate) const SCOPE: &str = "herd";
const ASK_WITHIN: Duration = Duration::from_secs(1);
/// A loop that does not answer in time is judged by what it last said.
const LOOK_WITHIN: Duration = Duration::from_millis(800);

/// What a member answers.
struct Answered {
    status: Status,
    identity: PeerIdentity,
    /// It has looked since it was asked.
    is_fresh: bool,
}

/// What the body of `/patroni` says.
fn read(asked_at: Moment, Answered { status, identity, is_fresh }: &Answered) -> PeerAnswer {
    let answer = PeerAnswer::unreachable(asked_at, "its Postgres does not answer".to_owned());
    let no_data = status.postgres.data.holds_nothing();
    let answer = PeerAnswer { identity: identity.clone(), no_data, store: status.store, ..answer };
    let Some(sql) = status.postgres.answering() else { return answer };
    let (in_recovery, lsn, replayed) = match &sql.standby {
        Standby::No => (false, sql.flushed, Lsn(0)),
        Standby::Yes { received, replayed, .. } => (true, (*received).max(*replayed), *replayed),
    };
    let role = if in_recovery { Role::Replica } else { Role::Primary };
    PeerAnswer {
        reachable: true,
        in_recovery,
        role,
        lsn,
        exact: sql.is_exact() && *is_fresh,
        receives: sql.receives(),
        replayed,
        timeline: sql.timeline,
        yields: status.yields,
        pod_ends: status.pod_ends,
        trouble: None,
        ..answer
    }
}

/// A member of another cluster, with the name of the one that is asked.
fn stranger(asked: usize) -> PeerIdentity {
    PeerIdentity {
        scope: Some("another".to_owned()),
        name: Some(name_of(asked)),
        system_id: Some(1),
        session: Some(SessionId(u64::MAX)),
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
                let silent = || PeerAnswer::unreachable(asked_at, "no answer".to_owned());
                let answer = status.flatten().map_or_else(silent, |status| read(asked_at, &status));
                agent.event(MemberEvent::PeerAnswered(name, answer));
            });
        }
    }

    /// Asks at the address that member `to` registered, where another one may answer by now.
    fn ask_peer(&self, to: usize) -> Reply<Option<Answered>> {
        let resident = self.sim.world().network.at_address_of(to);
        let (to, stranger) = match resident {
            Resident::Member(member) => (member, None),
            Resident::Stranger => (self.member(), Some(stranger(to))),
        };
        let (reply, sim, from, to_host) = (Reply::new(), self.sim.clone(), self.host(), Host::Member(to));
        let filled = reply.clone();
        self.sim.spawn_environment(async move {
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
                let is_fresh = serving.look_anew().await;
                let status = serving.shared.status.borrow().clone();
                let identity = stranger.unwrap_or_else(|| serving.identity());
                serving.sim.exec.spawn(NATURE, back(Some(Answered { status, identity, is_fresh })));
            });
        });
        reply
    }

    /// The number of this process.
    pub(crate) fn session(&self) -> SessionId {
        SessionId(self.shared.pid.0 as u64)
    }

    /// Who answers, as the body of `/patroni` says.
    fn identity(&self) -> PeerIdentity {
        let system_id = self.shared.status.borrow().postgres.control().map(|control| control.system_id);
        let view = self.shared.view.borrow();
        PeerIdentity {
            scope: Some(SCOPE.to_owned()),
            name: Some(self.sim.world().machines[self.member()].name.clone()),
            system_id: system_id.or_else(|| view.as_ref()?.cluster.system_id()),
            session: Some(self.session()),
        }
    }

    /// `Order::Look`: the loop looks into Postgres before the answer is given. False: it has not in time.
    async fn look_anew(&self) -> bool {
        let reply = Reply::new();
        self.shared.lookers.borrow_mut().push(reply.clone());
        self.shared.bell.give(&self.sim.exec);
        self.sim.exec.within(LOOK_WITHIN, reply.wait(&self.sim.exec)).await.is_some()
    }
}
