//! Steps before the loop: the lock of the directory, the running Postgres, the first look at etcd, the check that no
//! other member has this name.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use tokio::sync::{mpsc, watch};

use super::build::AgentError;
use super::failsafe::Failsafe;
use super::fencing::{Fencing, WatchdogRule};
use super::{ApiOrder, Status};
use crate::core::startup::{self, AfterLook, PostmasterFound, Takeover};
use crate::etcd::{self, Etcd, EtcdSetup, LeaseHooks, LeaseKeeper};
use crate::fence::{Found, LinkSetup};
use crate::model::{LeaseFacts, Me, Moment, Process, Settings, StopMode, View, slot_name};
use crate::os::clock;
use crate::os::signal::{SignalEvent, Signals};
use crate::peer::{Call, Peers};
use crate::postgres::{Adoption, Postgres, Probe};

/// How long a member with the same name may take to answer before it counts as gone.
const DUPLICATE_ASK_WITHIN: Duration = Duration::from_secs(3);
/// The interval between log lines while it is unknown whether PostgreSQL runs.
const LOOK_REMINDER: Duration = Duration::from_secs(5);
/// The interval between log lines while etcd does not answer.
const ETCD_REMINDER: Duration = Duration::from_secs(5);

/// Ensures a single supervisor for one data directory: the lock is beside the directory and ends with this process.
///
/// # Errors
/// Another supervisor has the lock, or it cannot be created.
pub fn lock(data_dir: &Path) -> Result<Flock<std::fs::File>, AgentError> {
    let mut lock = data_dir.as_os_str().to_owned();
    lock.push(".matriarch-lock");
    let lock = PathBuf::from(lock);
    let what = || format!("cannot open the lock {}", lock.display());
    if let Some(parent) = lock.parent() {
        std::fs::create_dir_all(parent).map_err(|source| AgentError::System { what: what(), source })?;
    }
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&lock);
    let file = file.map_err(|source| AgentError::System { what: what(), source })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| AgentError::AlreadyRunning { data_dir: data_dir.to_owned(), lock: lock.clone() })
}

/// The guard, with what a former supervisor left behind.
pub(super) struct Fenced {
    pub(super) fencing: Arc<Fencing>,
    /// A guard of my previous incarnation was armed: its PostgreSQL may accept writes, under a lease that was mine.
    pub(super) was_armed: bool,
}

/// Starts a guard, and puts a PostgreSQL that runs already under its protection. `None` when the supervisor was asked
/// to end before its state was known: then everything stays as it was found, including an armed guard.
pub(super) async fn fence_and_adopt(
    postgres: &Postgres,
    (setup, rule): (LinkSetup, WatchdogRule),
    signals: &mut Signals,
) -> Result<Option<Fenced>, AgentError> {
    if postgres.holds_no_database() {
        return Err(AgentError::NotADatabase { data_dir: postgres.setup().data_dir.clone() });
    }
    let (fencing, found) = Fencing::start(postgres, setup, rule).map_err(AgentError::Fence)?;
    let was_armed = matches!(found, Found::Armed { .. });
    let Some(takeover) = takeover(postgres, &found, signals).await else { return Ok(None) };
    match takeover {
        Takeover::GuardPrimary(deadlines) => {
            postgres.take_for_primary();
            fencing.want_until(deadlines);
            tracing::info!(deadline = %deadlines.stop_at, "PostgreSQL was already running and continues under its guard");
        }
        Takeover::StopThenDisarm(within) => {
            tracing::warn!(
                "PostgreSQL runs, and the guard of the previous supervisor is gone or frozen: stopping PostgreSQL at once"
            );
            postgres.stop(StopMode::Immediate, within).await.map_err(AgentError::Postgres)?;
            fencing.begin_unarmed();
        }
        Takeover::Disarm => fencing.begin_unarmed(),
    }
    if matches!(&*postgres.process().borrow(), Process::Down { .. }) {
        // For the first start. A running PostgreSQL is not delayed by it: it gets parameters when they are applied.
        postgres.judge_parameters().await;
    }
    Ok(Some(Fenced { fencing: Arc::new(fencing), was_armed }))
}

/// Looks until it is certain whether PostgreSQL runs. An armed guard has its deadline meanwhile. `None` when the
/// supervisor was asked to end.
async fn takeover(postgres: &Postgres, found: &Found, signals: &mut Signals) -> Option<Takeover> {
    let mut said: Option<(String, Moment)> = None;
    loop {
        let now = clock::now();
        let (running, why) = match postgres.adopt(found.postmaster()).await {
            Adoption::Running => (PostmasterFound::Running, String::new()),
            Adoption::Nothing => {
                let why = "the guard of my previous incarnation may still have to kill";
                (PostmasterFound::Nothing, why.to_owned())
            }
            Adoption::Unknown(why) => (PostmasterFound::Unknown, why),
        };
        let after = match startup::after_look(found.left_behind(), running, found.may_have_to_kill(now)) {
            AfterLook::LookAgain(after) => after,
            AfterLook::AskRole => return Some(Takeover::unguarded(is_primary(postgres).await, clock::now())),
            AfterLook::Take(takeover) => return Some(takeover),
        };
        if said.as_ref().is_none_or(|(text, at)| *text != why || *at + LOOK_REMINDER <= now) {
            tracing::warn!(
                why,
                "cannot determine whether PostgreSQL runs here: an armed guard stays armed, and no PostgreSQL is started"
            );
            said = Some((why, now));
        }
        tokio::select! {
            () = tokio::time::sleep(after) => {}
            signal = signals.next() => if asks_to_end(signal) { return None },
        }
    }
}

/// Whether the running PostgreSQL is a primary. Without an answer the signal file at its start decides.
async fn is_primary(postgres: &Postgres) -> bool {
    let primary = match postgres.sql_facts().await {
        Ok(sql) => sql.is_primary(),
        Err(_) => !matches!(&*postgres.process().borrow(), Process::Up { standby_start: true, .. }),
    };
    tracing::info!(primary, "PostgreSQL was already running and continues");
    primary
}

/// The end of the wait for etcd.
pub(super) enum FirstLook {
    /// etcd showed the cluster.
    Seen(Box<View>),
    /// The supervisor was asked to end before that.
    AskedToEnd,
}

/// The tasks that continue while etcd does not answer.
pub(super) struct WaitForEtcd<'a> {
    pub(super) orders: &'a mut mpsc::Receiver<ApiOrder>,
    pub(super) status: &'a watch::Sender<Arc<Status>>,
    pub(super) signals: &'a mut Signals,
}

/// Waits until DNS names the endpoints of etcd, if they are there. `None` when the supervisor was asked to end.
pub(super) async fn find_etcd(setup: EtcdSetup, waiting: WaitForEtcd<'_>) -> Option<EtcdSetup> {
    loop {
        let error = match setup.clone().discovered().await {
            Ok(found) => {
                if setup.srv.is_some() {
                    tracing::info!(etcd = found.endpoints.join(", "), "found the endpoints of etcd");
                }
                return Some(found);
            }
            Err(error) => error,
        };
        tracing::warn!(%error, "waiting for the endpoints of etcd");
        waits(waiting.status);
        let again = tokio::time::sleep(ETCD_REMINDER);
        tokio::pin!(again);
        loop {
            tokio::select! {
                () = &mut again => break,
                Some(_order) = waiting.orders.recv() => {}
                signal = waiting.signals.next() => if asks_to_end(signal) { return None },
            }
        }
    }
}

fn waits(status: &watch::Sender<Arc<Status>>) {
    status.send_modify(|status| {
        let status = Arc::make_mut(status);
        (status.ticked_at, status.next_tick_by) = (clock::now(), clock::now() + ETCD_REMINDER * 2);
        status.because = "waiting for etcd".to_owned();
    });
}

fn asks_to_end(signal: SignalEvent) -> bool {
    match signal {
        SignalEvent::Terminate | SignalEvent::Interrupt | SignalEvent::Quit => true,
        SignalEvent::Reload => false,
    }
}

/// Waits until etcd answers, and reports that in the log and over REST, where the liveness probe stays healthy. Only
/// refused credentials end the wait with an error.
pub(super) async fn first_view(
    etcd: &Etcd,
    view: &mut watch::Receiver<Option<View>>,
    waiting: WaitForEtcd<'_>,
) -> Result<FirstLook, AgentError> {
    let mut reminder = tokio::time::interval(ETCD_REMINDER);
    reminder.reset();
    loop {
        if let Some(seen) = view.borrow_and_update().clone() {
            return Ok(FirstLook::Seen(Box::new(seen)));
        }
        tokio::select! {
            Ok(()) = view.changed() => {}
            // Dropping an order answers it: REST shows the status, or reports that the order is not possible now.
            Some(_order) = waiting.orders.recv() => {}
            signal = waiting.signals.next() => if asks_to_end(signal) { return Ok(FirstLook::AskedToEnd) },
            _ = reminder.tick() => match etcd.read(ETCD_REMINDER / 2).await {
                Ok(_) => {}
                Err(error @ etcd::EtcdError::Authentication(_)) => return Err(AgentError::Etcd(error)),
                Err(error) => {
                    let at = etcd.endpoint_urls().join(", ");
                    tracing::warn!(at, %error, "waiting for etcd");
                    waits(waiting.status);
                }
            },
        }
    }
}

/// Refuses to begin if a member with my name answers elsewhere, or if a registered member has the slot that would be
/// mine. If both members were registered before, the leader gives the slot to one of them.
pub(super) async fn refuse_duplicate(me: &Me, first: &View, peers: &Peers) -> Result<(), AgentError> {
    let members = &first.cluster.members;
    let slot = slot_name(&me.name);
    if let Some(other) = members.keys().find(|other| slot_name(other) == slot)
        && !members.contains_key(&me.name)
    {
        return Err(AgentError::SameSlot { name: me.name.to_string(), other: other.to_string(), slot });
    }
    let recorded = first.cluster.members.get(&me.name).and_then(|key| key.record.api_url.clone());
    let Some(api_url) = recorded.filter(|url| *url != me.api_url) else { return Ok(()) };
    // The answer to a health check has no name.
    let (method, url) = ("GET".to_owned(), api_url.clone());
    let call = Call { method, url, body: None, credentials: None, within: DUPLICATE_ASK_WITHIN };
    let Ok((_, body)) = peers.call(call).await else { return Ok(()) };
    let answers = serde_json::from_str(&body).map(|body| Peers::identity(&body)).unwrap_or_default();
    // This process itself, at an address that it registered before.
    let is_me = answers.session == Some(me.session);
    // Another member has moved to this one's former address.
    let is_another = answers.name.as_ref().is_some_and(|name| *name != me.name)
        || answers.scope.as_ref().is_some_and(|scope| *scope != me.scope);
    match is_me || is_another {
        true => Ok(()),
        false => Err(AgentError::DuplicateName { name: me.name.to_string(), api_url }),
    }
}

/// Starts renewals. A running primary continues under its former lease, so that a restart of the supervisor does not
/// change the leader. It does so only if its guard was armed, or the member record proves that the lease is its own.
/// From now on the lease is renewed only while Postgres proves that it works.
pub(super) fn keep_lease(
    postgres: &Postgres,
    fenced: &Fenced,
    me: &Me,
    etcd: &Etcd,
    first: View,
    ttl: Duration,
    members: Failsafe,
) -> Result<(Arc<LeaseKeeper>, Probe), AgentError> {
    let resumed = startup::previous_lease(me, &first, &postgres.process().borrow(), fenced.was_armed);
    if let Some(lease) = resumed {
        tracing::info!(%lease, "continuing under the lease of the previous incarnation");
    }
    let (fencing, moving) = (fenced.fencing.clone(), fenced.fencing.clone());
    let on_confirmed = Box::new(move |facts: &LeaseFacts| fencing.renewed(facts));
    let on_moving = Box::new(move |facts: &LeaseFacts| moving.holds(facts));
    let probe = postgres.probe().map_err(AgentError::Postgres)?;
    probe.configure(&Settings { ttl, ..Settings::default() }, false);
    let proofs = probe.clone();
    // Only the two threads are involved: a loop that hangs cannot extend the lease of a dead Postgres.
    let withheld = Box::new(move || proofs.withheld());
    let hooks = LeaseHooks { on_confirmed, on_moving, withheld, members: Box::new(members) };
    let keeper = etcd::keep_lease(etcd, ttl, resumed, hooks);
    let keeper = keeper.map_err(AgentError::Etcd)?;
    Ok((Arc::new(keeper), probe))
}
