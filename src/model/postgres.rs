//! Facts about the local Postgres: its data directory, its process and its answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Branch, LivenessFacts, Lsn, Moment, OwnAccess, SyncFacts, SyncOwner, Timeline, TimelineHistory, Xid,
};

/// The state of the local Postgres, as one tick sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PostgresFacts {
    /// The data directory.
    pub data: DataDirectory,
    /// The postmaster.
    pub process: Process,
    /// The last successful query of its state, if this postmaster ever answered.
    pub sql: Option<SqlFacts>,
    /// Why the newest query failed; `None` when it succeeded.
    pub sql_trouble: Option<String>,
    /// Since when the server has rejected every query although it is neither in recovery nor out of connections: its
    /// disk may be full.
    pub turned_away_since: Option<Moment>,
    /// The history file of the newest timeline on disk.
    pub history: TimelineHistory,
    /// The timeline by SQL when `history` was read. While SQL shows another one, its history is not known yet.
    #[serde(default)]
    pub history_of: Option<Timeline>,
    /// The old and the new value of each parameter that needs a restart.
    pub pending_restart: BTreeMap<String, (String, String)>,
    /// Whether it proves that it works. Proofs are needed only while it may be primary.
    pub liveness: LivenessFacts,
    /// Roles and databases whose commits wait for no standby.
    pub unsynchronous: Vec<String>,
    /// The client lockout is on.
    pub clients_locked_out: bool,
    /// The source of the present value of `synchronous_standby_names`.
    pub sync_owner: SyncOwner,
    /// How the supervisor connects.
    #[serde(default)]
    pub access: OwnAccess,
}

impl PostgresFacts {
    /// The newest query's result, unless that query failed or the postmaster is down.
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

    /// An upper bound of the local history: no WAL here lies beyond it. `None` while a running Postgres has not read
    /// all its WAL. For a Postgres that does not answer it comes from the last look at the directory.
    pub fn branch_at_most(&self) -> Option<Branch> {
        if let Some(sql) = self.answering() {
            return self.branch().filter(|_| sql.is_exact());
        }
        let control = self.control()?;
        // No WAL follows a shutdown checkpoint.
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

    /// The end of the local history, from a running Postgres or from the control file of a stopped one.
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

/// The content of the data directory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum DataDirectory {
    /// Not examined yet.
    #[default]
    Unknown,
    /// Missing or empty: it needs a bootstrap or a clone.
    Empty,
    /// A bootstrap, clone or rewind was interrupted, as the marker beside the directory says. Postgres is never started
    /// here.
    HalfMade {
        /// `bootstrap`, `clone` or `rewind`.
        by: String,
    },
    /// Cannot be read; the message names the path and the error.
    Inaccessible {
        /// The operating system's error.
        error: String,
    },
    /// Holds a cluster.
    Ready(ControlFile),
}

impl DataDirectory {
    /// The directory holds an incomplete clone. Its earlier data may be set aside.
    pub fn is_interrupted_clone(&self) -> bool {
        matches!(self, DataDirectory::HalfMade { by } if by == "clone")
    }

    /// Whether it has no data of value: neither in place nor set aside by an interrupted clone.
    pub fn holds_nothing(&self) -> bool {
        match self {
            DataDirectory::Empty => true,
            DataDirectory::HalfMade { .. } => !self.is_interrupted_clone(),
            DataDirectory::Unknown | DataDirectory::Inaccessible { .. } | DataDirectory::Ready(_) => false,
        }
    }
}

/// The part of `pg_controldata`'s output that decisions need.
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
    /// "Minimum recovery ending location"; zero when absent.
    pub min_recovery: Lsn,
    /// "Min recovery ending loc's timeline"; zero when absent.
    pub min_recovery_timeline: Timeline,
    /// Data checksums are on.
    pub checksums: bool,
    /// `wal_log_hints` is on.
    pub wal_log_hints: bool,
    /// Written with `wal_level` minimal: a standby cannot start from it.
    #[serde(default)]
    pub minimal_wal: bool,
    /// A `backup_label` exists: a fresh clone that has never been started. The control file is a copy of its source's.
    pub backup_label: bool,
    /// "Backup start location"; zero when absent. Set from the first start of a copy until the copy has replayed all
    /// WAL written while it was made.
    #[serde(default)]
    pub backup_start: Lsn,
    /// The newest timeline that has a WAL segment in `pg_wal`, with its history and the end of its last segment, which
    /// is an upper bound for the end of WAL. It does not come from the control file, which covers replayed WAL only.
    #[serde(default)]
    pub segments: Option<Branch>,
    /// The "… setting" lines: parameters with the lowest value that a standby may have.
    pub standby_minimums: BTreeMap<String, u64>,
}

impl ControlFile {
    /// Whether this is a copy (base backup, pg_rewind) that was never consistent. It needs WAL that its source wrote
    /// meanwhile, which may be missing here. It has no data that its source lacks.
    pub fn is_unfinished_copy(&self) -> bool {
        self.backup_label || self.backup_start.is_known()
    }

    /// Whether this is the directory of a primary, stopped or crashed. After a loss of etcd's data only such a member
    /// may rebuild the cluster's keys.
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

    /// The end of local WAL by the control file. Exact after a clean stop. After a crash it is only a lower bound, so
    /// crash recovery has to come first.
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
            // The checkpoint record begins there, so WAL ends behind it. If the leader's history ends where the record
            // begins, at least this one byte is not the leader's.
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
    /// Neither a postmaster nor any of its children is left.
    Down {
        /// How the last postmaster ended, if this supervisor saw it.
        exit: Option<String>,
    },
    /// A postmaster runs.
    Up {
        /// Its process id.
        pid: i32,
        /// When this supervisor started or adopted it.
        since: Moment,
        /// Started with `standby.signal`, and no promotion has begun since: it cannot accept writes.
        standby_start: bool,
    },
}

impl Default for Process {
    fn default() -> Process {
        Process::Down { exit: None }
    }
}

/// The state of a running Postgres, read in one query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SqlFacts {
    /// When the query was sent.
    pub at: Moment,
    /// `server_version_num`.
    pub server_version: u32,
    /// `pg_postmaster_start_time()`, RFC 3339 with microseconds.
    pub postmaster_start_time: String,
    /// Primary: the timeline that it writes. Standby: the timeline that it received, or replays.
    pub timeline: Option<Timeline>,
    /// Standby or primary, with the state of each.
    pub standby: Standby,
    /// Primary: `pg_current_wal_flush_lsn()`; standby: zero.
    pub flushed: Lsn,
    /// Replication slots that are not temporary.
    pub slots: BTreeMap<String, SlotFacts>,
    /// Synchronous replication.
    pub sync: SyncFacts,
    /// Rows of `pg_stat_replication`, for `/patroni`.
    pub replication: Vec<serde_json::Map<String, serde_json::Value>>,
    /// No member to stream from is configured, and no receiver runs.
    #[serde(default)]
    pub is_detached: bool,
}

impl SqlFacts {
    /// The furthest WAL position in this Postgres.
    pub fn lsn(&self) -> Lsn {
        match &self.standby {
            Standby::No => self.flushed,
            Standby::Yes { received, replayed, .. } => (*received).max(*replayed),
        }
    }

    /// Whether [`SqlFacts::lsn`] covers all WAL here. A standby that has just started has not read all its WAL yet. It
    /// asks a sender for WAL only after it has.
    pub fn is_exact(&self) -> bool {
        match &self.standby {
            Standby::No => true,
            Standby::Yes { received, .. } => received.is_known() || self.sync.replay_rests,
        }
    }

    /// Whether it receives WAL.
    pub fn streams(&self) -> bool {
        matches!(&self.standby, Standby::Yes { receiver: Some(receiver), .. } if receiver.status == "streaming")
    }

    /// Whether it may be receiving WAL.
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
    /// It replays WAL.
    Yes {
        /// Received and written; zero before the first WAL.
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
    /// The sender's host.
    pub host: Option<String>,
    /// The sender's port.
    pub port: Option<u16>,
    /// The slot it uses.
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
    /// The oldest WAL that the slot retains.
    #[serde(default)]
    pub restart: Option<Lsn>,
    /// PostgreSQL itself synchronizes it to standbys (17 and later).
    #[serde(default)]
    pub failover: bool,
    /// PostgreSQL itself copied it from the primary.
    #[serde(default)]
    pub synced: bool,
    /// It holds back vacuum.
    pub has_xmin: bool,
    /// The oldest transaction whose catalog rows it needs.
    #[serde(default)]
    pub catalog_xmin: Option<Xid>,
    /// `wal_status` is `lost`.
    pub lost: bool,
}
