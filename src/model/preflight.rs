//! The check before a switchover: the facts of the leader and of its candidates, and the findings from them.
//!
//! Whether a candidate can take over is no question of these facts: the rule of the switchover itself has decided that,
//! and its refusal is an input here. The facts tell what a switchover would cost, or leave behind.

mod findings;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Ineligible, Lsn, MemberName, PeerAnswer, Timeline};

/// The facts of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreflightFacts {
    /// `server_version_num`.
    pub server_version: u32,
    /// Primary: flushed; standby: received or replayed, whichever is further.
    pub lsn: Lsn,
    /// A standby that has not replayed all that it has: the age of the last commit that it replayed.
    pub replay_delay_ms: Option<u64>,
    /// Replay is paused.
    pub replay_paused: bool,
    /// `recovery_min_apply_delay`.
    pub apply_delay_ms: u64,
    /// The oldest transaction of a client.
    pub transaction: Option<OpenTransaction>,
    /// Prepared transactions, if there are any.
    pub prepared: Option<PreparedTransactions>,
    /// The archiver, if WAL is archived here.
    pub archiver: Option<ArchiverFacts>,
    /// Replication slots.
    pub slots: Vec<PreflightSlot>,
    /// The standbys that stream from here.
    pub standbys: Vec<StandbyDelay>,
    /// The file systems of the data directory and, if it has its own, of the WAL.
    #[serde(default)]
    pub disks: Vec<FreeSpace>,
}

/// An open transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenTransaction {
    /// The backend.
    pub pid: i32,
    /// Its user.
    pub user: Option<String>,
    /// Its database.
    pub database: Option<String>,
    /// The time since it began.
    pub age_ms: u64,
}

/// All prepared transactions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedTransactions {
    /// How many.
    pub count: u64,
    /// The identifier of the oldest.
    pub gid: String,
    /// The time since that was prepared.
    pub age_ms: u64,
}

/// The archiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiverFacts {
    /// Files that wait for it.
    pub waiting: u64,
    /// The file that it could not archive, if its last attempt failed.
    pub failed: Option<String>,
}

/// A replication slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreflightSlot {
    /// Its name.
    pub name: String,
    /// A logical one.
    pub logical: bool,
    /// A process uses it.
    pub active: bool,
    /// It ends with its session, or is not synchronized completely.
    pub temporary: bool,
    /// The WAL that it holds; `None`: it reserves none.
    pub held_bytes: Option<u64>,
    /// PostgreSQL is to synchronize it to standbys (17 and later).
    pub failover: bool,
    /// PostgreSQL synchronizes it from the primary.
    pub synced: bool,
    /// It cannot be used any more.
    pub lost: bool,
}

/// The delay of a standby by the leader's `pg_stat_replication`; `None`: it has all, and nothing was written lately.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyDelay {
    /// Its `application_name`.
    pub name: String,
    /// `flush_lag`.
    pub flush_ms: Option<u64>,
    /// `replay_lag`.
    pub replay_ms: Option<u64>,
}

/// The space of a file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreeSpace {
    /// Where.
    pub directory: String,
    /// The space for PostgreSQL.
    pub free_bytes: u64,
    /// All.
    pub total_bytes: u64,
}

/// A switchover that is checked.
#[derive(Clone, Debug)]
pub struct Preflight {
    /// The leader.
    pub leader: MemberName,
    /// Its timeline.
    pub timeline: Option<Timeline>,
    /// Its facts, or why there are none.
    pub facts: Result<PreflightFacts, String>,
    /// Why the request is refused, whatever the facts.
    pub refusal: Option<String>,
    /// The candidates.
    pub candidates: Vec<PreflightCandidate>,
    /// `maximum_lag_on_failover`.
    pub lag_bytes_max: u64,
    /// `primary_stop_timeout`.
    pub stop_within: Duration,
}

/// A candidate that is checked.
#[derive(Clone, Debug)]
pub struct PreflightCandidate {
    /// Its name.
    pub name: MemberName,
    /// Its answer, by which it is judged.
    pub answer: PeerAnswer,
    /// Why it cannot take over.
    pub unfit: Option<Ineligible>,
    /// Its facts, or why there are none.
    pub facts: Result<PreflightFacts, String>,
}

/// One result of the check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was checked.
    pub what: FindingKind,
    /// The member that it is about.
    pub member: MemberName,
    /// Its number, if it has one.
    pub value: Option<u64>,
    /// The unit of that.
    pub unit: Option<FindingUnit>,
    /// The value at which the verdict changes.
    pub limit: Option<u64>,
    /// The verdict.
    pub verdict: FindingVerdict,
    /// The sentence, with what to do.
    pub text: String,
}

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// The request, as `POST /switchover` judges it.
    Request,
    /// A candidate, as the leader judges it.
    Candidate,
    /// WAL that the candidate has not received.
    ReceiveLag,
    /// The time that WAL takes to its disk.
    ReceiveDelay,
    /// WAL that it has received and not replayed.
    ReplayLag,
    /// The age of what it replays.
    ReplayDelay,
    /// What holds its replay back.
    ReplayHeld,
    /// Its timeline.
    Timeline,
    /// The oldest transaction.
    LongTransaction,
    /// Prepared transactions.
    PreparedTransactions,
    /// The archiver's backlog.
    Archiver,
    /// A logical slot on the candidate.
    LogicalSlot,
    /// WAL that a slot holds.
    HeldWal,
    /// Free space on the candidate.
    FreeSpace,
    /// Facts that could not be had.
    Facts,
}

/// The unit of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingUnit {
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Milliseconds,
    /// Files.
    Files,
    /// Transactions.
    Transactions,
    /// The number of a timeline.
    Timeline,
}

/// What a finding means for the switchover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingVerdict {
    /// Nothing is in the way.
    Fine,
    /// The switchover begins, and has a cost that is named.
    Warns,
    /// It does not begin.
    Refuses,
}
