//! Keeping the lease: the driver of the product's own rounds, as `src/etcd/lease.rs` is.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use matriarch::core::lease::{
    KeepAliveAnswer, LeaderRead, LeaseAnswer, LeaseEffect, LeaseNext, LeaseNotice, LeaseQuestion,
    LeaseRounds, PromiseAnswers, PromiseRound,
};
use matriarch::core::store::{Cas, Txn};
use matriarch::model::{Leading, LeaseFacts, LeaseId, LeaseTiming, MemberName, Term};

use super::{Agent, write};
use crate::invariant;
use crate::sim::etcd::client::Client;
use crate::sim::etcd::{Answer, Body, Op, Refusal};
use crate::sim::mutation::Mutation;

/// The task's state.
pub(crate) struct Keeping {
    agent: Agent,
    /// Connections of its own.
    etcd: Client,
    rounds: Rc<RefCell<LeaseRounds>>,
    /// The renewal that the next read is about.
    renewed: Option<KeepAliveAnswer>,
}

impl Keeping {
    pub(crate) fn new(agent: &Agent, resumed: Option<LeaseId>) -> Keeping {
        let ttl = agent.settings().ttl;
        agent.shared.ttl.set(ttl);
        let rounds = LeaseRounds::new(agent.keys(), ttl, resumed);
        let etcd = Client::new(&agent.sim, agent.host());
        if agent.mutation() != Some(Mutation::ForgetFormerLease) {
            *agent.shared.lease.borrow_mut() = rounds.facts().clone();
        }
        Keeping { agent: agent.clone(), etcd, rounds: Rc::new(RefCell::new(rounds)), renewed: None }
    }

    pub(crate) async fn run(mut self) {
        let mut answer = self.woke();
        loop {
            let LeaseNext { effects, ask } = self.rounds.borrow_mut().next(answer, self.agent.now());
            for effect in effects {
                carry_out(&self.agent, &self.rounds, effect).await;
            }
            let answered = self.answer(ask).await;
            answer = answered.unwrap_or_else(|refusal| LeaseAnswer::Failed(write::reported(refusal)));
        }
    }

    fn facts(&self) -> LeaseFacts {
        self.rounds.borrow().facts().clone()
    }

    async fn answer(&mut self, ask: LeaseQuestion) -> Result<LeaseAnswer, Refusal> {
        Ok(match ask {
            LeaseQuestion::Wait { until } => {
                let until = self.agent.sim.when(self.agent.member(), until);
                while !self.agent.shared.renew_now.replace(false) {
                    let wait = self.agent.shared.lease_bell.wait(&self.agent.sim.exec);
                    if self.agent.sim.exec.by(until, wait).await.is_none() {
                        break;
                    }
                }
                self.woke()
            }
            LeaseQuestion::Grant { ttl } => LeaseAnswer::Granted(self.grant(ttl).await?),
            LeaseQuestion::KeepAlive { lease, timing } => {
                self.renewed = None;
                let answer = match self.is_unprepared(lease) {
                    true => self.assumed_renewal(lease, timing),
                    false => self.keep_alive(lease, timing).await?,
                };
                self.renewed = Some(answer);
                LeaseAnswer::Renewed(answer)
            }
            LeaseQuestion::ReadLeader { timing } => LeaseAnswer::Leader(match self.assumed_read() {
                Some(read) => read,
                None => self.read_leader(timing).await?,
            }),
            LeaseQuestion::AskGuard => {
                let skipped = self.agent.mutation() == Some(Mutation::TtlJump);
                LeaseAnswer::GuardHolds(skipped || self.agent.holds_deadline(&self.facts()).await)
            }
            LeaseQuestion::Commit(txn) => LeaseAnswer::Moved(self.commit(txn).await?),
        })
    }

    fn woke(&self) -> LeaseAnswer {
        let withheld = self.agent.shared.liveness.borrow().withheld(self.agent.now());
        LeaseAnswer::Woke { ttl: self.agent.shared.ttl.get(), withheld }
    }

    async fn keep_alive(&self, lease: LeaseId, timing: LeaseTiming) -> Result<KeepAliveAnswer, Refusal> {
        let Answer { raft_term, body, sent_at, .. } = self.ask(timing, Op::KeepAlive(lease.0)).await?;
        let sent_at = match self.agent.mutation() {
            Some(Mutation::CountFromAnswer) => self.agent.now(),
            Some(Mutation::DeadlineTooLate) => sent_at + timing.ttl * 3,
            _sound => sent_at,
        };
        let ttl = match body {
            Body::Ttl(ttl) if ttl.is_zero() => return Err(Refusal::LeaseNotFound),
            Body::Ttl(ttl) => ttl,
            _other => return Err(Refusal::Unknown("not an answer to a keepalive")),
        };
        Ok(KeepAliveAnswer { lease, sent_at, ttl, raft_term })
    }

    /// The lease that leadership moves to, where the move is not prepared.
    fn is_unprepared(&self, lease: LeaseId) -> bool {
        self.agent.mutation() == Some(Mutation::TtlJump) && self.facts().lease != Some(lease)
    }

    /// A renewal that shortens no deadline.
    fn assumed_renewal(&self, lease: LeaseId, timing: LeaseTiming) -> KeepAliveAnswer {
        KeepAliveAnswer { lease, sent_at: self.agent.now(), ttl: timing.ttl * 100, raft_term: 0 }
    }

    /// What a mutation takes the leader key for, without a read, after a renewal.
    fn assumed_read(&mut self) -> Option<LeaderRead> {
        let KeepAliveAnswer { lease, raft_term, .. } = self.renewed.take()?;
        let facts = self.facts();
        match (self.agent.mutation(), facts.leading) {
            (Some(Mutation::NoConfirmedRead), Leading::Yes(term)) if facts.lease == Some(lease) => {
                Some(LeaderRead { raft_term, leader: Some((lease, term)) })
            }
            _other => self.is_unprepared(lease).then_some(LeaderRead { raft_term, leader: None }),
        }
    }

    async fn read_leader(&self, timing: LeaseTiming) -> Result<LeaderRead, Refusal> {
        let leader = self.agent.path("leader");
        let Answer { raft_term, body, .. } = self.ask(timing, Op::Get(leader)).await?;
        let Body::Key(key) = body else { return Err(Refusal::Unknown("not an answer to a read")) };
        Ok(LeaderRead { raft_term, leader: key.map(|key| (LeaseId(key.lease), Term(key.mod_revision))) })
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, Refusal> {
        match self.ask(LeaseTiming { ttl }, Op::Grant(ttl)).await?.body {
            Body::Lease(lease) => Ok(LeaseId(lease)),
            _other => Err(Refusal::Unknown("not an answer to a grant")),
        }
    }

    async fn commit(&self, txn: Txn) -> Result<Cas, Refusal> {
        let answer = self.etcd.hedged(write::HEDGE_AFTER, write::WITHIN, Op::Txn(txn.clone())).await?;
        Ok(write::cas(&txn, answer))
    }

    async fn ask(&self, timing: LeaseTiming, op: Op) -> Result<Answer, Refusal> {
        self.etcd.hedged(timing.hedge_after(), timing.try_timeout(), op).await
    }
}

async fn carry_out(agent: &Agent, rounds: &Rc<RefCell<LeaseRounds>>, effect: LeaseEffect) {
    let facts = || rounds.borrow().facts().clone();
    match effect {
        LeaseEffect::Publish => publish(agent, &facts()),
        LeaseEffect::TellGuard => {
            agent.step().await;
            let facts = facts();
            agent.renewed(&facts);
            invariant::renewed(&agent.sim, agent.member(), &facts);
        }
        LeaseEffect::AskMembers { round, first, within } => ask_members(agent, rounds, round, first, within),
        LeaseEffect::Say(LeaseNotice::Gone(_)) => agent.note(|| "the lease is gone".to_owned()),
        LeaseEffect::Say(LeaseNotice::TtlChanged { lease, ttl, term }) => {
            agent.note(|| format!("the ttl is {ttl:?} now, on lease {lease} in term {term:?}"));
            if term.is_some() {
                invariant::moved(&agent.sim, agent.member(), lease);
            }
        }
        LeaseEffect::Say(LeaseNotice::TtlKept { error, .. }) => {
            agent.log(&format!("the ttl stays as it was: {error:?}")).await;
        }
    }
}

fn publish(agent: &Agent, facts: &LeaseFacts) {
    let news = *agent.shared.lease.borrow() != *facts;
    if news {
        *agent.shared.lease.borrow_mut() = facts.clone();
        agent.shared.bell.give(&agent.sim.exec);
    }
}

/// Asks them beside the rounds.
fn ask_members(
    agent: &Agent,
    rounds: &Rc<RefCell<LeaseRounds>>,
    mut round: PromiseRound,
    first: BTreeSet<MemberName>,
    within: Duration,
) {
    let Some(asked) = agent.shared.failsafe.borrow().members.clone() else { return };
    let (own, rounds) = (agent.clone(), rounds.clone());
    agent.spawn(async move {
        let mut promised = own.ask_failsafe(&asked, &first, round.ttl, within).await;
        own.note(|| {
            format!(
                "{promised:?} of {asked:?} promise in term {} for {:?}, asked at {:?}",
                round.term, round.ttl, round.sent_at
            )
        });
        if own.mutation() == Some(Mutation::MostPromises) && asked.len() < 2 * promised.len() + 2 {
            promised = asked.keys().cloned().collect();
        }
        if own.mutation() == Some(Mutation::PromisesFromAnswer) {
            round.sent_at = own.now();
        }
        // In the product the loop cannot plan anything else meanwhile.
        let needed = own.shared.failsafe.borrow().members.clone();
        let counted =
            rounds.borrow_mut().promised(&PromiseAnswers { round, asked, promised, needed }, own.now());
        if counted {
            let facts = rounds.borrow().facts().clone();
            own.renewed(&facts);
            invariant::counted(&own.sim, own.member(), &facts);
            publish(&own, &facts);
        }
    });
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
