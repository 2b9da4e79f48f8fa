//! Keeping the lease: `src/etcd/lease.rs` around the real `Renewal`.

use std::time::Duration;

use matriarch::etcd::{KeepAliveAnswer, LeaderRead, Renewal, Verdict};
use matriarch::model::{Leading, LeaseId, LeaseTiming, Term};

use super::Agent;
use crate::invariant;
use crate::sim::etcd::client::Client;
use crate::sim::etcd::{Answer, Body, Op, Refusal};
use crate::sim::mutation::Mutation;

const RETRY_AFTER: Duration = Duration::from_millis(200);

/// The task's state.
pub(crate) struct Keeping {
    agent: Agent,
    /// Connections of its own.
    etcd: Client,
    renewal: Renewal,
    ttl: Duration,
}

impl Keeping {
    pub(crate) fn new(agent: &Agent, resumed: Option<LeaseId>) -> Keeping {
        let ttl = agent.sim.world().options.settings.ttl;
        let mut renewal = Renewal::default();
        if let Some(lease) = resumed {
            renewal.granted(lease, ttl);
        }
        let etcd = Client::new(&agent.sim, agent.host());
        if agent.sim.world().options.mutation != Some(Mutation::ForgetFormerLease) {
            *agent.shared.lease.borrow_mut() = renewal.facts().clone();
        }
        Keeping { agent: agent.clone(), etcd, renewal, ttl }
    }

    pub(crate) async fn run(mut self) {
        loop {
            let began_at = self.agent.now();
            let withheld = self.agent.shared.liveness.borrow().withheld(began_at);
            let ended = match withheld {
                None => self.round().await.map_err(|refusal| format!("{refusal:?}")),
                Some(why) => Err(format!("not renewed: {why}")),
            };
            let next_at = match ended {
                Ok(()) => began_at + LeaseTiming { ttl: self.ttl }.renew_every(),
                Err(trouble) => {
                    self.renewal.trouble(trouble);
                    self.agent.now() + RETRY_AFTER
                }
            };
            self.publish();
            let next_at = self.agent.sim.when(self.agent.member(), next_at);
            while !self.agent.shared.renew_now.replace(false) {
                let wait = self.agent.shared.lease_bell.wait(&self.agent.sim.exec);
                if self.agent.sim.exec.by(next_at, wait).await.is_none() {
                    break;
                }
            }
        }
    }

    async fn round(&mut self) -> Result<(), Refusal> {
        for _ in 0..2 {
            let lease = match self.renewal.facts().lease {
                Some(lease) => lease,
                None => self.grant().await?,
            };
            match self.renew(lease).await {
                Err(Refusal::LeaseNotFound) => {
                    let read = self.read_leader().await?;
                    if !self.renewal.gone(&read) {
                        return Err(Refusal::Unknown("the leader key hangs on a lease not found"));
                    }
                    self.agent.note(|| "the lease is gone".to_owned());
                    self.publish();
                }
                Ok(Verdict::Confirmed) => {
                    self.agent.step().await;
                    self.agent.renewed(self.renewal.facts());
                    invariant::renewed(&self.agent.sim, self.agent.member(), self.renewal.facts());
                    return Ok(());
                }
                Ok(Verdict::TermsDiffer | Verdict::OtherLease) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Err(Refusal::Unknown("keepalive and read come from different raft terms"))
    }

    async fn renew(&mut self, lease: LeaseId) -> Result<Verdict, Refusal> {
        let mutation = self.agent.sim.world().options.mutation;
        let Answer { raft_term, body, sent_at, .. } = self.ask(Op::KeepAlive(lease.0)).await?;
        let sent_at = match mutation {
            Some(Mutation::CountFromAnswer) => self.agent.now(),
            Some(Mutation::DeadlineTooLate) => sent_at + self.ttl * 3,
            _sound => sent_at,
        };
        let ttl = match body {
            Body::Ttl(ttl) if ttl.is_zero() => return Err(Refusal::LeaseNotFound),
            Body::Ttl(ttl) => ttl,
            _other => return Err(Refusal::Unknown("not an answer to a keepalive")),
        };
        let answer = KeepAliveAnswer { lease, sent_at, ttl, raft_term };
        let known = match self.renewal.facts().leading {
            Leading::Yes(term) => Some((lease, term)),
            Leading::No | Leading::Unknown => None,
        };
        if mutation == Some(Mutation::NoConfirmedRead) && known.is_some() {
            return Ok(self.renewal.confirm(&answer, &LeaderRead { raft_term, leader: known }));
        }
        let read = self.read_leader().await?;
        Ok(self.renewal.confirm(&answer, &read))
    }

    async fn read_leader(&self) -> Result<LeaderRead, Refusal> {
        let leader = self.agent.sim.world().keys.path("leader");
        let Answer { raft_term, body, .. } = self.ask(Op::Get(leader)).await?;
        let Body::Key(key) = body else { return Err(Refusal::Unknown("not an answer to a read")) };
        Ok(LeaderRead { raft_term, leader: key.map(|key| (LeaseId(key.lease), Term(key.mod_revision))) })
    }

    async fn grant(&mut self) -> Result<LeaseId, Refusal> {
        let Answer { body: Body::Lease(lease), .. } = self.ask(Op::Grant(self.ttl)).await? else {
            return Err(Refusal::Unknown("not an answer to a grant"));
        };
        self.renewal.granted(LeaseId(lease), self.ttl);
        self.publish();
        Ok(LeaseId(lease))
    }

    async fn ask(&self, op: Op) -> Result<Answer, Refusal> {
        let timing = LeaseTiming { ttl: self.ttl };
        self.etcd.hedged(timing.hedge_after(), timing.try_timeout(), op).await
    }

    fn publish(&self) {
        let facts = self.renewal.facts();
        let news = *self.agent.shared.lease.borrow() != *facts;
        if news {
            *self.agent.shared.lease.borrow_mut() = facts.clone();
            self.agent.shared.bell.give(&self.agent.sim.exec);
        }
    }
}

impl Agent {
    pub(crate) fn renew_now(&self) {
        self.shared.renew_now.set(true);
        self.shared.lease_bell.give(&self.sim.exec);
    }
}
