//! Before the loop: one supervisor a directory, the running Postgres, the first look at etcd, a name nobody else has.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use tokio::sync::{mpsc, watch};

use super::app::RunError;
use super::fencing::{Fencing, WatchdogRule};
use super::{Order, Status};
use crate::etcd::{self, Etcd, LeaseKeeper};
use crate::fence::{Deadlines, Found, LinkSetup};
use crate::model::{LeaseFacts, LeaseId, Me, Moment, Process, StopMode, View, slot_name};
use crate::os::clock;
use crate::os::signal::{SignalEvent, Signals};
use crate::peer::{Call, Peers};
use crate::postgres::{Adoption, Postgres, Probe};

/// How long a primary that was found running may go on before its lease is confirmed.
const ADOPTED_PRIMARY_WITHIN: Duration = Duration::from_secs(5);
/// How long an immediate stop of a primary without a fence may take before it is killed.
const UNGUARDED_STOP_WITHIN: Duration = Duration::from_millis(300);
/// How long a member of the same name may take to answer before it counts as gone.
const DUPLICATE_ASK_WITHIN: Duration = Duration::from_secs(3);
/// How soon to look again when it is unknown whether Postgres runs.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How often to say so.
const LOOK_REMINDER: Duration = Duration::from_secs(5);
/// How often to say that etcd does not answer yet.
const ETCD_REMINDER: Duration = Duration::from_secs(5);

/// One supervisor for one data directory: the lock lies beside it and dies with this process.
pub(super) fn lock(data_dir: &Path) -> Result<Flock<std::fs::File>, RunError> {
    let mut lock = data_dir.as_os_str().to_owned();
    lock.push(".matriarch-lock");
    let lock = PathBuf::from(lock);
    let what = || format!("cannot open the lock {}", lock.display());
    if let Some(parent) = lock.parent() {
        std::fs::create_dir_all(parent).map_err(|source| RunError::System { what: what(), source })?;
    }
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&lock);
    let file = file.map_err(|source| RunError::System { what: what(), source })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| RunError::AlreadyRunning { data_dir: data_dir.to_owned(), lock: lock.clone() })
}

/// What runs here, under a guard.
pub(super) struct Fenced {
    pub(super) fencing: Arc<Fencing>,
    /// A guard of my previous incarnation was armed: its PostgreSQL may write, by a lease that was mine.
    pub(super) was_armed: bool,
}

/// Starts a guard, and puts under it what runs already. `None` when the supervisor was asked to end before that was
/// known: then all is left as it was found, a guard that is armed included.
pub(super) async fn fence_and_adopt(
    postgres: &Postgres,
    (setup, rule): (LinkSetup, WatchdogRule),
    signals: &mut Signals,
) -> Result<Option<Fenced>, RunError> {
    if postgres.holds_no_database() {
        return Err(RunError::NotADatabase { data_dir: postgres.setup().data_dir.clone() });
    }
    let (fencing, found) = Fencing::start(postgres, setup, rule).map_err(RunError::Fence)?;
    let was_armed = matches!(found, Found::Armed { .. });
    match what_runs(postgres, &found, signals).await {
        None => return Ok(None),
        Some(Running::Nothing) => {
            fencing.begin_unarmed();
            // For the first start. What runs already is not held up: it takes parameters when they are applied.
            postgres.judge_parameters().await;
        }
        Some(Running::Postgres) => adopt(postgres, &fencing, found).await?,
    }
    Ok(Some(Fenced { fencing: Arc::new(fencing), was_armed }))
}

/// What was found out at the start.
enum Running {
    /// No process of this Postgres is left.
    Nothing,
    /// A postmaster, which was taken over.
    Postgres,
}

/// Looks until it is certain. What is unknown is not "nothing": until then no guard is disarmed, no file removed, no
/// start tried and no lease revoked. A guard that is armed has its deadline meanwhile.
async fn what_runs(postgres: &Postgres, found: &Found, signals: &mut Signals) -> Option<Running> {
    let guarded = match found {
        Found::Armed { postmaster, .. } => *postmaster,
        Found::Nothing | Found::Unguarded => None,
    };
    let mut said: Option<(String, Moment)> = None;
    loop {
        let now = clock::now();
        let why = match postgres.adopt(guarded).await {
            Adoption::Running => return Some(Running::Postgres),
            Adoption::Nothing if !found.may_have_to_kill(now) => return Some(Running::Nothing),
            Adoption::Nothing => "the guard of my previous incarnation may still have to kill".to_owned(),
            Adoption::Unknown(why) => why,
        };
        if said.as_ref().is_none_or(|(text, at)| *text != why || *at + LOOK_REMINDER <= now) {
            tracing::warn!(
                why,
                "cannot determine whether PostgreSQL runs here: an armed guard stays armed, and no PostgreSQL is started"
            );
            said = Some((why, now));
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN_AFTER) => {}
            signal = signals.next() => match signal {
                SignalEvent::Terminate | SignalEvent::Interrupt | SignalEvent::Quit => return None,
                SignalEvent::Reload => {}
            },
        }
    }
}

/// Takes over a Postgres that runs already, with the fence that a former supervisor left behind.
async fn adopt(postgres: &Postgres, fencing: &Fencing, found: Found) -> Result<(), RunError> {
    match found {
        Found::Nothing => adopt_unfenced(postgres, fencing).await,
        Found::Armed { deadlines, .. } => {
            // Armed before a promotion and disarmed after it is over for good: whatever it looks like now, it may be a
            // primary, or become one without another word. The deadline is the only one that a lease has paid for.
            postgres.take_for_primary();
            fencing.want_until(deadlines);
            tracing::info!(deadline = %deadlines.stop_at, "PostgreSQL was already running and continues under its guard");
        }
        Found::Unguarded => {
            tracing::warn!(
                "PostgreSQL runs, and the guard of the previous supervisor is gone or frozen: stopping PostgreSQL at once"
            );
            postgres.stop(StopMode::Immediate, UNGUARDED_STOP_WITHIN).await.map_err(RunError::Postgres)?;
            fencing.begin_unarmed();
        }
    }
    Ok(())
}

/// Nobody has armed a guard for it: it is a standby, or was taken over from Patroni. A primary has a few seconds to
/// prove its lease.
async fn adopt_unfenced(postgres: &Postgres, fencing: &Fencing) {
    let standby = matches!(&*postgres.process().borrow(), Process::Up { standby_start: true, .. });
    let primary = match postgres.sql_facts().await {
        Ok(sql) => sql.is_primary(),
        Err(_) => !standby,
    };
    tracing::info!(primary, "PostgreSQL was already running and continues");
    if primary {
        let by = clock::now() + ADOPTED_PRIMARY_WITHIN;
        fencing.want_until(Deadlines { stop_at: by, kill_at: by });
    } else {
        fencing.begin_unarmed();
    }
}

/// What ended the wait for etcd.
pub(super) enum FirstLook {
    /// etcd showed the cluster.
    Seen(Box<View>),
    /// The supervisor was asked to end before that.
    AskedToEnd,
}

/// What must go on while etcd does not answer.
pub(super) struct Waiting<'a> {
    pub(super) orders: &'a mut mpsc::Receiver<Order>,
    pub(super) status: &'a watch::Sender<Arc<Status>>,
    pub(super) signals: &'a mut Signals,
}

/// Waits until etcd answers, and says so while it does not: in the log, and over REST, where liveness stays well.
/// Only refused credentials end it with an error.
pub(super) async fn first_view(
    etcd: &Etcd,
    view: &mut watch::Receiver<Option<View>>,
    waiting: Waiting<'_>,
) -> Result<FirstLook, RunError> {
    let mut reminder = tokio::time::interval(ETCD_REMINDER);
    reminder.reset();
    loop {
        if let Some(seen) = view.borrow_and_update().clone() {
            return Ok(FirstLook::Seen(Box::new(seen)));
        }
        tokio::select! {
            Ok(()) = view.changed() => {}
            // Dropping an order answers it: the rim shows the status, or says that it is not possible now.
            Some(_order) = waiting.orders.recv() => {}
            signal = waiting.signals.next() => match signal {
                SignalEvent::Terminate | SignalEvent::Interrupt | SignalEvent::Quit => return Ok(FirstLook::AskedToEnd),
                SignalEvent::Reload => {}
            },
            _ = reminder.tick() => match etcd.read(ETCD_REMINDER / 2).await {
                Ok(_) => {}
                Err(error @ etcd::EtcdError::Authentication(_)) => return Err(RunError::Etcd(error)),
                Err(error) => {
                    let at = etcd.endpoint_urls().join(", ");
                    tracing::warn!(at, %error, "waiting for etcd");
                    waiting.status.send_modify(|status| {
                        let status = Arc::make_mut(status);
                        (status.ticked_at, status.next_tick_by) = (clock::now(), clock::now() + ETCD_REMINDER * 2);
                        status.because = "waiting for etcd".to_owned();
                    });
                }
            },
        }
    }
}

/// A member of my name that answers elsewhere is alive, and so is one whose slot would be mine: this one must not
/// begin. Where both were there before, the leader gives the slot to one of them.
pub(super) async fn refuse_duplicate(me: &Me, first: &View, peers: &Peers) -> Result<(), RunError> {
    let members = &first.cluster.members;
    let slot = slot_name(&me.name);
    if let Some(other) = members.keys().find(|other| slot_name(other) == slot)
        && !members.contains_key(&me.name)
    {
        return Err(RunError::SameSlot { name: me.name.to_string(), other: other.to_string(), slot });
    }
    let recorded = first.cluster.members.get(&me.name).and_then(|key| key.record.api_url.clone());
    let Some(api_url) = recorded.filter(|url| *url != me.api_url) else { return Ok(()) };
    // A health check says no name.
    let (method, url) = ("GET".to_owned(), api_url.clone());
    let call = Call { method, url, body: None, credentials: None, within: DUPLICATE_ASK_WITHIN };
    let Ok((_, body)) = peers.call(call).await else { return Ok(()) };
    let answers = serde_json::from_str(&body).map(|body| Peers::identity(&body)).unwrap_or_default();
    // This very process, at an address that it registered before.
    let is_me = answers.session == Some(me.session);
    // A member has moved to where this one was.
    let is_another = answers.name.as_ref().is_some_and(|name| *name != me.name)
        || answers.scope.as_ref().is_some_and(|scope| *scope != me.scope);
    match is_me || is_another {
        true => Ok(()),
        false => Err(RunError::DuplicateName { name: me.name.to_string(), api_url }),
    }
}

/// Starts renewing. A running primary goes on under its former lease, so that a restart of the supervisor costs no
/// leadership: where its guard was armed, or the member record says that it is mine. From now on the lease is renewed
/// only while Postgres proves that it works.
pub(super) fn keep_lease(
    postgres: &Postgres,
    fenced: &Fenced,
    me: &Me,
    etcd: &Etcd,
    first: View,
    ttl: Duration,
) -> Result<(Arc<LeaseKeeper>, Probe), RunError> {
    // Not that of a standby: what a store that went back in time says of it would make it a primary without a race.
    let running = matches!(&*postgres.process().borrow(), Process::Up { standby_start: false, .. });
    let resumed = running.then(|| former_lease(me, &first, fenced.was_armed)).flatten();
    if let Some(lease) = resumed {
        tracing::info!(%lease, "continuing under the lease of the previous incarnation");
    }
    let (fencing, moving) = (fenced.fencing.clone(), fenced.fencing.clone());
    let on_confirmed = Box::new(move |facts: &LeaseFacts| fencing.renewed(facts));
    let on_moving = Box::new(move |facts: &LeaseFacts| moving.holds(facts));
    let probe = postgres.probe().map_err(RunError::Postgres)?;
    probe.configure(ttl, false);
    let proofs = probe.clone();
    // Between the two threads and nothing else: a loop that hangs cannot keep the lease of a dead Postgres alive.
    let withheld = Box::new(move || proofs.withheld());
    let keeper = etcd::keep_lease(etcd, ttl, resumed, (on_confirmed, on_moving), withheld);
    let keeper = keeper.map_err(RunError::Etcd)?;
    Ok((Arc::new(keeper), probe))
}

/// The lease on the leader key, if the key and the member record beside it are this member's own. A guard that was
/// armed here proves it, whatever the addresses are now: it would have killed before another of this name could lead.
fn former_lease(me: &Me, first: &View, was_armed: bool) -> Option<LeaseId> {
    let leader = first.cluster.leader.as_ref().filter(|leader| leader.name == me.name)?;
    let member = first.cluster.members.get(&me.name)?;
    let same_place = member.record.api_url.as_deref() == Some(me.api_url.as_str())
        && member.record.conn_url.as_deref() == Some(me.conn_url.as_str());
    leader.lease.filter(|lease| (was_armed || same_place) && member.lease == Some(*lease))
}
