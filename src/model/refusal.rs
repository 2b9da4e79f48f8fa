//! Why a request to this member is refused.

use serde::{Deserialize, Serialize};

use super::JobKind;

/// Why a restart does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RestartRefusal {
    /// A long action is under way.
    #[error("{0} is under way")]
    Busy(JobKind),
    /// A restart or a switchover is under way.
    #[error("a restart or switchover is under way")]
    AlreadyAsked,
    /// No postmaster runs.
    #[error("PostgreSQL is not running")]
    NotRunning,
    /// A postmaster runs, and does not answer.
    #[error("PostgreSQL runs and does not answer: it recovers, or hangs")]
    Silent,
    /// The request names another role.
    #[error("this member has another role")]
    OtherRole,
    /// The running version is not below the requested one.
    #[error("PostgreSQL is not older than the given version")]
    OtherVersion,
    /// The request is for a pending restart only, and none is pending.
    #[error("no restart is pending")]
    NotPending,
}

/// Why the data directory of this member is not removed and cloned anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReinitializeRefusal {
    /// Its content is not known yet.
    NotLookedYet,
    /// It belongs to another cluster.
    ForeignData,
    /// A long action is under way, and the request does not allow its cancellation.
    Busy(JobKind),
    /// There is no leader to clone from.
    NoLeader,
    /// This member leads.
    Leads,
}
