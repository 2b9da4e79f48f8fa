//! Builds, runs and drains the parts of a member. The REST interface and the line to other members are given from
//! outside.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::cycle::{Cycle, LoopState};
use super::dynamic::LiveConfig;
use super::events::WakeLevels;
use super::failsafe::Failsafe;
use super::fencing::Fencing;
use super::hearing::Listener;
use super::jobs::Tools;
use super::journal::JournalKeeper;
use super::pods::Pods;
use super::serial::SerialThread;
use super::startup::{self, Fenced, FirstLook, WaitForEtcd};
use super::store_file::StoreFile;
use super::{Handle, Orders, PeerChannel, Status, handle, perform, roles, wiring};
use crate::config::{self, Config, Effective, Sources};
use crate::core::member::Member;
use crate::core::roles::RoleWork;
use crate::etcd::{self, Etcd, LeaseKeeper};
use crate::fence::FenceError;
use crate::model::{ExitBecause, Me, Process, StopMode, View};
use crate::os::notify::Systemd;
use crate::os::signal::Signals;
use crate::os::{clock, reap};
use crate::peer::Peers;
use crate::postgres::{CloneStatus, Postgres, Probe};

/// The limit of a clean stop before the loop has begun.
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// Why a member could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Another supervisor holds the lock beside the data directory.
    #[error("another matriarch already supervises {data_dir} (it holds the lock {lock})")]
    AlreadyRunning {
        /// The data directory.
        data_dir: PathBuf,
        /// The lock file.
        lock: PathBuf,
    },
    /// The data directory is not empty, and is no database.
    #[error(
        "{data_dir} is not empty and holds no PostgreSQL database: name another `postgresql.data_dir`, or empty it"
    )]
    NotADatabase {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// etcd refused the credentials.
    #[error("cannot use etcd")]
    Etcd(#[source] etcd::EtcdError),
    /// A member with this name runs elsewhere.
    #[error(
        "a member named {name} is already running and answers at {api_url}; give this one another `name`"
    )]
    DuplicateName {
        /// The name.
        name: String,
        /// The other member's `api_url`.
        api_url: String,
    },
    /// Another member's replication slot would have the same name as this one's.
    #[error(
        "the names {name} and {other} both become the replication slot {slot}, which only one of them can use; give \
         this member another `name`, one that differs in more than case, `-`, `.` and `_`, within its first 63 letters"
    )]
    SameSlot {
        /// The name.
        name: String,
        /// The other member.
        other: String,
        /// The slot.
        slot: String,
    },
    /// The loop ended on its own decision.
    #[error("{}", exit_text(.0))]
    Ended(ExitBecause),
    /// The operating system refused something.
    #[error("{what}")]
    System {
        /// The attempt.
        what: String,
        /// The error.
        #[source]
        source: std::io::Error,
    },
    /// The settings of the `bootstrap` section cannot be used.
    #[error("{0}")]
    Settings(#[source] config::Faults),
    /// There is no guard, so this member may never be a primary.
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

/// A member that knows its PostgreSQL and has not contacted its cluster yet.
pub struct Agent {
    config: Config,
    sources: Sources,
    effective: Effective,
    major: u32,
    me: Me,
    postgres: Postgres,
    fenced: Fenced,
    pods: Pods,
    signals: Signals,
    orders: Orders,
    channel: Arc<PeerChannel>,
    reaper: AbortHandle,
}

/// The parts of a member that need the cluster, for the loop.
struct Joined {
    etcd: Etcd,
    store: StoreFile,
    relist: watch::Sender<Duration>,
    view: watch::Receiver<Option<View>>,
    keeper: Arc<LeaseKeeper>,
    failsafe: Failsafe,
    probe: Probe,
}

impl Agent {
    /// Starts a guard, and puts a PostgreSQL that runs already under its protection. `major` is the version of
    /// PostgreSQL's programs. `None` when the member was asked to end before that was done.
    ///
    /// # Errors
    /// Every condition of this machine that prevents a start.
    pub async fn prepare(
        config: Config,
        sources: Sources,
        major: u32,
    ) -> Result<Option<(Agent, Handle)>, AgentError> {
        let text = wiring::recalled_config(&config);
        let effective = config::effective(&config, Some(&text), major).map_err(AgentError::Settings)?;
        let mut signals = Signals::listen().map_err(|source| system("listen for signals", source))?;
        reap::become_subreaper().map_err(|source| system("become the reaper of orphans", source))?;
        let reaper = tokio::spawn(reap::reap_forever()).abort_handle();
        let setup = wiring::postgres_setup(&config, &effective);
        let postgres = Postgres::new(setup, wiring::parameters(&effective));
        let fence_setup = wiring::fence_setup(&config);
        let Some(fenced) = startup::fence_and_adopt(&postgres, fence_setup, &mut signals).await? else {
            return Ok(None);
        };
        let pods = Pods::start(wiring::kube_setup(&config, &sources.environment), &postgres);
        let me = wiring::me(&config, &postgres.listen());
        let first = Status::starting(&me, &config.scope, &effective.settings, clock::now());
        let (handle, orders) = handle(first);
        let agent = Agent {
            config,
            sources,
            effective,
            major,
            me,
            postgres,
            fenced,
            pods,
            signals,
            orders,
            channel: handle.channel().clone(),
            reaper,
        };
        Ok(Some((agent, handle)))
    }

    /// Joins its cluster, and runs until it is asked to end. `peers`: the client for other members. `local` receives
    /// the local configuration each time it is read again.
    ///
    /// # Errors
    /// Every condition that prevents a member from joining its cluster, or from continuing.
    pub async fn run(mut self, peers: Peers, local: watch::Sender<Arc<Config>>) -> Result<(), AgentError> {
        let failsafe = Failsafe::new(&self.me, &peers, local.subscribe());
        let Some(joined) = self.join(&peers, failsafe).await? else {
            return stop_and_end(&self.postgres, &self.fenced.fencing, &self.pods).await;
        };
        self.pods.lead_by(&joined.keeper);
        let (postgres, fencing) = (self.postgres.clone(), self.fenced.fencing.clone());
        let (lease, reaper) = (Arc::clone(&joined.keeper), self.reaper.clone());
        let (because, scripts) = self.cycle(joined, peers, local)?.run().await;
        fencing.leave(because == ExitBecause::Asked);
        end_lease(&postgres, &lease).await;
        scripts.finish().await;
        reaper.abort();
        if because == ExitBecause::Asked { Ok(()) } else { Err(AgentError::Ended(because)) }
    }

    /// Waits until etcd shows the cluster, and begins to renew a lease. `None` when asked to end before.
    async fn join(&mut self, peers: &Peers, failsafe: Failsafe) -> Result<Option<Joined>, AgentError> {
        let setup = wiring::etcd_setup(&self.config);
        let Orders { orders, status } = &mut self.orders;
        let waiting = WaitForEtcd { orders, status, signals: &mut self.signals };
        let Some(setup) = startup::find_etcd(setup, waiting).await else { return Ok(None) };
        let with_announced = setup.with_announced;
        let etcd = Etcd::connect(setup).map_err(AgentError::Etcd)?;
        if with_announced {
            etcd::follow_members(etcd.clone());
        }
        let store = StoreFile::recall(&self.config.postgresql.data_dir, &etcd);
        let (relist, relist_every) = watch::channel(self.effective.settings.loop_wait);
        let mut view = etcd::watch(etcd.clone(), relist_every);
        let Orders { orders, status } = &mut self.orders;
        let waiting = WaitForEtcd { orders, status, signals: &mut self.signals };
        let first = match startup::first_view(&etcd, &mut view, waiting).await? {
            FirstLook::Seen(first) => first,
            FirstLook::AskedToEnd => return Ok(None),
        };
        startup::refuse_duplicate(&self.me, &first, peers).await?;
        let ttl = self.effective.settings.ttl;
        let (keeper, probe) = startup::keep_lease(
            &self.postgres,
            &self.fenced,
            &self.me,
            &etcd,
            *first,
            ttl,
            failsafe.clone(),
        )?;
        Ok(Some(Joined { etcd, store, relist, view, keeper, failsafe, probe }))
    }

    fn cycle(
        self,
        joined: Joined,
        peers: Peers,
        local: watch::Sender<Arc<Config>>,
    ) -> Result<Cycle, AgentError> {
        let Agent { config, sources, effective, me, postgres, channel, .. } = self;
        let Joined { etcd, store, relist, view, keeper, failsafe, probe } = joined;
        let fencing = self.fenced.fencing;
        let (report_sender, reports) = mpsc::unbounded_channel();
        let (progress_sender, progress) = watch::channel(CloneStatus::default());
        let secret_files = config::secret_files(&sources.environment);
        let in_files = config::role_passwords_are_in_files(&sources.environment);
        let roles = RoleWork::recalled(postgres.recall_passwords(), in_files);
        tokio::spawn(roles::watch(secret_files, sources.secrets, report_sender.clone()));
        let tools = Tools {
            name: me.name.clone(),
            postgres,
            etcd,
            fencing: fencing.clone(),
            progress: progress_sender,
            reports: report_sender,
            first_config: wiring::first_config(&config),
            local: local.subscribe(),
            kube: self.pods.kube(),
            looks: serial("looks")?,
            statements: serial("statements")?,
            logical_slots: serial("logical slots")?,
        };
        channel.lead_by(keeper.facts(), probe.clone());
        let journal = JournalKeeper::start(&config.postgresql.data_dir, &tools.etcd);
        roles::use_peer_keys(&channel, &config, &tools.postgres);
        let listener =
            Listener { me: me.clone(), peers: peers.clone(), channel: channel.clone(), view: view.clone() };
        tokio::spawn(listener.run());
        Ok(Cycle {
            wakes: WakeLevels::of(&tools, &probe, &keeper, &channel),
            core: Member::new(me, store.recalled()),
            state: LoopState::recalled(roles, store),
            scope: config.scope.clone(),
            member: perform::publish_members(&tools),
            tools,
            peers,
            channel,
            keeper: Some(keeper),
            failsafe,
            fencing,
            service: Systemd::of(&sources.environment),
            dynamic: LiveConfig::new(sources, config, effective, self.major, relist, local),
            probe,
            pods: self.pods,
            journal,
            view,
            progress,
            reports,
            orders: self.orders.orders,
            signals: self.signals,
            status: self.orders.status,
        })
    }
}

/// Revokes the lease of a member that ends, so that no member waits for it; not if its PostgreSQL was left running.
async fn end_lease(postgres: &Postgres, lease: &LeaseKeeper) {
    if !matches!(*postgres.process().borrow(), Process::Down { .. }) {
        return;
    }
    if let Err(error) = lease.revoke().await {
        tracing::warn!(%error, "could not revoke the lease; it expires after its TTL");
    }
}

fn serial(name: &str) -> Result<SerialThread, AgentError> {
    SerialThread::start(name).map_err(|source| system("start a thread", source))
}

fn system(what: &str, source: std::io::Error) -> AgentError {
    AgentError::System { what: format!("cannot {what}"), source }
}

/// Handles a request to end before etcd ever answered: there is no leader key to hand over.
async fn stop_and_end(postgres: &Postgres, fencing: &Fencing, pods: &Pods) -> Result<(), AgentError> {
    pods.leave().await;
    postgres.stop(StopMode::Fast, STOP_WITHIN).await.map_err(AgentError::Postgres)?;
    fencing.begin_unarmed();
    fencing.leave(true);
    Ok(())
}
