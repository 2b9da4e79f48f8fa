//! Synchronous replication: the wanted state, the promise in the key `sync`, and the state of Postgres.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Lsn, MemberName};

/// Synchronous replication in the dynamic configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncSettings {
    /// `synchronous_mode`.
    pub mode: SyncMode,
    /// Commits wait rather than being on one member alone.
    pub strict: bool,
    /// How many standbys confirm each commit, if there are so many.
    pub node_count: usize,
    /// A standby further behind than this is not chosen. Bytes; `None`: no limit.
    pub maximum_lag: Option<u64>,
}

impl Default for SyncSettings {
    fn default() -> SyncSettings {
        SyncSettings { mode: SyncMode::Off, strict: false, node_count: 1, maximum_lag: None }
    }
}

impl SyncSettings {
    /// The settings in force while no configuration that sets a mode was read. A key `sync` that is in force binds
    /// until a configuration releases it: it was written under a mode, and as many standbys confirm each commit as it
    /// says.
    #[must_use]
    pub fn bound_by(self, record: Option<&SyncRecord>) -> SyncSettings {
        match (self.mode, record.filter(|record| record.is_in_force())) {
            (SyncMode::Off, Some(record)) => {
                let node_count = self.node_count.max(record.failures_tolerated());
                SyncSettings { mode: SyncMode::Quorum, node_count, ..self }
            }
            (SyncMode::Off | SyncMode::On | SyncMode::Quorum, _) => self,
        }
    }
}

/// The standbys that confirm a commit before the client sees it succeed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncMode {
    /// None.
    #[default]
    Off,
    /// All of the named standbys.
    On,
    /// A number of the named standbys, the fastest.
    Quorum,
}

/// The value of the key `sync`: the members that can be promoted without losing an acknowledged commit. The promise:
/// any `quorum + 1` of the voters and the leader include one member with every acknowledged commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncRecord {
    /// The leader at the time of the write; `None`: the record is not in force.
    pub leader: Option<MemberName>,
    /// How many other voters a candidate has to have at least the WAL of. Zero in mode on.
    pub quorum: usize,
    /// The standbys, without the leader.
    pub voters: BTreeSet<MemberName>,
}

/// The key `sync` with its revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncKey {
    /// The value.
    pub record: SyncRecord,
    /// For compare-and-swap.
    pub mod_revision: i64,
}

impl SyncRecord {
    /// Whether a leader wrote it.
    pub fn is_in_force(&self) -> bool {
        self.leader.is_some()
    }

    /// Voters and leader: one of them has every acknowledged commit.
    pub fn members(&self) -> BTreeSet<MemberName> {
        self.voters.iter().chain(&self.leader).cloned().collect()
    }

    /// True for the leader it names.
    pub fn is_leader(&self, name: &MemberName) -> bool {
        self.leader.as_ref().is_some_and(|leader| leader.is_same(name))
    }

    /// True for one of its standbys.
    pub fn is_voter(&self, name: &MemberName) -> bool {
        self.voters.iter().any(|voter| voter.is_same(name))
    }

    /// The number of members, the leader included, that can be lost without losing an acknowledged commit.
    pub fn failures_tolerated(&self) -> usize {
        self.voters.len().saturating_sub(self.quorum)
    }
}

/// Synchronous replication as Postgres shows it, in one query.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SyncFacts {
    /// `synchronous_standby_names`, as a session sees it.
    pub names: String,
    /// The position that commits wait for.
    pub wait: CommitWait,
    /// The standbys that are connected.
    pub walsenders: Vec<Walsender>,
    /// The processes of the sessions whose commit waits for a standby.
    pub waiting: BTreeSet<i32>,
    /// The checkpointer is idle, or pauses between two writes; it reads its parameters before either. So it knows every
    /// change of them that a session could see before this query. It is the checkpointer that switches waiting on and
    /// off.
    pub checkpointer_rests: bool,
    /// A standby has read all the WAL it has.
    pub replay_rests: bool,
}

/// The source of the present value of `synchronous_standby_names`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncOwner {
    /// Not decided since this supervisor started: the value in the file stays.
    #[default]
    Undecided,
    /// The operator's parameters.
    Operator,
    /// The supervisor, with this value.
    Supervisor(String),
}

impl SyncOwner {
    /// The value, if it is the supervisor's.
    pub fn says(self) -> Option<String> {
        match self {
            SyncOwner::Supervisor(names) => Some(names),
            SyncOwner::Operator | SyncOwner::Undecided => None,
        }
    }
}

/// One row of `pg_stat_replication`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walsender {
    /// `application_name`: the standby's member name.
    pub name: String,
    /// `state` is `streaming`.
    pub streams: bool,
    /// `sync_state`.
    pub sync: SyncState,
    /// What the standby has written, as it reported.
    pub written: Option<Lsn>,
    /// The position it has flushed.
    pub flushed: Option<Lsn>,
    /// The position it has replayed.
    pub replayed: Option<Lsn>,
}

/// `sync_state`, in the order in which standbys are preferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncState {
    /// Not in `synchronous_standby_names`.
    #[default]
    Async,
    /// Named, but after those that are synchronous now.
    Potential,
    /// Named with `ANY`.
    Quorum,
    /// Named with `FIRST`, and one of the first.
    Sync,
}

/// Which position of a standby a commit waits for, by `synchronous_commit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommitWait {
    /// `remote_write`
    Written,
    /// `on`, and every setting that waits for less.
    #[default]
    Flushed,
    /// `remote_apply`
    Replayed,
}

impl SyncFacts {
    /// The names of the standbys that stream from here.
    pub fn streaming(&self) -> Vec<&str> {
        let streaming = self.walsenders.iter().filter(|walsender| walsender.streams);
        streaming.map(|walsender| walsender.name.as_str()).collect()
    }
}

impl Walsender {
    /// The position that commits wait for.
    pub fn position(&self, wait: CommitWait) -> Option<Lsn> {
        match wait {
            CommitWait::Written => self.written,
            CommitWait::Flushed => self.flushed,
            CommitWait::Replayed => self.replayed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_tolerated_follow_from_quorum_and_voters() {
        let record = SyncRecord {
            leader: None,
            quorum: 1,
            voters: ["b", "c"].map(|name| MemberName::new(name).expect("a name")).into(),
        };
        assert_eq!(record.failures_tolerated(), 1);
        assert_eq!(SyncRecord { quorum: 0, ..record }.failures_tolerated(), 2);
    }

    #[test]
    fn a_record_in_force_binds_without_a_configured_mode() {
        let name = |name: &str| MemberName::new(name).expect("a name");
        let nobody = SyncRecord::default();
        let record = SyncRecord { leader: Some(name("a")), quorum: 0, voters: ["b", "c"].map(name).into() };
        let off = SyncSettings::default();
        assert_eq!(off.clone().bound_by(None), off);
        assert_eq!(off.clone().bound_by(Some(&nobody)), off);
        let bound = off.bound_by(Some(&record));
        assert_eq!((bound.mode, bound.node_count), (SyncMode::Quorum, 2));
        let on = SyncSettings { mode: SyncMode::On, ..SyncSettings::default() };
        assert_eq!(on.clone().bound_by(Some(&record)), on);
    }
}
