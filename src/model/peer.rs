//! What another member answered when asked over REST.

use serde::{Deserialize, Serialize};

use super::{Lsn, Moment, Role, Tags, Timeline};

/// An answer to `GET /patroni`, or the lack of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerAnswer {
    /// When it was asked: the answer is at least that new.
    pub asked_at: Moment,
    /// False when it did not answer in time, or its Postgres does not.
    pub reachable: bool,
    /// Its Postgres is in recovery.
    pub in_recovery: bool,
    /// Its role.
    pub role: Role,
    /// Primary: location. Standby: received or replayed, whichever is further.
    pub lsn: Lsn,
    /// Whether `lsn` is all it holds. Programs that do not say so are not believed to.
    pub exact: bool,
    /// A standby into which WAL may be coming, from whoever led.
    pub receives: bool,
    /// Standby: replayed.
    pub replayed: Lsn,
    /// Its timeline.
    pub timeline: Option<Timeline>,
    /// Its tags.
    pub tags: Tags,
    /// It cannot use the watchdog it is required to use.
    pub watchdog_failed: bool,
    /// It gave the leader key away because it cannot serve, or finds itself too far behind: nobody waits for it.
    pub yields: bool,
    /// Why it does not count, when it is not reachable.
    pub trouble: Option<String>,
}
