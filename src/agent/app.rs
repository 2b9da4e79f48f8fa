//! Build, run, drain: one page that shows what a member consists of.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use tokio::sync::{mpsc, oneshot, watch};

use super::cycle::{Cycle, State};
use super::dynamic::Dynamic;
use super::fencing::Fencing;
use super::jobs::Tools;
use super::observe::PostgresWatch;
use super::status::Status;
use super::{Orders, handle, log, wiring};
use crate::api;
use crate::config::{self, Loaded};
use crate::etcd::{self, Etcd, EtcdSetup, LeaseKeeper};
use crate::model::{ExitBecause, LeaseFacts, LeaseId, Me, Moment, Process, View};
use crate::os::clock;
use crate::os::reap;
use crate::os::signal::Signals;
use crate::peer::{Call, Peers};
use crate::postgres::{Postgres, Progress};

/// How long a primary that was found running may go on before its lease is confirmed.
const ADOPTED_PRIMARY_WITHIN: Duration = Duration::from_secs(5);
/// How long a member of the same name may take to answer before it counts as gone.
const DUPLICATE_ASK_WITHIN: Duration = Duration::from_secs(3);
/// How often to say that etcd does not answer yet.
const ETCD_REMINDER: Duration = Duration::from_secs(5);

/// Why `run` could not begin, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// PostgreSQL refuses to run as root, and so do we.
    #[error(
        "PostgreSQL does not run as root: start this as the user that owns {data_dir}, as in `runuser -u postgres -- matriarch run FILE`"
    )]
    Root {
        /// The data directory of the configuration.
        data_dir: PathBuf,
    },
    /// Another supervisor holds the lock beside the data directory.
    #[error("another matriarch already supervises {data_dir} (it holds the lock {lock})")]
    AlreadyRunning {
        /// The data directory.
        data_dir: PathBuf,
        /// The lock file.
        lock: PathBuf,
    },
    /// The REST interface cannot listen.
    #[error("cannot serve REST")]
    Api(#[source] api::ApiError),
    /// PostgreSQL's programs are missing or of an unsupported version.
    #[error("{0}")]
    Programs(String),
    /// etcd refused the credentials.
    #[error("cannot use etcd")]
    Etcd(#[source] etcd::EtcdError),
    /// A member with this name lives elsewhere.
    #[error(
        "a member named {name} is already running and answers at {api_url}; give this one another `name`"
    )]
    DuplicateName {
        /// The name.
        name: String,
        /// Where the other one answers.
        api_url: String,
    },
    /// The loop ended because it had to.
    #[error("{}", exit_text(.0))]
    Ended(ExitBecause),
    /// The operating system refused something.
    #[error("{what}")]
    System {
        /// What.
        what: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The settings of the `bootstrap` section cannot be used.
    #[error("{0}")]
    Settings(#[source] config::Faults),
    /// PostgreSQL cannot be supervised.
    #[error("cannot supervise PostgreSQL")]
    Postgres(#[source] crate::postgres::Error),
}

fn exit_text(because: &ExitBecause) -> String {
    match because {
        ExitBecause::Asked => "ended as asked".to_owned(),
        ExitBecause::ForeignDataDirectory { mine, cluster } => format!(
            "the data directory belongs to the cluster with system identifier {mine}, but this scope's is {cluster}: \
             mount the right volume, or correct `scope`"
        ),
        ExitBecause::BootstrapFailed { why } => format!("the new cluster could not be made: {why}"),
    }
}

/// Runs a member until it is asked to end.
///
/// # Errors
/// Everything that makes a member unable to begin or go on; each maps to an exit code of the command line.
pub async fn run(
    loaded: Loaded,
    path: Option<PathBuf>,
    environment: BTreeMap<String, String>,
) -> Result<(), RunError> {
    let Loaded { config, warnings, .. } = loaded;
    if nix::unistd::geteuid().is_root() {
        return Err(RunError::Root { data_dir: config.postgresql.data_dir.clone() });
    }
    log::init(&config.log).map_err(|source| system("open the log file", source))?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let major = wiring::server_major(&config).map_err(RunError::Programs)?;
    let effective = config::effective(&config, Some(&wiring::first_config(&config)), major)
        .map_err(RunError::Settings)?;
    let _lock = lock(&config.postgresql.data_dir)?;
    let signals = Signals::listen().map_err(|source| system("listen for signals", source))?;
    reap::become_subreaper().map_err(|source| system("become the reaper of orphans", source))?;
    let reaper = tokio::spawn(reap::reap_forever());

    let postgres = Postgres::new(wiring::postgres_setup(&config), wiring::parameters(&config, &effective));
    let fencing = Arc::new(Fencing::new(postgres.fence().map_err(RunError::Postgres)?));
    adopt(&postgres, &fencing).await?;

    let api_setup = wiring::api_setup(&config);
    let listener = api::bind(&api_setup).await.map_err(RunError::Api)?;
    let me = wiring::me(&config);
    let (handle, Orders { orders, status }) =
        handle(Status::starting(&me, &config.scope, &effective.settings));
    let (api_sender, api_receiver) = watch::channel(Arc::new(api_setup));
    let (stop_serving, serving_ends) = oneshot::channel::<()>();
    let server = tokio::spawn(api::serve(listener, api_receiver, handle, async {
        // Ends with the loop, also when the loop fails.
        let _ = serving_ends.await;
    }));

    let setup = wiring::etcd_setup(&config);
    let peers = Peers::default();
    let etcd = Etcd::connect(setup.clone()).map_err(RunError::Etcd)?;
    let (relist, relist_every) = watch::channel(effective.settings.loop_wait);
    let mut view = etcd::watch(etcd.clone(), relist_every);
    let first = first_view(&etcd, &mut view).await?;
    refuse_duplicate(&me, &first, &peers).await?;
    let keeper = keep_lease(&postgres, &fencing, &me, setup, first, effective.settings.ttl)?;

    let (event_sender, events) = mpsc::unbounded_channel();
    let (progress_sender, progress) = watch::channel(Progress::default());
    let tools = Tools {
        name: me.name.clone(),
        postgres: postgres.clone(),
        etcd,
        fencing: fencing.clone(),
        progress: progress_sender,
        events: event_sender,
        first_config: wiring::first_config(&config),
    };
    let cycle = Cycle {
        scope: config.scope.clone(),
        me,
        tools,
        peers,
        keeper: Some(Arc::new(keeper)),
        fencing,
        dynamic: Dynamic::new((path, environment), config, effective, major, relist, api_sender),
        watch: PostgresWatch::new(postgres),
        view,
        progress,
        events,
        orders,
        signals,
        status,
        state: State::default(),
    };
    let because = cycle.run().await;
    drop(stop_serving);
    reaper.abort();
    // A server task that panicked has said so; the exit code is the loop's.
    let _ = server.await;
    match because {
        ExitBecause::Asked => Ok(()),
        ExitBecause::ForeignDataDirectory { .. } | ExitBecause::BootstrapFailed { .. } => {
            Err(RunError::Ended(because))
        }
    }
}

fn system(what: &str, source: std::io::Error) -> RunError {
    RunError::System { what: format!("cannot {what}"), source }
}

/// One supervisor for one data directory: the lock lies beside it and dies with this process.
fn lock(data_dir: &Path) -> Result<Flock<std::fs::File>, RunError> {
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

/// Takes over a Postgres that runs already. If it is a primary it has a few seconds to prove its lease.
async fn adopt(postgres: &Postgres, fencing: &Fencing) -> Result<(), RunError> {
    if !postgres.adopt().await.map_err(RunError::Postgres)? {
        return Ok(());
    }
    let standby = matches!(&*postgres.process().borrow(), Process::Up { standby_start: true, .. });
    let primary = match postgres.sql_facts().await {
        Ok(sql) => sql.is_primary(),
        Err(_) => !standby,
    };
    tracing::info!(primary, "PostgreSQL was running already and goes on");
    if primary {
        fencing.want_until(clock::now() + ADOPTED_PRIMARY_WITHIN);
    }
    Ok(())
}

/// Waits until etcd answers, and says so while it does not. Only refused credentials end it.
async fn first_view(etcd: &Etcd, view: &mut watch::Receiver<Option<View>>) -> Result<View, RunError> {
    loop {
        if let Some(seen) = view.borrow_and_update().clone() {
            return Ok(seen);
        }
        if tokio::time::timeout(ETCD_REMINDER, view.changed()).await.is_ok() {
            continue;
        }
        match etcd.read(ETCD_REMINDER).await {
            Ok(_) => {}
            Err(error @ etcd::EtcdError::Authentication(_)) => return Err(RunError::Etcd(error)),
            Err(error) => tracing::warn!(error = super::jobs::chain(&error), "waiting for etcd"),
        }
    }
}

/// A member of my name that answers elsewhere is alive: this one must not begin.
async fn refuse_duplicate(me: &Me, first: &View, peers: &Peers) -> Result<(), RunError> {
    let recorded = first.cluster.members.get(&me.name).and_then(|key| key.record.api_url.clone());
    let Some(api_url) = recorded.filter(|url| *url != me.api_url) else { return Ok(()) };
    let url = match api_url.rsplit_once('/') {
        Some((base, _)) => format!("{base}/liveness"),
        None => api_url.clone(),
    };
    let call =
        Call { method: "GET".to_owned(), url, body: None, credentials: None, within: DUPLICATE_ASK_WITHIN };
    match peers.call(call).await {
        Ok(_any_answer) => Err(RunError::DuplicateName { name: me.name.to_string(), api_url }),
        Err(_) => Ok(()),
    }
}

/// Starts renewing. A running primary whose member record says that it is mine goes on under its former lease, so
/// that a restart of the supervisor costs no leadership.
fn keep_lease(
    postgres: &Postgres,
    fencing: &Arc<Fencing>,
    me: &Me,
    setup: EtcdSetup,
    first: View,
    ttl: Duration,
) -> Result<LeaseKeeper, RunError> {
    let running = matches!(&*postgres.process().borrow(), Process::Up { .. });
    let resumed = running.then(|| former_lease(me, &first)).flatten();
    if let Some(lease) = resumed {
        tracing::info!(%lease, "going on under the lease of my former self");
    }
    let fencing = fencing.clone();
    let on_confirmed = Box::new(move |facts: &LeaseFacts| fencing.renewed(facts));
    etcd::keep_lease(setup, ttl, resumed, on_confirmed).map_err(RunError::Etcd)
}

/// The lease on the leader key, if the key and the member record beside it are this member's own.
fn former_lease(me: &Me, first: &View) -> Option<LeaseId> {
    let leader = first.cluster.leader.as_ref().filter(|leader| leader.name == me.name)?;
    let member = first.cluster.members.get(&me.name)?;
    let same_place = member.record.api_url.as_deref() == Some(me.api_url.as_str())
        && member.record.conn_url.as_deref() == Some(me.conn_url.as_str());
    leader.lease.filter(|lease| same_place && member.lease == Some(*lease))
}

/// Nothing was looked at yet.
impl Status {
    fn starting(me: &Me, scope: &str, settings: &crate::model::Settings) -> Status {
        let now: Moment = clock::now();
        let record = serde_json::from_value(serde_json::json!({"state": "stopped", "role": "uninitialized"}));
        let record: crate::model::MemberRecord = record.expect("a record with every other field absent");
        Status {
            me: me.clone(),
            scope: scope.to_owned(),
            settings: settings.clone(),
            view: None,
            etcd_last_seen: 0,
            lease: LeaseFacts::default(),
            postgres: crate::model::PostgresFacts::default(),
            state: record.state,
            role: record.role,
            record,
            job: None,
            because: "starting".to_owned(),
            hand_over: None,
            scheduled_restart: None,
            clone_progress: None,
            ticked_at: now,
            next_tick_by: now + settings.loop_wait,
            counters: BTreeMap::new(),
        }
    }
}
