//! Synchronous replication: what is wanted, what the key `sync` vouches for, and what Postgres shows of it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Lsn, MemberName};

/// What the dynamic configuration asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncSettings {
    /// `synchronous_mode`.
    pub mode: SyncMode,
    /// Rather no commits than commits on one member alone.
    pub strict: bool,
    /// How many standbys confirm each commit, where there are as many.
    pub node_count: usize,
    /// A standby further behind than this is not picked. Bytes; `None`: any lag will do.
    pub maximum_lag: Option<u64>,
}

impl Default for SyncSettings {
    fn default() -> SyncSettings {
        SyncSettings { mode: SyncMode::Off, strict: false, node_count: 1, maximum_lag: None }
    }
}

impl SyncSettings {
    /// What is in force where no configuration was read that says which mode is wanted: a key `sync` that vouches for
    /// somebody was written under one, and binds until a configuration releases it. As many confirm each commit as did.
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

/// Who confirms a commit before the client hears of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncMode {
    /// Nobody.
    #[default]
    Off,
    /// These standbys, each of them.
    On,
    /// That many of these standbys, whichever are fastest.
    Quorum,
}

/// The value of the key `sync`: who may be promoted without losing an acknowledged commit. The promise: among any
/// `quorum + 1` of the voters and the leader, at least one holds every acknowledged commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncRecord {
    /// Who led when it was written; `None`: it vouches for nobody, and is not in force.
    pub leader: Option<MemberName>,
    /// How many other voters a candidate has to be at least as far as. Zero in mode on.
    pub quorum: usize,
    /// The standbys, without the leader.
    pub voters: BTreeSet<MemberName>,
}

/// The key `sync` with what its next write has to compare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncKey {
    /// What it says.
    pub record: SyncRecord,
    /// For compare-and-swap.
    pub mod_revision: i64,
}

impl SyncRecord {
    /// True when somebody wrote it.
    pub fn is_in_force(&self) -> bool {
        self.leader.is_some()
    }

    /// Voters and leader: among them is one that holds everything acknowledged.
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

    /// How many members may be lost, the leader included, before an acknowledged commit is.
    pub fn failures_tolerated(&self) -> usize {
        self.voters.len().saturating_sub(self.quorum)
    }
}

/// What Postgres shows of it, in one look.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SyncFacts {
    /// `synchronous_standby_names`, as a session sees it.
    pub names: String,
    /// What commits wait for.
    pub wait: CommitWait,
    /// The standbys that are connected.
    pub walsenders: Vec<Walsender>,
    /// Sessions whose commit waits for a standby, by process.
    pub waiting: BTreeSet<i32>,
    /// The checkpointer rests, or pauses between two writes, where it reads its parameters first. So it has read every
    /// change of them that a session could see before this look, and it is the one that switches waiting on and off.
    pub checkpointer_rests: bool,
    /// A standby has read all the WAL it has.
    pub replay_rests: bool,
}

/// Who says what `synchronous_standby_names` is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncOwner {
    /// Not decided since this supervisor started: the value in the file stays.
    #[default]
    Undecided,
    /// The operator's parameters.
    Operator,
    /// The supervisor, and this is what it says.
    Supervisor(String),
}

impl SyncOwner {
    /// The names, if the supervisor says them.
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
    /// What it has flushed.
    pub flushed: Option<Lsn>,
    /// What it has replayed.
    pub replayed: Option<Lsn>,
}

/// `sync_state`, in the order in which standbys are preferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncState {
    /// Not named.
    #[default]
    Async,
    /// Named, and the next one to be synchronous.
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
    /// `on`, and whatever waits for less.
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
    /// The position that counts.
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
    fn says_what_it_survives() {
        let record = SyncRecord {
            leader: None,
            quorum: 1,
            voters: ["b", "c"].map(|name| MemberName::new(name).expect("a name")).into(),
        };
        assert_eq!(record.failures_tolerated(), 1);
        assert_eq!(SyncRecord { quorum: 0, ..record }.failures_tolerated(), 2);
    }

    #[test]
    fn a_record_in_force_binds_where_no_mode_is_said() {
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
