//! Keeping the lease: a thread with its own runtime and its own connections, so that nothing else can block it.
//!
//! It drives [`LeaseRounds`], which says what is asked next and judges the answers.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use etcd_client::{Client, LeaseKeepAliveStream, LeaseKeeper as Sender};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{Notify, oneshot, watch};

use super::EtcdError;
use super::endpoints::{Endpoint, Etcd};
use crate::core::lease::{
    KeepAliveAnswer, LeaderRead, LeaseAnswer, LeaseEffect, LeaseNext, LeaseNotice, LeaseQuestion,
    LeaseRounds, PromiseAnswers, PromiseRound,
};
use crate::core::store::WriteError;
use crate::model::{FailsafeMembers, LeaseFacts, LeaseId, LeaseTiming, MemberName, Moment, Term};
use crate::os::clock;

/// Called in the lease's thread right after each confirmed renewal.
type OnConfirmed = Box<dyn Fn(&LeaseFacts) + Send>;

/// Called in the lease's thread before leadership moves to a lease with another TTL; false when no guard holds the
/// deadline that this gives. Then it does not move.
type BeforeMove = Box<dyn Fn(&LeaseFacts) -> bool + Send>;

/// Asked in the lease's thread before each renewal: why it must not be sent; `None` when it may be.
type RenewalHold = Box<dyn Fn() -> Option<String> + Send>;

/// The members whose promises let a leader go on while etcd does not answer (failsafe mode).
pub trait PromisingMembers: Send {
    /// Calls `then` with those that have to promise now; `None`: promises do not count. They do not change before it
    /// returns.
    fn needed(&self, then: &mut dyn FnMut(&Option<FailsafeMembers>));

    /// Asks them to let me lead for one more `ttl`, and the others only when `first` have promised; those that have
    /// promised, each of both within this time.
    fn ask(
        &self,
        members: &FailsafeMembers,
        first: &BTreeSet<MemberName>,
        ttl: Duration,
        within: Duration,
    ) -> BoxFuture<'static, BTreeSet<MemberName>>;
}

/// What the lease's thread calls. All but [`PromisingMembers::ask`] have to be quick: they are called between two
/// renewals.
pub struct LeaseHooks {
    /// After each confirmed renewal.
    pub on_confirmed: OnConfirmed,
    /// Before leadership moves to a lease with another TTL.
    pub on_moving: BeforeMove,
    /// While it gives a reason the lease is left to run out. It is asked, and not told, so that nothing that hangs
    /// elsewhere keeps a lease alive.
    pub withheld: RenewalHold,
    /// Where etcd does not answer.
    pub members: Box<dyn PromisingMembers>,
}

/// The handle to the lease's thread. Dropping it ends the renewals and leaves the lease to expire.
pub struct LeaseKeeper {
    facts: watch::Receiver<LeaseFacts>,
    wish: watch::Sender<Duration>,
    renew_now: Arc<Notify>,
    leave: Mutex<Option<oneshot::Sender<LeaveReply>>>,
}

type LeaveReply = oneshot::Sender<Result<(), EtcdError>>;

/// Starts the thread that acquires a lease of `ttl` (whole seconds) and keeps it. With `resumed` it first goes on with
/// that lease, which a previous incarnation of this supervisor left behind; if it is gone, a new one is acquired.
///
/// # Errors
/// [`EtcdError::Setup`] when there is no thread to be had.
pub fn keep_lease(
    etcd: &Etcd,
    ttl: Duration,
    resumed: Option<LeaseId>,
    hooks: LeaseHooks,
) -> Result<LeaseKeeper, EtcdError> {
    let etcd = etcd.apart();
    let (wish, wishes) = watch::channel(ttl);
    let renew_now = Arc::new(Notify::new());
    let (leave, told_to_leave) = oneshot::channel();
    let setup_error = |error: std::io::Error| EtcdError::Setup(format!("the lease's thread: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(setup_error)?;
    let streams = (0..etcd.endpoints_max()).map(|_| Mutex::default()).collect();
    let rounds = LeaseRounds::new(etcd.keys().clone(), ttl, resumed);
    let (to_reader, facts) = watch::channel(rounds.facts().clone());
    let client = LeaseClient { etcd, streams: Arc::new(streams) };
    let keeping = LeaseThread { client, rounds, to_reader, hooks, asked: FuturesUnordered::new() };
    let poke = renew_now.clone();
    thread::Builder::new()
        .name("lease".to_owned())
        .spawn(move || runtime.block_on(keeping.run(wishes, poke, told_to_leave)))
        .map_err(setup_error)?;
    Ok(LeaseKeeper { facts, wish, renew_now, leave: Mutex::new(Some(leave)) })
}

impl LeaseKeeper {
    /// The lease as last confirmed; changes with every renewal and every new trouble.
    pub fn facts(&self) -> watch::Receiver<LeaseFacts> {
        self.facts.clone()
    }

    /// Renews at once (after a change of leadership, say); several calls before it happens count as one.
    pub fn renew_now(&self) {
        self.renew_now.notify_one();
    }

    /// From now on the lease should last that long (whole seconds). Takes a new lease, and moves leadership to it.
    /// The member key has to be published again on the new lease; the old one expires by itself.
    pub fn set_ttl(&self, ttl: Duration) {
        self.wish.send_if_modified(|wish| std::mem::replace(wish, ttl) != ttl);
    }

    /// At exit: revokes the lease, so that member key, leader key and an unfinished bootstrap go away at once, and
    /// ends the thread. Only when nothing that may be primary lives under it any more.
    ///
    /// # Errors
    /// When etcd did not confirm it; the lease then expires.
    pub async fn revoke(&self) -> Result<(), EtcdError> {
        let (done, answer) = oneshot::channel();
        let ended = || EtcdError::Unknown("the lease's thread has ended".to_owned());
        let leave = self.leave.lock().unwrap_or_else(PoisonError::into_inner).take();
        leave.ok_or_else(ended)?.send(done).map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }
}

/// A keepalive stream that has no request under way.
type Stream = (LeaseId, Sender, LeaseKeepAliveStream);

/// The thread's state.
struct LeaseThread {
    client: LeaseClient,
    rounds: LeaseRounds,
    to_reader: watch::Sender<LeaseFacts>,
    hooks: LeaseHooks,
    /// The questions to the members that are not answered yet.
    asked: FuturesUnordered<BoxFuture<'static, AskedMembers>>,
}

/// A question to the members, and those that have promised.
type AskedMembers = (PromiseRound, FailsafeMembers, BTreeSet<MemberName>);

/// The requests to etcd.
#[derive(Clone)]
struct LeaseClient {
    etcd: Etcd,
    /// By endpoint; a stream that was abandoned in the middle of a request is not put back.
    streams: Arc<Vec<Mutex<Option<Stream>>>>,
}

impl LeaseThread {
    async fn run(
        mut self,
        wishes: watch::Receiver<Duration>,
        renew_now: Arc<Notify>,
        told_to_leave: oneshot::Receiver<LeaveReply>,
    ) {
        let told = tokio::select! {
            never = self.keep(wishes, &renew_now) => match never {},
            told = told_to_leave => told,
        };
        if let Ok(told) = told {
            // Nobody waits for the answer if the process is gone already.
            let _ = told.send(self.revoke().await);
        }
    }

    async fn keep(&mut self, mut wishes: watch::Receiver<Duration>, renew_now: &Notify) -> Infallible {
        let mut answer = self.woke(&mut wishes);
        loop {
            let LeaseNext { effects, ask } = self.rounds.next(answer, clock::now());
            for effect in effects {
                self.carry_out(effect);
            }
            answer = self.answer(ask, &mut wishes, renew_now).await;
        }
    }

    /// The answer to a question; the members' answers are heard meanwhile.
    async fn answer(
        &mut self,
        ask: LeaseQuestion,
        wishes: &mut watch::Receiver<Duration>,
        renew_now: &Notify,
    ) -> LeaseAnswer {
        if ask == LeaseQuestion::AskGuard {
            return LeaseAnswer::GuardHolds((self.hooks.on_moving)(self.rounds.facts()));
        }
        let answered = {
            let client = self.client.clone();
            let mut answered = std::pin::pin!(async {
                match ask {
                    LeaseQuestion::Wait { until } => {
                        tokio::select! {
                            () = clock::sleep_until(until) => {}
                            () = renew_now.notified() => {}
                            Ok(()) = wishes.changed() => {}
                        }
                        None
                    }
                    other => Some(client.answer(other).await),
                }
            });
            loop {
                tokio::select! {
                    Some(asked) = self.asked.next() => self.hear(asked),
                    answered = &mut answered => break answered,
                }
            }
        };
        answered.unwrap_or_else(|| self.woke(wishes))
    }

    /// The loop sees what the promises came to before it can add a member that was not asked.
    fn hear(&mut self, (round, asked, promised): AskedMembers) {
        let LeaseThread { rounds, hooks, to_reader, .. } = self;
        hooks.members.needed(&mut |needed| {
            let needed = needed.clone();
            let answers = PromiseAnswers { round, asked: asked.clone(), promised: promised.clone(), needed };
            if rounds.promised(&answers, clock::now()) {
                (hooks.on_confirmed)(rounds.facts());
                publish(to_reader, rounds.facts());
            }
        });
    }

    fn ask_members(&self, round: PromiseRound, first: &BTreeSet<MemberName>, within: Duration) {
        let members = &self.hooks.members;
        let mut asked = None;
        members.needed(&mut |needed| asked.clone_from(needed));
        if let Some(needed) = asked {
            let promised = members.ask(&needed, first, round.ttl, within);
            self.asked.push(Box::pin(async move { (round, needed, promised.await) }));
        }
    }

    fn woke(&self, wishes: &mut watch::Receiver<Duration>) -> LeaseAnswer {
        LeaseAnswer::Woke { ttl: *wishes.borrow_and_update(), withheld: (self.hooks.withheld)() }
    }

    fn carry_out(&self, effect: LeaseEffect) {
        match effect {
            LeaseEffect::Publish => publish(&self.to_reader, self.rounds.facts()),
            LeaseEffect::TellGuard => (self.hooks.on_confirmed)(self.rounds.facts()),
            LeaseEffect::AskMembers { round, first, within } => self.ask_members(round, &first, within),
            LeaseEffect::Say(LeaseNotice::Gone(lease)) => tracing::warn!(%lease, "the lease is gone"),
            LeaseEffect::Say(LeaseNotice::TtlChanged { lease, ttl, term: _ }) => {
                tracing::info!(%lease, ttl = ttl.as_secs(), "the lease has another TTL");
            }
            LeaseEffect::Say(LeaseNotice::TtlKept { ttl, error }) => {
                tracing::warn!(%error, ttl = ttl.as_secs(), "could not change the TTL; retrying");
            }
        }
    }

    async fn revoke(&self) -> Result<(), EtcdError> {
        let LeaseFacts { lease, moving_to, .. } = self.rounds.facts();
        // The leader key may hang on either: what becomes of one says nothing of the other.
        let mut revoked = Ok(());
        for lease in [moving_to, lease].into_iter().flatten() {
            revoked = revoked.and(self.client.etcd.revoke_lease(*lease).await);
        }
        revoked
    }
}

impl LeaseClient {
    /// The answer to a question to etcd.
    async fn answer(&self, ask: LeaseQuestion) -> LeaseAnswer {
        match ask {
            LeaseQuestion::Grant { ttl } => answered(LeaseAnswer::Granted, self.grant(ttl).await),
            LeaseQuestion::KeepAlive { lease, timing } => {
                answered(LeaseAnswer::Renewed, self.keep_alive(lease, timing).await)
            }
            LeaseQuestion::ReadLeader { timing } => {
                answered(LeaseAnswer::Leader, self.read_leader(timing).await)
            }
            LeaseQuestion::Commit(txn) => answered(LeaseAnswer::Moved, self.etcd.commit(&txn).await),
            LeaseQuestion::Wait { .. } | LeaseQuestion::AskGuard => {
                LeaseAnswer::Failed(WriteError::Unknown("no question to etcd".to_owned()))
            }
        }
    }

    async fn keep_alive(&self, lease: LeaseId, timing: LeaseTiming) -> Result<KeepAliveAnswer, EtcdError> {
        let streams = self.streams.clone();
        let ask = |etcd: Etcd, endpoint: Arc<Endpoint>| {
            let streams = streams.clone();
            async move { keep_alive(&etcd, &endpoint, &streams[endpoint.index], lease).await }
        };
        self.etcd.hedged(timing.hedge_after(), timing.try_timeout(), ask).await
    }

    async fn read_leader(&self, timing: LeaseTiming) -> Result<LeaderRead, EtcdError> {
        let ask = |etcd: Etcd, endpoint: Arc<Endpoint>| async move {
            let leader = etcd.keys().path("leader");
            let request = |mut client: Client| {
                let leader = leader.clone();
                async move { client.get(leader, None).await }
            };
            let answer = etcd.call(&endpoint, request).await?;
            let raft_term = etcd.fresh(&endpoint, answer.header())?;
            let leader = answer.kvs().first().map(|key| (LeaseId(key.lease()), Term(key.mod_revision())));
            Ok(LeaderRead { raft_term, leader })
        };
        self.etcd.hedged(timing.hedge_after(), timing.try_timeout(), ask).await
    }

    /// A second grant, when the first is slow, leaves at worst an empty lease that expires.
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, EtcdError> {
        let seconds = ttl.as_secs().max(1) as i64;
        let ask = |etcd: Etcd, endpoint: Arc<Endpoint>| async move {
            let request = |mut client: Client| async move { client.lease_grant(seconds, None).await };
            let answer = etcd.call(&endpoint, request).await?;
            etcd.fresh(&endpoint, answer.header())?;
            Ok(LeaseId(answer.id()))
        };
        let timing = LeaseTiming { ttl };
        self.etcd.hedged(timing.hedge_after(), timing.try_timeout(), ask).await
    }
}

fn publish(to_reader: &watch::Sender<LeaseFacts>, facts: &LeaseFacts) {
    to_reader.send_if_modified(|shown| {
        let news = shown != facts;
        shown.clone_from(facts);
        news
    });
}

fn answered<T>(answer: fn(T) -> LeaseAnswer, result: Result<T, EtcdError>) -> LeaseAnswer {
    match result {
        Ok(found) => answer(found),
        Err(error) => LeaseAnswer::Failed(error.into()),
    }
}

/// One keepalive on one endpoint. A stream carries one request at a time, so an answer belongs to the last request;
/// where a request was given up the stream was dropped with it.
async fn keep_alive(
    etcd: &Etcd,
    endpoint: &Endpoint,
    slot: &Mutex<Option<Stream>>,
    lease: LeaseId,
) -> Result<KeepAliveAnswer, EtcdError> {
    let kept = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (mut sender, mut answers) = match kept {
        Some((of, sender, answers)) if of == lease => (sender, answers),
        // Opening asks once already, but keeps that answer's header to itself.
        _ => {
            let open = |mut client: Client| async move { client.lease_keep_alive(lease.0).await };
            etcd.call(endpoint, open).await?
        }
    };
    let sent_at: Moment = clock::now();
    sender.keep_alive().await?;
    let ended = || EtcdError::Unknown("the keepalive stream ended".to_owned());
    let answer = answers.message().await?.ok_or_else(ended)?;
    let raft_term = etcd.fresh(endpoint, answer.header())?;
    if answer.id() != lease.0 {
        return Err(EtcdError::Unknown("an answer for another lease".to_owned()));
    }
    let ttl = u64::try_from(answer.ttl()).unwrap_or(0);
    if ttl == 0 {
        return Err(EtcdError::LeaseNotFound);
    }
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some((lease, sender, answers));
    Ok(KeepAliveAnswer { lease, sent_at, ttl: Duration::from_secs(ttl), raft_term })
}
