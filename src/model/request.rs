//! The requests of an operator to this member, and the replies.

use serde::{Deserialize, Serialize};

use super::WallTime;

/// Identifies one request until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub u64);

/// A request that waits for its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Its identifier.
    pub id: RequestId,
    /// What is asked.
    pub ask: Ask,
}

/// What is asked. Switchovers and failovers are not here: they are a key in etcd, which every member reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Ask {
    /// Restart Postgres, now or at a time.
    Restart {
        /// `None`: at once, with the answer at the end.
        at: Option<WallTime>,
        /// The conditions under which it happens.
        filter: RestartFilter,
    },
    /// Forget a scheduled restart.
    CancelRestart,
    /// Remove the data and clone anew.
    Reinitialize {
        /// Whether to cancel a running long action.
        force: bool,
        /// Clone from the leader, whatever `clonefrom` says.
        from_leader: bool,
    },
}

/// A restart happens only if all of these hold when it is due.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RestartFilter {
    /// The member has this role (`primary`, `replica`, `standby_leader`).
    pub role: Option<String>,
    /// The running version is lower than this `server_version_num`.
    pub below_version: Option<u32>,
    /// A restart is pending.
    pub pending_only: bool,
    /// Overrides `primary_start_timeout`, in milliseconds.
    pub timeout_ms: Option<u64>,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Done.
    Done(String),
    /// Accepted for later.
    Accepted(String),
    /// Not done, because of the state the member or the cluster is in.
    Refused(String),
    /// Another request of this kind exists.
    Conflict(String),
    /// There is no such request.
    NotFound(String),
    /// It was tried and failed.
    Failed(String),
}
