//! Why a request to this member is refused. Patroni's sentence is used if Patroni has one.

use serde::{Deserialize, Serialize};

use super::JobKind;

/// Why a restart does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RestartRefusal {
    /// A long action is under way.
    #[error("{0} already in progress")]
    Busy(JobKind),
    /// A restart or a switchover is under way.
    #[error("restart or switchover already in progress")]
    AlreadyAsked,
    /// No postmaster runs.
    #[error("PostgreSQL is not running")]
    NotRunning,
    /// A postmaster runs, and does not answer.
    #[error("PostgreSQL runs and does not answer: it recovers, or hangs")]
    Silent,
    /// The request names another role.
    #[error("host role mismatch")]
    OtherRole,
    /// The running version is not below the requested one.
    #[error("postgres version mismatch")]
    OtherVersion,
    /// The request is for a pending restart only, and none is pending.
    #[error("pending restart flag is not set")]
    NotPending,
}

/// Why the data directory of this member is not removed and cloned anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ReinitializeRefusal {
    /// Its content is not known yet.
    #[error("the data directory has not been looked at yet")]
    NotLookedYet,
    /// It belongs to another cluster.
    #[error("the data directory belongs to another cluster")]
    ForeignData,
    /// A long action is under way, and the request does not allow its cancellation.
    #[error("{0} already in progress")]
    Busy(JobKind),
    /// There is no leader to clone from.
    #[error("Cluster has no leader, can not reinitialize")]
    NoLeader,
    /// This member leads.
    #[error("I am the leader, can not reinitialize")]
    Leads,
}
