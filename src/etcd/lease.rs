//! Keeping the lease: a thread with its own runtime and its own connections, so that nothing else can block it.
//!
//! It drives [`LeaseRounds`], which says what is asked next and judges the answers.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use etcd_client::{Client, LeaseKeepAliveStream, LeaseKeeper as Sender};
use tokio::sync::{Notify, oneshot, watch};

use super::EtcdError;
use super::endpoints::{Endpoint, Etcd};
use crate::core::lease::{
    KeepAliveAnswer, LeaderRead, LeaseAnswer, LeaseEffect, LeaseNext, LeaseNotice, LeaseQuestion, LeaseRounds,
};
use crate::model::{LeaseFacts, LeaseId, LeaseTiming, Moment, Term};
use crate::os::clock;

/// Called in the lease's thread right after each confirmed renewal.
type OnConfirmed = Box<dyn Fn(&LeaseFacts) + Send>;

/// Called in the lease's thread before leadership moves to a lease with another TTL; false when no guard holds the
/// deadline that this gives. Then it does not move.
type BeforeMove = Box<dyn Fn(&LeaseFacts) -> bool + Send>;

/// Asked in the lease's thread before each renewal: why it must not be sent; `None` when it may be.
type RenewalHold = Box<dyn Fn() -> Option<String> + Send>;

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
/// `on_confirmed` must be quick: it is called between two renewals, after every confirmed one. So must `on_moving` be,
/// which is asked before leadership moves to a lease of another TTL, and `withheld`:
/// while it gives a reason the lease is left to run out. It is asked, and not told, so that nothing that hangs
/// elsewhere keeps a lease alive.
///
/// # Errors
/// [`EtcdError::Setup`] when there is no thread to be had.
pub fn keep_lease(
    etcd: &Etcd,
    ttl: Duration,
    resumed: Option<LeaseId>,
    (on_confirmed, on_moving): (OnConfirmed, BeforeMove),
    withheld: RenewalHold,
) -> Result<LeaseKeeper, EtcdError> {
    let etcd = etcd.apart();
    let (wish, wishes) = watch::channel(ttl);
    let renew_now = Arc::new(Notify::new());
    let (leave, told_to_leave) = oneshot::channel();
    let setup_error = |error: std::io::Error| EtcdError::Setup(format!("the lease's thread: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(setup_error)?;
    let streams = (0..etcd.endpoint_count()).map(|_| Mutex::default()).collect();
    let rounds = LeaseRounds::new(etcd.keys().clone(), ttl, resumed);
    let (to_reader, facts) = watch::channel(rounds.facts().clone());
    let keeping = LeaseThread {
        etcd,
        streams: Arc::new(streams),
        rounds,
        to_reader,
        on_confirmed,
        on_moving,
        withheld,
    };
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
    etcd: Etcd,
    /// By endpoint; a stream that was abandoned in the middle of a request is not put back.
    streams: Arc<Vec<Mutex<Option<Stream>>>>,
    rounds: LeaseRounds,
    to_reader: watch::Sender<LeaseFacts>,
    on_confirmed: OnConfirmed,
    on_moving: BeforeMove,
    withheld: RenewalHold,
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
            answer = match ask {
                LeaseQuestion::Wait { until } => {
                    tokio::select! {
                        () = clock::sleep_until(until) => {}
                        () = renew_now.notified() => {}
                        Ok(()) = wishes.changed() => {}
                    }
                    self.woke(&mut wishes)
                }
                LeaseQuestion::AskGuard => LeaseAnswer::GuardHolds((self.on_moving)(self.rounds.facts())),
                LeaseQuestion::Grant { ttl } => answered(LeaseAnswer::Granted, self.grant(ttl).await),
                LeaseQuestion::KeepAlive { lease, timing } => {
                    answered(LeaseAnswer::Renewed, self.keep_alive(lease, timing).await)
                }
                LeaseQuestion::ReadLeader { timing } => {
                    answered(LeaseAnswer::Leader, self.read_leader(timing).await)
                }
                LeaseQuestion::Commit(txn) => answered(LeaseAnswer::Moved, self.etcd.commit(&txn).await),
            };
        }
    }

    fn woke(&self, wishes: &mut watch::Receiver<Duration>) -> LeaseAnswer {
        LeaseAnswer::Woke { ttl: *wishes.borrow_and_update(), withheld: (self.withheld)() }
    }

    fn carry_out(&self, effect: LeaseEffect) {
        match effect {
            LeaseEffect::Publish => self.publish(),
            LeaseEffect::TellGuard => (self.on_confirmed)(self.rounds.facts()),
            LeaseEffect::Say(LeaseNotice::Gone(lease)) => tracing::warn!(%lease, "the lease is gone"),
            LeaseEffect::Say(LeaseNotice::TtlChanged { lease, ttl, term: _ }) => {
                tracing::info!(%lease, ttl = ttl.as_secs(), "the lease has another TTL");
            }
            LeaseEffect::Say(LeaseNotice::TtlKept { ttl, error }) => {
                tracing::warn!(%error, ttl = ttl.as_secs(), "could not change the TTL; retrying");
            }
        }
    }

    fn publish(&self) {
        let facts = self.rounds.facts();
        self.to_reader.send_if_modified(|shown| {
            let news = shown != facts;
            shown.clone_from(facts);
            news
        });
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

    async fn revoke(&self) -> Result<(), EtcdError> {
        let LeaseFacts { lease, moving_to, .. } = self.rounds.facts();
        // The leader key may hang on either: what becomes of one says nothing of the other.
        let mut revoked = Ok(());
        for lease in [moving_to, lease].into_iter().flatten() {
            revoked = revoked.and(self.etcd.revoke_lease(*lease).await);
        }
        revoked
    }
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
