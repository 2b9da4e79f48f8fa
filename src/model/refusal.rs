//! Why a request to this member is refused. The sentences are Patroni's where Patroni has one.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::JobKind;

/// Why a restart does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartRefusal {
    /// A long action is under way.
    Busy(JobKind),
    /// So is a restart, or a switchover.
    AlreadyAsked,
    /// No postmaster runs.
    NotRunning,
    /// One runs, and does not answer.
    Silent,
    /// Another role was asked for.
    OtherRole,
    /// The version is not below the one that was named.
    OtherVersion,
    /// Only a pending restart was asked for.
    NotPending,
}

impl fmt::Display for RestartRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestartRefusal::Busy(job) => write!(f, "{job} already in progress"),
            RestartRefusal::AlreadyAsked => write!(f, "restart or switchover already in progress"),
            RestartRefusal::NotRunning => write!(f, "PostgreSQL is not running"),
            RestartRefusal::Silent => write!(f, "PostgreSQL runs and does not answer: it recovers, or hangs"),
            RestartRefusal::OtherRole => write!(f, "host role mismatch"),
            RestartRefusal::OtherVersion => write!(f, "postgres version mismatch"),
            RestartRefusal::NotPending => write!(f, "pending restart flag is not set"),
        }
    }
}

/// Why the data directory of this member is not thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReinitializeRefusal {
    /// What lies there is not known yet.
    NotLookedYet,
    /// It is of another cluster.
    ForeignData,
    /// A long action is under way, and may be cancelled only where that was asked for.
    Busy(JobKind),
    /// There is no leader to clone from.
    NoLeader,
    /// This member leads.
    Leads,
}

impl fmt::Display for ReinitializeRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReinitializeRefusal::NotLookedYet => write!(f, "the data directory has not been looked at yet"),
            ReinitializeRefusal::ForeignData => write!(f, "the data directory belongs to another cluster"),
            ReinitializeRefusal::Busy(job) => write!(f, "{job} already in progress"),
            ReinitializeRefusal::NoLeader => write!(f, "Cluster has no leader, can not reinitialize"),
            ReinitializeRefusal::Leads => write!(f, "I am the leader, can not reinitialize"),
        }
    }
}
