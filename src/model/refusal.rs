//! Why a request to this member is refused. The sentences are Patroni's where Patroni has one.

use serde::{Deserialize, Serialize};

use super::JobKind;

/// Why a restart does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RestartRefusal {
    /// A long action is under way.
    #[error("{0} already in progress")]
    Busy(JobKind),
    /// So is a restart, or a switchover.
    #[error("restart or switchover already in progress")]
    AlreadyAsked,
    /// No postmaster runs.
    #[error("PostgreSQL is not running")]
    NotRunning,
    /// One runs, and does not answer.
    #[error("PostgreSQL runs and does not answer: it recovers, or hangs")]
    Silent,
    /// Another role was asked for.
    #[error("host role mismatch")]
    OtherRole,
    /// The version is not below the one that was named.
    #[error("postgres version mismatch")]
    OtherVersion,
    /// Only a pending restart was asked for.
    #[error("pending restart flag is not set")]
    NotPending,
}

/// Why the data directory of this member is not thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ReinitializeRefusal {
    /// What lies there is not known yet.
    #[error("the data directory has not been looked at yet")]
    NotLookedYet,
    /// It is of another cluster.
    #[error("the data directory belongs to another cluster")]
    ForeignData,
    /// A long action is under way, and may be cancelled only where that was asked for.
    #[error("{0} already in progress")]
    Busy(JobKind),
    /// There is no leader to clone from.
    #[error("Cluster has no leader, can not reinitialize")]
    NoLeader,
    /// This member leads.
    #[error("I am the leader, can not reinitialize")]
    Leads,
}
