//! The leader's heartbeats, and what a member concludes from their absence.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Lsn, Moment, Term};

/// A sign of life of a leader, about every 100 ms. Sent only while its lease is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The term in which the sender leads.
    pub term: Term,
    /// Its number within the stream: 1, 2, 3 …
    pub number: u64,
    /// The position that its PostgreSQL has flushed.
    pub flushed: Lsn,
    /// The age of the older of the two proofs that its PostgreSQL works: a new connection and a flushed write.
    pub proof_age: Duration,
    /// The revision of the key `sync` that it has seen; zero: absent.
    pub sync_revision: i64,
}

/// What a standby hears of its leader, or whether a leader is heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaderHearing {
    /// No heartbeat of the present term has arrived yet: the leader does not send any (Patroni, an older version), or
    /// the stream is not there yet. Its absence says nothing.
    #[default]
    Unknown,
    /// Heartbeats of this term arrive.
    Heard {
        /// The term.
        term: Term,
    },
    /// They arrived, and none has for longer than the effective `suspect_after`.
    Silent {
        /// The term.
        term: Term,
        /// The arrival of the last one.
        last: Moment,
    },
    /// I listen to nobody. Members listened to me, and the last of them was lost.
    Unheard,
}

/// What a standby hears of its leader, as it is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HearingFacts {
    /// What it hears.
    pub hearing: LeaderHearing,
    /// The arrival of the last heartbeat of the present term.
    pub heard_at: Option<Moment>,
    /// The `suspect_after` in force on this link.
    pub suspect_after: Duration,
    /// Heartbeats that counted, of all leaders since this member started.
    pub received: u64,
}

/// How a leader that may be dead is replaced (dynamic setting `failover`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailoverBy {
    /// When its lease has ended.
    Lease,
    /// Before that, where enough synchronous standbys have promised to receive nothing more from it.
    #[default]
    Recruit,
}
