//! Keeping the lease: a thread with its own runtime and its own connections, so that nothing else can block it.
//!
//! Each round sends a keepalive, reads the leader key after the answer, and lets [`Renewal`] judge both. While trouble
//! lasts it tries again every [`RETRY_AFTER`], before the deadline and after it: giving up is not decided here.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use etcd_client::{Client, LeaseKeepAliveStream, LeaseKeeper as Sender};
use tokio::sync::{Notify, oneshot, watch};

use super::EtcdError;
use super::endpoints::{Endpoint, Etcd};
use super::renewal::{KeepAliveAnswer, LeaderRead, Renewal, RenewalVerdict};
use crate::core::store::Cas;
use crate::model::{LeaseFacts, LeaseId, LeaseTiming, Moment, Term};
use crate::os::clock;

/// The pause after a try that failed.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// The pause after a change of the TTL could not begin: the lease is kept as it is meanwhile.
const CHANGE_AGAIN_AFTER: Duration = Duration::from_secs(5);

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
    let mut renewal = Renewal::default();
    if let Some(lease) = resumed {
        renewal.granted(lease, ttl);
    }
    // A lease that is gone on with is known from the first moment: the loop would take the leader key on it for one of
    // a previous incarnation, stop its Postgres and revoke it.
    let (to_reader, facts) = watch::channel(renewal.facts().clone());
    let keeping = LeaseThread {
        etcd,
        streams: Arc::new(streams),
        renewal,
        granted_ttl: ttl,
        resumed: resumed.is_some(),
        moving_to: None,
        to_reader,
        change_at: Moment::default(),
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
    renewal: Renewal,
    /// The TTL that was asked for with the present lease.
    granted_ttl: Duration,
    /// The present lease is of a previous incarnation, and its TTL is not known before its first renewal.
    resumed: bool,
    /// A lease that leadership may have moved to already; nothing is renewed before that is known.
    moving_to: Option<(LeaseId, Duration)>,
    /// No change of the TTL begins before.
    change_at: Moment,
    to_reader: watch::Sender<LeaseFacts>,
    on_confirmed: OnConfirmed,
    on_moving: BeforeMove,
    withheld: RenewalHold,
}

impl LeaseThread {
    async fn run(
        mut self,
        mut wishes: watch::Receiver<Duration>,
        renew_now: Arc<Notify>,
        mut told_to_leave: oneshot::Receiver<LeaveReply>,
    ) {
        loop {
            let told = tokio::select! {
                () = self.live(&mut wishes, &renew_now) => continue,
                told = &mut told_to_leave => told,
            };
            if let Ok(told) = told {
                // Nobody waits for the answer if the process is gone already.
                let _ = told.send(self.revoke().await);
            }
            return;
        }
    }

    /// One round and the pause after it.
    async fn live(&mut self, wishes: &mut watch::Receiver<Duration>, renew_now: &Notify) {
        let ttl = *wishes.borrow_and_update();
        let began_at = clock::now();
        let ended = match (self.withheld)() {
            None => self.round(ttl).await.map_err(|error| error.to_string()),
            Some(why) => Err(format!("not renewed: {why}")),
        };
        let next_at = match ended {
            // The wish may not be granted yet.
            Ok(()) => began_at + LeaseTiming { ttl: ttl.min(self.granted_ttl) }.renew_every(),
            Err(trouble) => {
                self.renewal.trouble(trouble);
                clock::now() + RETRY_AFTER
            }
        };
        self.publish();
        tokio::select! {
            () = clock::sleep_until(next_at) => {}
            () = renew_now.notified() => {}
            Ok(()) = wishes.changed() => {}
        }
    }

    /// Owns a confirmed lease of that TTL afterwards, or says why not.
    async fn round(&mut self, ttl: Duration) -> Result<(), EtcdError> {
        // Only a deadline that is known can be shortened: a lease that is gone on with is confirmed first.
        let confirmed = self.renewal.facts().deadline.is_some();
        let wanted = confirmed && ttl != self.granted_ttl && self.change_at <= clock::now();
        if self.moving_to.is_some() || wanted {
            match self.change_ttl(ttl).await {
                // Nothing has moved: what cannot be changed now is kept as it is.
                Err(error) if self.moving_to.is_none() || matches!(error, EtcdError::NoSpace(_)) => {
                    self.moving_to = None;
                    self.renewal.stays();
                    self.change_at = clock::now() + CHANGE_AGAIN_AFTER;
                    tracing::warn!(%error, ttl = ttl.as_secs(), "could not change the TTL; retrying");
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
                Err(EtcdError::LeaseNotFound) => {
                    let read = self.read_leader().await?;
                    if !self.renewal.gone(&read) {
                        return Err(EtcdError::Unknown(
                            "the leader key hangs on a lease not found".to_owned(),
                        ));
                    }
                    tracing::warn!(%lease, "the lease is gone");
                    self.publish();
                }
                Ok(RenewalVerdict::Confirmed) => {
                    if std::mem::take(&mut self.resumed) {
                        self.granted_ttl = self.renewal.facts().ttl;
                    }
                    (self.on_confirmed)(self.renewal.facts());
                    return Ok(());
                }
                Ok(RenewalVerdict::TermsDiffer | RenewalVerdict::OtherLease) => {}
                Err(error) => return Err(error),
            }
        }
        Err(EtcdError::Unknown("keepalive and read come from different raft terms".to_owned()))
    }

    async fn renew(&mut self, lease: LeaseId) -> Result<RenewalVerdict, EtcdError> {
        let answer = self.keep_alive(lease, LeaseTiming { ttl: self.granted_ttl }).await?;
        let read = self.read_leader().await?;
        Ok(self.renewal.confirm(&answer, &read))
    }

    async fn keep_alive(&self, lease: LeaseId, timing: LeaseTiming) -> Result<KeepAliveAnswer, EtcdError> {
        let streams = self.streams.clone();
        let ask = |etcd: Etcd, endpoint: Arc<Endpoint>| {
            let streams = streams.clone();
            async move { keep_alive(&etcd, &endpoint, &streams[endpoint.index], lease).await }
        };
        self.etcd.hedged(timing.hedge_after(), timing.try_timeout(), ask).await
    }

    async fn read_leader(&self) -> Result<LeaderRead, EtcdError> {
        let timing = LeaseTiming { ttl: self.granted_ttl };
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

    async fn grant(&mut self, ttl: Duration) -> Result<LeaseId, EtcdError> {
        let lease = self.ask_lease(ttl).await?;
        self.renewal.granted(lease, ttl);
        (self.granted_ttl, self.resumed) = (ttl, false);
        self.publish();
        Ok(lease)
    }

    /// A second grant, when the first is slow, leaves at worst an empty lease that expires.
    async fn ask_lease(&self, ttl: Duration) -> Result<LeaseId, EtcdError> {
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

    /// Takes a lease with the new TTL, renews it once, arms the guard with the earlier of both deadlines and, when it
    /// has acknowledged that, moves leadership. Until the move is known to be done or lost it is tried again, and the
    /// earlier deadline holds.
    async fn change_ttl(&mut self, ttl: Duration) -> Result<(), EtcdError> {
        let (lease, ttl) = match self.moving_to {
            Some(moving) => moving,
            None => {
                let lease = self.ask_lease(ttl).await?;
                self.prepare_move(lease, ttl).await?;
                self.moving_to = Some((lease, ttl));
                (lease, ttl)
            }
        };
        // Read anew: leadership may have been taken, or moved by an earlier try, since the last renewal.
        let read = self.read_leader().await?;
        let old = self.renewal.facts().lease;
        let moved = match read.leader {
            Some((owner, term)) if owner == lease => Ok(Cas::Done(term.0)),
            Some((owner, term)) if Some(owner) == old => {
                self.etcd.commit(&self.etcd.keys().move_leadership((term, owner), lease)).await
            }
            Some(_) | None => Ok(Cas::Lost),
        };
        match moved {
            Ok(cas) => self.renewal.moved(lease, cas.revision().map(Term)),
            Err(EtcdError::LeaseNotFound) => {
                self.moving_to = None;
                return Err(EtcdError::LeaseNotFound);
            }
            Err(error) => return Err(error),
        }
        self.moving_to = None;
        self.granted_ttl = ttl;
        self.publish();
        Ok(())
    }

    /// Before anything moves: the new lease can be renewed in its time, and the guard holds what it promises.
    async fn prepare_move(&mut self, lease: LeaseId, ttl: Duration) -> Result<(), EtcdError> {
        let answer = self.keep_alive(lease, LeaseTiming { ttl }).await?;
        let read = self.read_leader().await?;
        if !self.renewal.moving(&answer, &read) {
            return Err(EtcdError::Unknown("keepalive and read come from different raft terms".to_owned()));
        }
        // Shown before the guard is armed, so that nobody arms it with the longer deadline afterwards.
        self.publish();
        match (self.on_moving)(self.renewal.facts()) {
            true => Ok(()),
            false => Err(EtcdError::Unknown("the guard has not confirmed the other deadline".to_owned())),
        }
    }

    fn publish(&self) {
        let facts = self.renewal.facts();
        self.to_reader.send_if_modified(|shown| {
            let news = shown != facts;
            shown.clone_from(facts);
            news
        });
    }

    async fn revoke(&self) -> Result<(), EtcdError> {
        match self.renewal.facts().lease {
            Some(lease) => self.etcd.revoke_lease(lease).await,
            None => Ok(()),
        }
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
