//! The one door to the local Postgres.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::configuration::ServerConfiguration;
use super::postmaster::Postmaster;
use super::promote::PendingPromotion;
use super::session::Access;
use super::slot_copies::SlotCopies;
use super::sql::KeptConnection;
use super::start_primary::HeldPostmaster;
use super::{
    Adoption, Error, Parameters, Probe, Setup, access_rules, adoption, bootstrap, control, facts, kept,
    logical, preflight, process, promote, rewind, running, slot_copies, slots, sql, timelines,
};
use crate::model::{
    Branch, DataDirectory, FollowTarget, LeaderSlots, LeaderSlotsQuestion, Liveness, LogicalSlotChanges, Lsn,
    PreflightFacts, Process, RewindReport, Settings, SettingsRole, SlotChanges, SqlFacts, StopMode,
    SyncOwner, Timeline, TimelineHistory,
};
use crate::os::clock;
use crate::os::postgres_processes::PostgresProcesses;
use crate::os::process::ProcessId;

/// The local Postgres. Cheap to clone; every clone is the same one. Dropping it leaves the postmaster running.
#[derive(Clone)]
pub struct Postgres {
    pub(super) inner: Arc<PostgresInner>,
}

/// What all clones share: parts that each own their lock.
pub(super) struct PostgresInner {
    pub(super) setup: Setup,
    pub(super) postmaster: Postmaster,
    pub(super) configuration: ServerConfiguration,
    /// How the supervisor itself gets in.
    pub(super) access: Access,
    pub(super) connection: KeptConnection,
    /// Logical slots for the next start.
    pub(super) slot_copies: SlotCopies,
    /// The check before a switchover under way.
    pub(super) preflight: tokio::sync::Mutex<()>,
    /// What the probe knows.
    liveness: Mutex<Liveness>,
}

impl PostgresInner {
    pub(super) fn liveness(&self) -> MutexGuard<'_, Liveness> {
        self.liveness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn parameters(&self) -> Parameters {
        self.configuration.parameters()
    }

    /// It has answered as a primary.
    pub(super) fn has_started(&self) {
        if let Some(processes) = self.postmaster.processes() {
            self.liveness().has_started(processes.pid, clock::now());
        }
    }

    pub(super) fn are_clients_locked_out(&self) -> bool {
        let read = |parameters: &_| access_rules::read_client_lockout(&self.setup, parameters);
        self.configuration.are_clients_locked_out(read)
    }
}

/// How a start ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// It accepts connections.
    Ready,
    /// The postmaster runs, but recovery has not reached consistency yet: not an error, look again later.
    StillRecovering,
}

/// Which step ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It was down already.
    WasDown,
    /// SIGINT: a clean shutdown with a checkpoint.
    Fast,
    /// SIGQUIT: the next start runs crash recovery.
    Immediate,
    /// SIGKILL of every process.
    Killed,
}

/// How far a clone is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloneStatus {
    /// Bytes copied.
    pub done: u64,
    /// Bytes expected; zero while unknown.
    pub total: u64,
}

/// What another member said about its history.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaderHistory {
    /// Its history, timeline and (while in recovery) end. `end` is `None` for a primary.
    pub branch: Branch,
    /// It is a standby itself: nothing to rewind to.
    pub in_recovery: bool,
    /// The slot of whoever asks is there, or none is needed.
    pub has_slot: bool,
    /// Where its oldest WAL begins; zero while it has none.
    pub oldest: Lsn,
    /// Its system identifier.
    pub system_id: u64,
    /// Where its control file's checkpoint timeline is; a rewind is only safe when it equals `branch.timeline`.
    pub checkpoint_timeline: Timeline,
}

impl Postgres {
    /// Nothing is touched yet.
    pub fn new(setup: Setup, parameters: Parameters) -> Postgres {
        let inner = PostgresInner {
            setup,
            postmaster: Postmaster::default(),
            configuration: ServerConfiguration::new(parameters),
            access: Access::default(),
            connection: KeptConnection::default(),
            slot_copies: SlotCopies::default(),
            preflight: tokio::sync::Mutex::default(),
            liveness: Mutex::new(Liveness::new(Settings::TTL_MIN, clock::now())),
        };
        Postgres { inner: Arc::new(inner) }
    }

    /// What it was set up with.
    pub fn setup(&self) -> &Setup {
        &self.inner.setup
    }

    /// The parameters as last applied.
    pub fn parameters(&self) -> Parameters {
        self.inner.parameters()
    }

    /// The postmaster: known at once when it ends. Down only when none of its processes is left.
    pub fn process(&self) -> watch::Receiver<Process> {
        self.inner.postmaster.subscribe()
    }

    /// True if the data directory holds something, and that is no database.
    pub fn holds_no_database(&self) -> bool {
        control::is_strange(&self.inner.setup)
    }

    /// What a fence has to know of it, while a postmaster runs.
    pub fn processes(&self) -> Option<PostgresProcesses> {
        self.inner.postmaster.processes()
    }

    /// Who adopted it knows that it may be a primary, or about to become one, whatever its files say.
    pub fn take_for_primary(&self) {
        self.inner.postmaster.may_be_primary();
    }

    /// Starts the thread in which this Postgres proves that it works, while it may be primary.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn probe(&self) -> Result<Probe, Error> {
        Probe::start(Arc::clone(&self.inner))
    }

    /// Something that changes whenever the recovery of the running postmaster advances; `None` when none recovers.
    pub fn recovery_mark(&self) -> Option<String> {
        process::recovery_mark(&self.inner)
    }

    /// Looks at the data directory: never fails, what is wrong is in the answer.
    pub async fn look(&self) -> (DataDirectory, TimelineHistory) {
        let (data, history) = control::look(&self.inner.setup).await;
        // The control file learns of a new timeline only with the next checkpoint, so a running Postgres knows better.
        let postmaster = &self.inner.postmaster;
        let is_up = postmaster.is_up() && matches!(data, DataDirectory::Ready(_));
        let running = postmaster.timeline().filter(|_| is_up);
        match running.map(|running| control::history(&self.inner.setup, running)) {
            Some(Ok(running)) => (data, running),
            Some(Err(error)) => control::inaccessible(&error),
            None => (data, history),
        }
    }

    /// Takes over a postmaster that runs on this data directory: what a former guard is armed for, or what its files
    /// name.
    pub async fn adopt(&self, guarded: Option<ProcessId>) -> Adoption {
        adoption::adopt(&self.inner, guarded)
    }

    /// Starts as a standby; `follow` `None`: nobody yet. Returns as soon as it accepts connections, or after
    /// `within` while it still recovers.
    pub async fn start_standby(
        &self,
        follow: Option<&FollowTarget>,
        within: Duration,
    ) -> Result<Started, Error> {
        process::start_standby(&self.inner, follow, within).await
    }

    /// Starts a process that waits before it becomes the postmaster of a primary, on the timeline that it has.
    pub async fn hold_primary(&self) -> Result<HeldPostmaster, Error> {
        HeldPostmaster::start(&self.inner).await
    }

    /// Stops by a staircase that begins at `mode`; `within` is the time of the first step. Returns when no process is
    /// left. If it is dropped, the signal stays sent.
    pub async fn stop(&self, mode: StopMode, within: Duration) -> Result<Stopped, Error> {
        process::stop(&self.inner, mode, within).await
    }

    /// Keeps aside the directory of a bootstrap that made no cluster.
    pub fn abandon_bootstrap(&self) -> Result<(), Error> {
        bootstrap::abandon(&self.inner)
    }

    /// Waits until it is ready to be promoted.
    pub async fn await_promotable(&self, within: Duration) -> Result<(), Error> {
        promote::await_promotable(&self.inner, within).await
    }

    /// Begins to promote the running standby; `None` where it is a primary already.
    pub async fn prepare_promotion(&self, within: Duration) -> Result<Option<PendingPromotion>, Error> {
        self.inner.slot_copies.forget();
        PendingPromotion::prepare(&self.inner, within).await
    }

    /// Right before a promotion: makes PostgreSQL choose a timeline above `above`, which other members have begun
    /// already although their history never reached this one.
    pub async fn reserve_timelines(&self, above: Timeline) -> Result<(), Error> {
        match self.inner.postmaster.timeline() {
            Some(mine) if mine < above => timelines::reserve(self.setup(), mine, above),
            Some(_) | None => Ok(()),
        }
    }

    /// CHECKPOINT.
    pub async fn checkpoint(&self, within: Duration) -> Result<(), Error> {
        sql::execute(&self.inner, "CHECKPOINT", "CHECKPOINT", within).await
    }

    /// Makes Postgres read its files again.
    pub async fn reload(&self) -> Result<(), Error> {
        running::reload(&self.inner)
    }

    /// Replaces the parameters: writes the files and, while it runs, reloads. Broken access rules are rolled back and
    /// returned as [`Error::BrokenAccessRules`]; the other parameters are then in force all the same.
    pub async fn apply(&self, parameters: Parameters) -> Result<(), Error> {
        running::apply(&self.inner, parameters).await
    }

    /// Keeps the dynamic configuration in force in the data directory, durably. Blocks until it is.
    pub fn keep_dynamic(&self, text: &str) -> Result<(), Error> {
        kept::keep_dynamic(&self.inner, text)
    }

    /// Points a running standby elsewhere, or nowhere. True when it is in force, false when it needs a restart
    /// (PostgreSQL 12).
    pub async fn follow(&self, target: Option<&FollowTarget>) -> Result<bool, Error> {
        running::follow(&self.inner, target).await
    }

    /// The role whose settings are written.
    pub fn settings_role(&self) -> SettingsRole {
        self.inner.configuration.role()
    }

    /// Changes that; in force after the next start.
    pub fn set_settings_role(&self, role: SettingsRole) {
        self.inner.configuration.set_role(role);
    }

    /// Drops slots, creates and advances physical ones. What is done already is no error.
    pub async fn set_slots(&self, changes: &SlotChanges) -> Result<(), Error> {
        slots::set(&self.inner, changes).await
    }

    /// Creates and moves logical slots, and returns those that cannot be moved any more. What fails is logged.
    pub async fn set_logical_slots(&self, changes: &LogicalSlotChanges) -> Vec<String> {
        logical::set(&self.inner, changes).await
    }

    /// The facts for the check before a switchover.
    pub async fn preflight_facts(&self) -> Result<PreflightFacts, Error> {
        preflight::facts(&self.inner).await
    }

    /// Asks the leader about its logical slots, and keeps copies for the next start.
    pub async fn leader_slots(&self, question: &LeaderSlotsQuestion) -> Result<LeaderSlots, Error> {
        slot_copies::ask(&self.inner, question).await
    }

    /// The owner of `synchronous_standby_names`.
    pub fn sync_owner(&self) -> SyncOwner {
        self.inner.configuration.sync_owner()
    }

    /// Changes that; in force after [`Postgres::write_sync_names`].
    pub fn set_sync_owner(&self, owner: SyncOwner) {
        self.inner.configuration.set_sync_owner(owner);
    }

    /// Puts `synchronous_standby_names` in force.
    pub async fn write_sync_names(&self) -> Result<(), Error> {
        let unwritten = |_: &Error| self.inner.configuration.sync_names_not_written();
        running::write_sync_names(&self.inner).inspect_err(unwritten)
    }

    /// True while clients are kept out.
    pub fn are_clients_locked_out(&self) -> bool {
        self.inner.are_clients_locked_out()
    }

    /// Keeps all but the superuser and replication out, or lets them in; after [`Postgres::write_client_lockout`].
    pub fn set_client_lockout(&self, closed: bool) {
        self.inner.configuration.set_client_lockout(closed);
    }

    /// Puts the client lockout in force, from the next connection on. It outlives supervisor and PostgreSQL.
    pub async fn write_client_lockout(&self) -> Result<(), Error> {
        running::write_client_lockout(&self.inner)
    }

    /// Resumes a paused replay.
    pub async fn resume_replay(&self) -> Result<(), Error> {
        let text = "SELECT pg_wal_replay_resume() WHERE pg_is_in_recovery()";
        sql::execute(&self.inner, "resume replay", text, sql::LOOK_WITHIN).await
    }

    /// Per parameter old and new value, while a restart is needed.
    pub async fn pending_restart(&self) -> Result<BTreeMap<String, (String, String)>, Error> {
        running::pending_restart(&self.inner).await
    }

    /// Roles and databases whose commits wait for no standby, in words.
    pub async fn unsynchronous(&self) -> Result<Vec<String>, Error> {
        running::unsynchronous(&self.inner).await
    }

    /// One look inside, on a connection that is kept.
    pub async fn sql_facts(&self) -> Result<SqlFacts, Error> {
        facts::look(&self.inner).await
    }

    /// Makes a new cluster with its users, which is down afterwards, and returns its system identifier. On failure the
    /// directory is kept aside as `<data_dir>.failed`.
    pub async fn bootstrap(&self) -> Result<u64, Error> {
        bootstrap::bootstrap(&self.inner).await
    }

    /// Runs crash recovery in single-user mode, so that the control file tells where WAL ends.
    pub async fn crash_recovery(&self) -> Result<(), Error> {
        rewind::crash_recovery(&self.inner).await
    }

    /// Asks another member for its timeline and history.
    pub async fn leader_history(&self, target: &FollowTarget) -> Result<LeaderHistory, Error> {
        sql::leader_history(&self.inner.setup, target).await
    }

    /// Keeps the WAL beyond `fork` (last common timeline, first position that differs) aside and runs pg_rewind.
    pub async fn rewind(&self, target: &FollowTarget, fork: (Timeline, Lsn)) -> Result<RewindReport, Error> {
        rewind::rewind(&self.inner, target, fork).await
    }
}

#[cfg(test)]
mod tests;
