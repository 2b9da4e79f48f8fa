//! Build, run, drain: one page that shows what a member consists of.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::certificates::Certificates;
use super::cycle::{Cycle, State};
use super::dynamic::Dynamic;
use super::fencing::Fencing;
use super::jobs::Tools;
use super::pods::Pods;
use super::startup::{self, FirstLook, Waiting};
use super::store_file::StoreFile;
use super::{Orders, Status, handle, log, perform, secrets, wiring};
use crate::api;
use crate::config::{self, Config, Loaded, Sources, WriteAccess};
use crate::core::member::Member;
use crate::etcd::{self, Etcd, LeaseKeeper};
use crate::fence::FenceError;
use crate::model::{ExitBecause, Process, StopMode};
use crate::os::notify::Systemd;
use crate::os::signal::Signals;
use crate::os::tls::TlsError;
use crate::os::{clock, reap};
use crate::postgres::{Postgres, Progress};

/// A clean stop before anything else was done may take this long.
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// Why `run` could not begin, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// PostgreSQL refuses to run as root, and there is nobody else to be.
    #[error(
        "PostgreSQL does not run as root, and there is no user `{user}` to become: create one, or start this as the \
         user that shall own {data_dir}"
    )]
    Root {
        /// Who was looked for.
        user: &'static str,
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
    /// The data directory holds something, and it is no database.
    #[error(
        "{data_dir} is not empty and holds no PostgreSQL database: name another `postgresql.data_dir`, or empty it"
    )]
    NotADatabase {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// The REST interface cannot listen.
    #[error("cannot serve REST")]
    Api(#[source] api::ApiError),
    /// The certificates of the REST interface cannot be used.
    #[error("cannot use the certificates of the REST interface")]
    Certificates(#[source] TlsError),
    /// PostgreSQL's programs are missing or of an unsupported version.
    #[error("{0}")]
    Programs(String),
    /// The data directory was made by another major version.
    #[error("{0}")]
    OtherVersion(String),
    /// What the supervisor needs beside the data directory cannot be there.
    #[error("{why}: {expected}")]
    BesideData {
        /// What stands in the way.
        why: String,
        /// What to do.
        expected: String,
    },
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
    /// A member is there whose replication slot would be this one's.
    #[error(
        "the names {name} and {other} both become the replication slot {slot}, which only one of them can use; give \
         this member another `name`, one that differs in more than case, `-`, `.` and `_`, within its first 63 letters"
    )]
    SameSlot {
        /// The name.
        name: String,
        /// The member that is there.
        other: String,
        /// The slot.
        slot: String,
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
    /// There is no guard, and so never a primary.
    #[error("cannot guard PostgreSQL")]
    Fence(#[source] FenceError),
    /// PostgreSQL cannot be supervised.
    #[error("cannot supervise PostgreSQL")]
    Postgres(#[source] crate::postgres::Error),
}

fn exit_text(because: &ExitBecause) -> String {
    match because {
        ExitBecause::Asked => "ended as asked".to_owned(),
        ExitBecause::ForeignDataDirectory { mine, cluster } => format!(
            "the data directory belongs to the cluster with system identifier {mine}, but this scope's is {cluster}: \
             mount the right volume, or correct `scope`. Where both are meant for this scope, one has to go. To keep \
             {cluster}: move the data directory here away and start this member, which is then cloned; what only it \
             holds is not in the cluster. To keep {mine}: end all members, move the data directories of {cluster} away, \
             delete the scope's keys in etcd (`etcdctl del --prefix /NAMESPACE/SCOPE/`), and start this member first; \
             what was written to {cluster} is lost. Delete neither before you have looked into both"
        ),
        ExitBecause::BootstrapFailed { why } => format!("the new cluster could not be made: {why}"),
    }
}

/// Runs a member until it is asked to end.
///
/// # Errors
/// Everything that makes a member unable to begin or go on; each maps to an exit code of the command line.
pub async fn run(loaded: Loaded, sources: Sources) -> Result<(), RunError> {
    log::init(&loaded.config.log).map_err(|source| system("open the log", source))?;
    let ended = supervise(loaded, sources).await;
    log::flush();
    ended
}

async fn supervise(loaded: Loaded, sources: Sources) -> Result<(), RunError> {
    let Loaded { config, warnings, .. } = loaded;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    warn_of_access(config.restapi.write_access());
    let major = look_at_machine(&config)?;
    let text = wiring::recalled_config(&config);
    let effective = config::effective(&config, Some(&text), major).map_err(RunError::Settings)?;
    let _lock = startup::lock(&config.postgresql.data_dir)?;
    let mut signals = Signals::listen().map_err(|source| system("listen for signals", source))?;
    reap::become_subreaper().map_err(|source| system("become the reaper of orphans", source))?;
    let reaper = tokio::spawn(reap::reap_forever());

    let postgres = Postgres::new(wiring::postgres_setup(&config, &effective), wiring::parameters(&effective));
    let fence_setup = wiring::fence_setup(&config);
    let Some(fenced) = startup::fence_and_adopt(&postgres, fence_setup, &mut signals).await? else {
        return Ok(());
    };
    let fencing = fenced.fencing.clone();
    let pods = Pods::start(wiring::kube_setup(&config, &sources.environment), &postgres);

    let mut api_setup = wiring::api_setup(&config);
    let certificates = Certificates::read(&config, &mut api_setup).map_err(RunError::Certificates)?;
    let listener = api::bind(&api_setup).await.map_err(RunError::Api)?;
    let me = wiring::me(&config);
    let (handle, Orders { mut orders, status }) =
        handle(Status::starting(&me, &config.scope, &effective.settings, clock::now()));
    let (api_sender, api_receiver) = watch::channel(Arc::new(api_setup));
    let (stop_serving, serving_ends) = oneshot::channel::<()>();
    let server = tokio::spawn(api::serve(listener, api_receiver, handle, async {
        // Ends with the loop, also when the loop fails.
        let _ = serving_ends.await;
    }));

    let peers = certificates.peers.clone();
    let certificate_files = certificates.files();
    tokio::spawn(certificates.follow(api_sender.clone()));
    let etcd = Etcd::connect(wiring::etcd_setup(&config)).map_err(RunError::Etcd)?;
    let store = StoreFile::recall(&config.postgresql.data_dir, &etcd);
    let (relist, relist_every) = watch::channel(effective.settings.loop_wait);
    let mut view = etcd::watch(etcd.clone(), relist_every);
    let waiting = Waiting { orders: &mut orders, status: &status, signals: &mut signals };
    let first = match startup::first_view(&etcd, &mut view, waiting).await? {
        FirstLook::Seen(first) => first,
        FirstLook::AskedToEnd => return stop_and_end(&postgres, &fencing, &pods).await,
    };
    startup::refuse_duplicate(&me, &first, &peers).await?;
    let ttl = effective.settings.ttl;
    let (keeper, probe) = startup::keep_lease(&postgres, &fenced, &me, &etcd, *first, ttl)?;

    let (report_sender, reports) = mpsc::unbounded_channel();
    let (progress_sender, progress) = watch::channel(Progress::default());
    let secret_files = config::secret_files(&sources.environment);
    let rotation = secrets::Rotation::recalled(&postgres, &secret_files);
    tokio::spawn(secrets::watch(secret_files, report_sender.clone()));
    let tools = Tools {
        name: me.name.clone(),
        postgres: postgres.clone(),
        etcd,
        fencing: fencing.clone(),
        progress: progress_sender,
        reports: report_sender,
        first_config: wiring::first_config(&config),
        kube: pods.kube(),
    };
    pods.lead_by(&keeper);
    let writes = tools.etcd.writes();
    let lease = Arc::clone(&keeper);
    let ended_postgres = postgres.clone();
    let cycle = Cycle {
        core: Member::new(me.clone(), store.recalled()),
        state: State::recalled(rotation, store),
        scope: config.scope.clone(),
        member: perform::publish_members(&tools),
        tools,
        peers,
        keeper: Some(keeper),
        fencing: fencing.clone(),
        service: Systemd::of(&sources.environment),
        dynamic: Dynamic::new(sources, config, effective, major, relist, api_sender, certificate_files),
        probe,
        pods,
        view,
        progress,
        writes,
        reports,
        orders,
        signals,
        status,
    };
    let because = cycle.run().await;
    fencing.leave(because == ExitBecause::Asked);
    end_lease(&ended_postgres, &lease).await;
    drop(stop_serving);
    reaper.abort();
    // A server task that panicked has said so; the exit code is the loop's.
    let _ = server.await;
    if because == ExitBecause::Asked { Ok(()) } else { Err(RunError::Ended(because)) }
}

/// Says who begins, and whether this machine has what it needs; gives the major version of PostgreSQL's programs.
fn look_at_machine(config: &Config) -> Result<u32, RunError> {
    tracing::info!(
        scope = config.scope,
        name = %config.name,
        etcd = config.etcd.endpoints.join(", "),
        data_dir = %config.postgresql.data_dir.display(),
        "starting"
    );
    let major = config::server_major(config).map_err(RunError::Programs)?;
    config::data_major(config, major).map_err(RunError::OtherVersion)?;
    config::beside_data(config).map_err(|(why, expected)| RunError::BesideData { why, expected })?;
    Ok(major)
}

/// Says who may change something over REST where no setting does.
pub(super) fn warn_of_access(access: WriteAccess) {
    match access {
        WriteAccess::Configured => {}
        WriteAccess::LocalAndMembers | WriteAccess::Everybody => tracing::warn!("{access}"),
    }
}

/// Nobody waits for the lease of a member that has gone, unless its PostgreSQL was left running.
async fn end_lease(postgres: &Postgres, lease: &LeaseKeeper) {
    if !matches!(*postgres.process().borrow(), Process::Down { .. }) {
        return;
    }
    if let Err(error) = lease.revoke().await {
        tracing::warn!(%error, "could not revoke the lease; it expires after its TTL");
    }
}

pub(super) fn system(what: &str, source: std::io::Error) -> RunError {
    RunError::System { what: format!("cannot {what}"), source }
}

/// Asked to end before etcd ever answered: there is no leader key to hand over.
async fn stop_and_end(postgres: &Postgres, fencing: &Fencing, pods: &Pods) -> Result<(), RunError> {
    pods.leave().await;
    postgres.stop(StopMode::Fast, STOP_WITHIN).await.map_err(RunError::Postgres)?;
    fencing.begin_unarmed();
    fencing.leave(true);
    Ok(())
}
