//! Failsafe mode: while etcd does not answer, a leader goes on if every member that could take the leader key promises
//! not to.
//!
//! The key `failsafe` names the members that could. Who is not in it does not take the leader key, and only the leader
//! writes it, so a leader knows whom it has to ask even while etcd is away. All of them have to promise, not most: a
//! majority of the members may be cut off from a leader while one of them reaches etcd.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Lsn, MemberName, Moment};

/// Members, each with its `api_url`.
pub type FailsafeMembers = BTreeMap<MemberName, String>;

/// The key `failsafe`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailsafeKey {
    /// The members that may take the leader key, the leader that wrote it among them; empty: any member may.
    pub members: FailsafeMembers,
    /// Its modification revision.
    pub mod_revision: i64,
}

/// What a leader asks of the members while etcd does not answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailsafePlan {
    /// The members that have to promise; `None`: promises do not count now.
    pub members: Option<FailsafeMembers>,
    /// The slots, as last published, so that standbys can go on to advance theirs.
    pub slots: BTreeMap<String, Lsn>,
}

/// A leader's question, as `POST /failsafe` brings it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailsafeQuestion {
    /// The leader.
    pub leader: MemberName,
    /// The address of its PostgreSQL. etcd may have its member key no more.
    #[serde(default)]
    pub conn_url: String,
    /// The member that is asked, of this cluster; Patroni does not say it.
    pub asked: Option<(String, MemberName)>,
    /// How long it wants to lead on, in milliseconds; Patroni does not say it, and counts on the `ttl` in force.
    pub ttl_ms: Option<u64>,
    /// Its slots.
    pub slots: BTreeMap<String, Lsn>,
}

/// A promise not to take the leader key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// To this leader.
    pub leader: MemberName,
    /// Without a break since then.
    #[serde(default)]
    pub since: Moment,
    /// The address of its PostgreSQL.
    #[serde(default)]
    pub conn_url: String,
    /// Until then.
    pub until: Moment,
    /// The leader's slots.
    pub slots: BTreeMap<String, Lsn>,
}

/// Why a promise is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailsafeRefusal {
    /// Failsafe mode is not configured.
    Off,
    /// The question is for another member.
    NotAsked {
        /// Its cluster.
        scope: String,
        /// Its name.
        member: MemberName,
    },
    /// This member leads.
    Leads,
    /// This member is taking the leader key.
    TakesLeadership,
    /// Another member leads.
    AnotherLeads {
        /// Its name.
        leader: MemberName,
    },
    /// Another leader was promised the same.
    PromisedToAnother {
        /// Its name.
        leader: MemberName,
    },
}
