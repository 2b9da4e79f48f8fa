//! Asking other members over REST, and being asked: `src/peer`, `src/api` and the loop's orders.

use std::collections::BTreeSet;
use std::time::Duration;

use matriarch::model::{
    Ask, FailsafeMembers, FailsafeQuestion, Lsn, MemberName, Moment, PeerAnswer, PeerIdentity, Role,
    SessionId, Standby,
};

use super::{Agent, MemberEvent, Status, Supervisor};
use crate::invariant;
use crate::sim::executor::NATURE;
use crate::sim::mutation::Mutation;
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
        promised: status.promised,
        suspicion: status.suspicion,
        recruited: status.recruited,
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

    /// Who of them lets me lead on without etcd for one more `ttl`; the others are asked when `first` do.
    pub(crate) async fn ask_failsafe(
        &self,
        members: &FailsafeMembers,
        first: &BTreeSet<MemberName>,
        ttl: Duration,
        within: Duration,
    ) -> BTreeSet<MemberName> {
        invariant::asks(&self.sim, self.member(), members);
        let (first, others): (Vec<_>, Vec<_>) =
            members.keys().cloned().partition(|name| first.contains(name));
        let mut promised = self.ask_all(&first, ttl, within).await;
        if promised.len() == first.len() {
            promised.extend(self.ask_all(&others, ttl, within).await);
        }
        promised
    }

    async fn ask_all(&self, members: &[MemberName], ttl: Duration, within: Duration) -> BTreeSet<MemberName> {
        let until = self.sim.now() + within;
        let leader = self.sim.world().machines[self.member()].name.clone();
        let slots = self.shared.failsafe.borrow().slots.clone();
        let ask = |name: &MemberName| {
            let asked = (self.mutation() != Some(Mutation::AnybodyPromises))
                .then(|| (SCOPE.to_owned(), name.clone()));
            let ttl_ms = Some(ttl.as_millis() as u64);
            let (leader, slots) = (leader.clone(), slots.clone());
            let conn_url = format!("postgres://{leader}:5432/postgres");
            let question = FailsafeQuestion { leader, conn_url, asked, ttl_ms, slots };
            Some((name.clone(), self.post_failsafe(index_of(name.as_str())?, question)))
        };
        let asked: Vec<(MemberName, Reply<()>)> = members.iter().filter_map(ask).collect();
        let mut promised = BTreeSet::new();
        for (name, reply) in asked {
            if self.sim.exec.by(until, reply.wait(&self.sim.exec)).await.is_some() {
                promised.insert(name);
            }
        }
        promised
    }

    /// Filled when the member at the address of `to` has promised, and the answer has come back.
    fn post_failsafe(&self, to: usize, question: FailsafeQuestion) -> Reply<()> {
        let (sim, from, reply) = (self.sim.clone(), self.host(), Reply::new());
        let resident = self.sim.world().network.at_address_of(to);
        let (me, filled) = (self.member(), reply.clone());
        let ttl = Duration::from_millis(question.ttl_ms.unwrap_or_default());
        self.sim.spawn_environment(async move {
            let Resident::Member(to) = resident else {
                // A member of another cluster promises only what it was not asked.
                if question.asked.is_none() {
                    filled.fill(&sim.exec, ());
                }
                return;
            };
            if !sim.travel(from, Host::Member(to)).await {
                return;
            }
            let peer = sim.world().machines[to].supervisor.clone();
            let Some(Supervisor { shared, .. }) = peer.filter(|peer| sim.exec.is_alive(peer.pid)) else {
                return;
            };
            let answer = Reply::new();
            shared.requests.borrow_mut().push((Ask::Failsafe(question), answer.clone()));
            shared.bell.give(&sim.exec);
            if answer.wait(&sim.exec).await == matriarch::model::Reply::Promised {
                let by = sim.world().machines[to].name.clone();
                invariant::promised(&sim, me, &by, ttl);
                if sim.travel(Host::Member(to), from).await {
                    filled.fill(&sim.exec, ());
                }
            }
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
