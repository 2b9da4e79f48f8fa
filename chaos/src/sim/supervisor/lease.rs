//! Keeping the lease: `src/etcd/lease.rs` around the real `Renewal`.

use std::time::Duration;

use matriarch::etcd::{KeepAliveAnswer, LeaderRead, Renewal, RenewalVerdict};
use matriarch::model::{Leading, LeaseId, LeaseTiming, Moment, Term};

use super::{Agent, write};
use crate::invariant;
use crate::sim::etcd::client::Client;
use crate::sim::etcd::{Answer, Body, Op, Refusal};
use crate::sim::mutation::Mutation;

const RETRY_AFTER: Duration = Duration::from_millis(200);
const CHANGE_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The task's state.
pub(crate) struct Keeping {
    agent: Agent,
    /// Connections of its own.
    etcd: Client,
    renewal: Renewal,
    granted_ttl: Duration,
    /// The TTL of a lease of a previous incarnation is not known before its first renewal.
    resumed: bool,
    /// A lease that leadership may have moved to already.
    moving_to: Option<(LeaseId, Duration)>,
    /// No change of the TTL begins before.
    change_at: Moment,
}

impl Keeping {
    pub(crate) fn new(agent: &Agent, resumed: Option<LeaseId>) -> Keeping {
        let ttl = agent.settings().ttl;
        agent.shared.ttl.set(ttl);
        let mut renewal = Renewal::default();
        if let Some(lease) = resumed {
            renewal.granted(lease, ttl);
        }
        let etcd = Client::new(&agent.sim, agent.host());
        if agent.sim.world().options.mutation != Some(Mutation::ForgetFormerLease) {
            *agent.shared.lease.borrow_mut() = renewal.facts().clone();
        }
        Keeping {
            agent: agent.clone(),
            etcd,
            renewal,
            granted_ttl: ttl,
            resumed: resumed.is_some(),
            moving_to: None,
            change_at: Moment::default(),
        }
    }

    pub(crate) async fn run(mut self) {
        loop {
            let (began_at, ttl) = (self.agent.now(), self.agent.shared.ttl.get());
            let withheld = self.agent.shared.liveness.borrow().withheld(began_at);
            let ended = match withheld {
                None => self.round(ttl).await.map_err(|refusal| format!("{refusal:?}")),
                Some(why) => Err(format!("not renewed: {why}")),
            };
            let next_at = match ended {
                Ok(()) => began_at + LeaseTiming { ttl: ttl.min(self.granted_ttl) }.renew_every(),
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

    async fn round(&mut self, ttl: Duration) -> Result<(), Refusal> {
        let confirmed = self.renewal.facts().deadline.is_some();
        let wanted = confirmed && ttl != self.granted_ttl && self.change_at <= self.agent.now();
        if self.moving_to.is_some() || wanted {
            match self.change_ttl(ttl).await {
                Err(refusal) if self.moving_to.is_none() || refusal == Refusal::NoSpace => {
                    self.moving_to = None;
                    self.renewal.stays();
                    self.change_at = self.agent.now() + CHANGE_AGAIN_AFTER;
                    self.agent.log(&format!("the ttl stays as it was: {refusal:?}")).await;
                }
                changed => changed?,
            }
        }
        for _ in 0..2 {
            let lease = match self.renewal.facts().lease {
                Some(lease) => lease,
                None => self.grant(ttl).await?,
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
                Ok(RenewalVerdict::Confirmed) => {
                    if std::mem::take(&mut self.resumed) {
                        self.granted_ttl = self.renewal.facts().ttl;
                    }
                    self.agent.step().await;
                    self.agent.renewed(self.renewal.facts());
                    invariant::renewed(&self.agent.sim, self.agent.member(), self.renewal.facts());
                    return Ok(());
                }
                Ok(RenewalVerdict::TermsDiffer | RenewalVerdict::OtherLease) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Err(Refusal::Unknown("keepalive and read come from different raft terms"))
    }

    async fn renew(&mut self, lease: LeaseId) -> Result<RenewalVerdict, Refusal> {
        let mutation = self.agent.sim.world().options.mutation;
        let answer = self.keep_alive(lease, self.granted_ttl).await?;
        let raft_term = answer.raft_term;
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

    async fn keep_alive(&self, lease: LeaseId, ttl: Duration) -> Result<KeepAliveAnswer, Refusal> {
        let mutation = self.agent.sim.world().options.mutation;
        let Answer { raft_term, body, sent_at, .. } = self.ask(ttl, Op::KeepAlive(lease.0)).await?;
        let sent_at = match mutation {
            Some(Mutation::CountFromAnswer) => self.agent.now(),
            Some(Mutation::DeadlineTooLate) => sent_at + ttl * 3,
            _sound => sent_at,
        };
        let ttl = match body {
            Body::Ttl(ttl) if ttl.is_zero() => return Err(Refusal::LeaseNotFound),
            Body::Ttl(ttl) => ttl,
            _other => return Err(Refusal::Unknown("not an answer to a keepalive")),
        };
        Ok(KeepAliveAnswer { lease, sent_at, ttl, raft_term })
    }

    async fn read_leader(&self) -> Result<LeaderRead, Refusal> {
        let leader = self.agent.sim.world().keys.path("leader");
        let Answer { raft_term, body, .. } = self.ask(self.granted_ttl, Op::Get(leader)).await?;
        let Body::Key(key) = body else { return Err(Refusal::Unknown("not an answer to a read")) };
        Ok(LeaderRead { raft_term, leader: key.map(|key| (LeaseId(key.lease), Term(key.mod_revision))) })
    }

    async fn grant(&mut self, ttl: Duration) -> Result<LeaseId, Refusal> {
        let lease = self.ask_lease(ttl).await?;
        self.renewal.granted(lease, ttl);
        (self.granted_ttl, self.resumed) = (ttl, false);
        self.publish();
        Ok(lease)
    }

    async fn ask_lease(&self, ttl: Duration) -> Result<LeaseId, Refusal> {
        match self.ask(ttl, Op::Grant(ttl)).await?.body {
            Body::Lease(lease) => Ok(LeaseId(lease)),
            _other => Err(Refusal::Unknown("not an answer to a grant")),
        }
    }

    async fn change_ttl(&mut self, ttl: Duration) -> Result<(), Refusal> {
        let (lease, ttl) = match self.moving_to {
            Some(moving) => moving,
            None => {
                let lease = self.ask_lease(ttl).await?;
                self.prepare_move(lease, ttl).await?;
                self.moving_to = Some((lease, ttl));
                (lease, ttl)
            }
        };
        let read = self.read_leader().await?;
        let old = self.renewal.facts().lease;
        let moved = match read.leader {
            Some((owner, term)) if owner == lease => Ok(Some(term)),
            Some((owner, term)) if Some(owner) == old => self.move_leadership(term, owner, lease).await,
            Some(_) | None => Ok(None),
        };
        if moved == Err(Refusal::LeaseNotFound) {
            self.moving_to = None;
        }
        let term = moved?;
        self.agent.note(|| format!("the ttl is {ttl:?} now, on lease {lease} in term {term:?}"));
        self.renewal.moved(lease, term);
        if term.is_some() {
            invariant::moved(&self.agent.sim, self.agent.member(), lease);
        }
        self.moving_to = None;
        self.granted_ttl = ttl;
        self.publish();
        Ok(())
    }

    async fn prepare_move(&mut self, lease: LeaseId, ttl: Duration) -> Result<(), Refusal> {
        if self.agent.sim.world().options.mutation == Some(Mutation::TtlJump) {
            return Ok(());
        }
        let answer = self.keep_alive(lease, ttl).await?;
        let read = self.read_leader().await?;
        if !self.renewal.moving(&answer, &read) {
            return Err(Refusal::Unknown("keepalive and read come from different raft terms"));
        }
        self.publish();
        match self.agent.holds_deadline(self.renewal.facts()).await {
            true => Ok(()),
            false => Err(Refusal::Unknown("the guard has not confirmed the other deadline")),
        }
    }

    /// The new term, if the key is on the lease `to` now.
    async fn move_leadership(&self, term: Term, from: LeaseId, to: LeaseId) -> Result<Option<Term>, Refusal> {
        let op = Op::Txn(self.agent.keys().move_leadership((term, from), to));
        match self.etcd.hedged(write::HEDGE_AFTER, write::WITHIN, op).await?.body {
            Body::Txn { now, .. } => {
                Ok(now.filter(|key| key.lease == to.0).map(|key| Term(key.mod_revision)))
            }
            _other => Err(Refusal::Unknown("not an answer to a transaction")),
        }
    }

    async fn ask(&self, ttl: Duration, op: Op) -> Result<Answer, Refusal> {
        let timing = LeaseTiming { ttl };
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
    /// From now on the lease should last that long.
    pub(crate) fn set_ttl(&self, ttl: Duration) {
        if self.shared.ttl.replace(ttl) != ttl {
            self.renew_now();
        }
    }

    pub(crate) fn renew_now(&self) {
        self.shared.renew_now.set(true);
        self.shared.lease_bell.give(&self.sim.exec);
    }
}
