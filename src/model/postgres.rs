//! Facts about the local Postgres: its data directory, its process and its answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Branch, LivenessFacts, Lsn, Moment, OwnAccess, SyncFacts, SyncOwner, Timeline, TimelineHistory};

/// Everything a tick knows of the local Postgres.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PostgresFacts {
    /// The data directory.
    pub data: DataDirectory,
    /// The postmaster.
    pub process: Process,
    /// The last successful look inside, if this postmaster answered at all.
    pub sql: Option<SqlFacts>,
    /// Why the newest look inside failed; `None` when it succeeded.
    pub sql_trouble: Option<String>,
    /// Since when every look was turned away by a server that does not recover and is not full: its disk may be.
    pub turned_away_since: Option<Moment>,
    /// The history file of the newest timeline on disk.
    pub history: TimelineHistory,
    /// Per parameter old and new value, while a restart is needed.
    pub pending_restart: BTreeMap<String, (String, String)>,
    /// Whether it proves that it works, while it may be primary.
    pub liveness: LivenessFacts,
    /// Roles and databases whose commits wait for no standby.
    pub unsynchronous: Vec<String>,
    /// Clients are kept out.
    pub clients_locked_out: bool,
    /// Who says what `synchronous_standby_names` is.
    pub sync_owner: SyncOwner,
    /// How the supervisor gets in.
    #[serde(default)]
    pub access: OwnAccess,
}

impl PostgresFacts {
    /// The newest look inside, unless it failed or the postmaster is down.
    pub fn answering(&self) -> Option<&SqlFacts> {
        match self.process {
            Process::Up { .. } if self.sql_trouble.is_none() => self.sql.as_ref(),
            Process::Up { .. } | Process::Down { .. } => None,
        }
    }

    /// True if this Postgres was last seen, or may be, accepting writes.
    pub fn may_be_primary(&self) -> bool {
        match (&self.process, &self.sql) {
            (Process::Down { .. }, _) => false,
            (Process::Up { standby_start: false, .. }, _) => true,
            (Process::Up { .. }, Some(sql)) => matches!(sql.standby, Standby::No),
            (Process::Up { .. }, None) => false,
        }
    }

    /// The control file, where the directory has one.
    pub fn control(&self) -> Option<&ControlFile> {
        match &self.data {
            DataDirectory::Ready(control) => Some(control),
            DataDirectory::Empty
            | DataDirectory::HalfMade { .. }
            | DataDirectory::Inaccessible { .. }
            | DataDirectory::Unknown => None,
        }
    }

    /// How far the local history goes at most: nothing lies here that is beyond it. `None` while a running Postgres has
    /// not read all that it has. Of one that does not answer it is what lay here when the directory was last read.
    pub fn branch_at_most(&self) -> Option<Branch> {
        if let Some(sql) = self.answering() {
            return self.branch().filter(|_| sql.is_exact());
        }
        let control = self.control()?;
        // Nothing comes after a shutdown checkpoint.
        if control.state == ControlState::ShutDown && !control.is_unfinished_copy() {
            return self.branch();
        }
        let known = self.branch()?;
        match &control.segments {
            Some(segments) if known.timeline == segments.timeline => {
                Some(Branch { end: segments.end.max(known.end), ..segments.clone() })
            }
            Some(segments) if known.timeline < segments.timeline => Some(segments.clone()),
            Some(_) | None => Some(known),
        }
    }

    /// How far the local history goes: asked of a running Postgres, read from the control file of a stopped one.
    pub fn branch(&self) -> Option<Branch> {
        let (timeline, end) = match self.answering() {
            Some(sql) => (sql.timeline?, sql.lsn()),
            None => self.control()?.end_of_wal(),
        };
        let history = TimelineHistory(
            self.history.0.iter().take_while(|switch| switch.timeline < timeline).cloned().collect(),
        );
        Some(Branch { history, timeline, end: Some(end) })
    }
}

/// What lies in the data directory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum DataDirectory {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// Missing or empty: to be bootstrapped or cloned.
    Empty,
    /// A bootstrap, clone or rewind was interrupted: the marker beside the directory says which. Never started.
    HalfMade {
        /// `bootstrap`, `clone` or `rewind`.
        by: String,
    },
    /// Cannot be read; the message names the path and the error.
    Inaccessible {
        /// What the operating system said.
        error: String,
    },
    /// Holds a cluster.
    Ready(ControlFile),
}

impl DataDirectory {
    /// What was here before may lie aside.
    pub fn is_interrupted_clone(&self) -> bool {
        matches!(self, DataDirectory::HalfMade { by } if by == "clone")
    }

    /// Nothing can come of it any more: neither as it is nor by what an interrupted clone has set aside.
    pub fn holds_nothing(&self) -> bool {
        match self {
            DataDirectory::Empty => true,
            DataDirectory::HalfMade { .. } => !self.is_interrupted_clone(),
            DataDirectory::Unknown | DataDirectory::Inaccessible { .. } | DataDirectory::Ready(_) => false,
        }
    }
}

/// What `pg_controldata` prints, as far as decisions need it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlFile {
    /// "Database system identifier".
    pub system_id: u64,
    /// "Database cluster state".
    pub state: ControlState,
    /// "Latest checkpoint location".
    pub checkpoint: Lsn,
    /// "Latest checkpoint's TimeLineID".
    pub checkpoint_timeline: Timeline,
    /// "Minimum recovery ending location"; zero when none.
    pub min_recovery: Lsn,
    /// "Min recovery ending loc's timeline"; zero when none.
    pub min_recovery_timeline: Timeline,
    /// Data checksums are on.
    pub checksums: bool,
    /// `wal_log_hints` is on.
    pub wal_log_hints: bool,
    /// Written with `wal_level` minimal: no standby starts from it.
    #[serde(default)]
    pub minimal_wal: bool,
    /// A `backup_label` lies there: a fresh clone that has never been started. Its state is its source's.
    pub backup_label: bool,
    /// "Backup start location"; zero when none. From the first start of a copy until it has replayed all that was
    /// written while it was made.
    #[serde(default)]
    pub backup_start: Lsn,
    /// The newest timeline that has a WAL segment in `pg_wal`, with its history and the end of its last segment: WAL
    /// ends there or before. Not in the control file, which knows only what was replayed.
    #[serde(default)]
    pub segments: Option<Branch>,
    /// "… setting" lines a standby must not undercut: parameter to value.
    pub standby_minimums: BTreeMap<String, u64>,
}

impl ControlFile {
    /// A copy (base backup, pg_rewind) that was never consistent: it needs WAL that its source wrote meanwhile, which
    /// may not lie here, and nothing was ever written to it that its source does not have.
    pub fn is_unfinished_copy(&self) -> bool {
        self.backup_label || self.backup_start.is_known()
    }

    /// The directory of a primary, stopped or crashed: after etcd was wiped only such a member may rebuild it.
    pub fn is_of_primary(&self) -> bool {
        let primary = match self.state {
            ControlState::ShutDown
            | ControlState::ShuttingDown
            | ControlState::InCrashRecovery
            | ControlState::InProduction => true,
            ControlState::StartingUp | ControlState::ShutDownInRecovery | ControlState::InArchiveRecovery => {
                false
            }
        };
        primary && !self.backup_label
    }

    /// Where local WAL ends as far as the control file knows. Exact after a clean stop; after a crash only a
    /// lower bound, so that crash recovery has to come first.
    pub fn end_of_wal(&self) -> (Timeline, Lsn) {
        match self.state {
            ControlState::ShutDownInRecovery | ControlState::InArchiveRecovery
                if self.min_recovery.is_known() =>
            {
                (self.min_recovery_timeline, self.min_recovery)
            }
            ControlState::ShutDown
            | ControlState::ShutDownInRecovery
            | ControlState::ShuttingDown
            | ControlState::InCrashRecovery
            | ControlState::InArchiveRecovery
            | ControlState::InProduction
            // The checkpoint record begins there, so WAL ends behind it: at the least one byte is not the leader's if
            // the leader's history parts at its beginning.
            | ControlState::StartingUp => (self.checkpoint_timeline, Lsn(self.checkpoint.0 + 1)),
        }
    }
}

/// "Database cluster state".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlState {
    /// `starting up`
    StartingUp,
    /// `shut down`: a primary that stopped cleanly.
    ShutDown,
    /// `shut down in recovery`: a standby that stopped cleanly.
    ShutDownInRecovery,
    /// `shutting down`
    ShuttingDown,
    /// `in crash recovery`
    InCrashRecovery,
    /// `in archive recovery`: a standby that runs, or did not stop cleanly.
    InArchiveRecovery,
    /// `in production`: a primary that runs, or did not stop cleanly.
    InProduction,
}

/// The postmaster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Process {
    /// No postmaster and none of its children is left.
    Down {
        /// How the last one ended, if this supervisor saw it.
        exit: Option<String>,
    },
    /// A postmaster runs.
    Up {
        /// Its process.
        pid: i32,
        /// When this supervisor started or adopted it.
        since: Moment,
        /// Started with `standby.signal`, and no promotion has begun since: it cannot be writable.
        standby_start: bool,
    },
}

impl Default for Process {
    fn default() -> Process {
        Process::Down { exit: None }
    }
}

/// One look inside a running Postgres, in one query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SqlFacts {
    /// When the query was sent.
    pub at: Moment,
    /// `server_version_num`.
    pub server_version: u32,
    /// `pg_postmaster_start_time()`, RFC 3339 with microseconds.
    pub postmaster_start_time: String,
    /// Primary: the timeline it writes. Standby: the received one, or the one being replayed.
    pub timeline: Option<Timeline>,
    /// Standby or not, with what belongs to each.
    pub standby: Standby,
    /// Primary: `pg_current_wal_flush_lsn()`; standby: zero.
    pub flushed: Lsn,
    /// Replication slots that are not temporary.
    pub slots: BTreeMap<String, SlotFacts>,
    /// Synchronous replication.
    pub sync: SyncFacts,
    /// Rows of `pg_stat_replication`, for `/patroni`.
    pub replication: Vec<serde_json::Map<String, serde_json::Value>>,
}

impl SqlFacts {
    /// The furthest position this Postgres holds.
    pub fn lsn(&self) -> Lsn {
        match &self.standby {
            Standby::No => self.flushed,
            Standby::Yes { received, replayed, .. } => (*received).max(*replayed),
        }
    }

    /// Whether [`SqlFacts::lsn`] is all it holds, and not what it has come to know of it since it was started: a
    /// standby asks for WAL only when it has read all that lies here.
    pub fn is_exact(&self) -> bool {
        match &self.standby {
            Standby::No => true,
            Standby::Yes { received, .. } => received.is_known() || self.sync.replay_rests,
        }
    }

    /// Whether WAL comes in.
    pub fn streams(&self) -> bool {
        matches!(&self.standby, Standby::Yes { receiver: Some(receiver), .. } if receiver.status == "streaming")
    }

    /// Whether WAL may be coming in.
    pub fn receives(&self) -> bool {
        matches!(self.standby, Standby::Yes { receiver: Some(_), .. })
    }

    /// True for a Postgres that is not in recovery.
    pub fn is_primary(&self) -> bool {
        matches!(self.standby, Standby::No)
    }
}

/// Whether Postgres is in recovery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Standby {
    /// `pg_is_in_recovery()` is false: it accepts writes.
    No,
    /// It replays.
    Yes {
        /// Received and written; zero before the first.
        received: Lsn,
        /// Replayed.
        replayed: Lsn,
        /// Commit time of the last replayed transaction, RFC 3339.
        replayed_timestamp: Option<String>,
        /// `pg_is_wal_replay_paused()`.
        paused: bool,
        /// The WAL receiver, if one runs.
        receiver: Option<WalReceiver>,
        /// `restore_command` is set.
        restores: bool,
    },
}

/// A row of `pg_stat_wal_receiver`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WalReceiver {
    /// `streaming` and others.
    pub status: String,
    /// Whom it receives from.
    pub host: Option<String>,
    /// On which port.
    pub port: Option<u16>,
    /// Through which slot.
    pub slot: Option<String>,
    /// The sender's end of WAL as last reported.
    pub latest_end: Lsn,
}

/// A row of `pg_replication_slots`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SlotFacts {
    /// `physical` or `logical`.
    pub kind: String,
    /// A logical one's output plugin.
    #[serde(default)]
    pub plugin: Option<String>,
    /// A logical one's database.
    #[serde(default)]
    pub database: Option<String>,
    /// A walsender uses it.
    pub active: bool,
    /// Physical: `restart_lsn`; logical: `confirmed_flush_lsn`.
    pub position: Option<Lsn>,
    /// The oldest WAL that it holds back.
    #[serde(default)]
    pub restart: Option<Lsn>,
    /// PostgreSQL itself keeps it on standbys, too (17 and later).
    #[serde(default)]
    pub failover: bool,
    /// PostgreSQL itself brought it from the primary.
    #[serde(default)]
    pub synced: bool,
    /// Holds back vacuum.
    pub has_xmin: bool,
    /// `wal_status` is `lost`.
    pub lost: bool,
}
