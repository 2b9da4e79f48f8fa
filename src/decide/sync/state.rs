//! The state of the machine, and the arithmetic of its promise.

use std::collections::BTreeSet;

use crate::model::{MemberName, SyncNames, SyncRecord};

/// The input of a step; names are in the members' own spelling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumState {
    /// The primary.
    pub me: MemberName,
    /// The key `sync`.
    pub record: SyncRecord,
    /// `synchronous_standby_names` in effect.
    pub names: SyncNames,
    /// Standbys that have all commits acknowledged before these names took effect.
    pub confirmed: BTreeSet<MemberName>,
    /// Standbys that can be synchronous now, best first.
    pub active: Vec<MemberName>,
    /// How many should confirm each commit.
    pub wanted: usize,
    /// Commits wait rather than being on one member alone.
    pub strict: bool,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncStep {
    /// Write the key `sync`.
    Promise(SyncRecord),
    /// Set `synchronous_standby_names`.
    Name(SyncNames),
    /// Nothing now: wait until standbys confirm.
    LookAgain,
}

impl QuorumState {
    /// Whether every commit under `names` keeps the present promise.
    ///
    /// A commit is on me and on `count` of the names. So of the voters, the leader, the names and me together, all but
    /// `count + 1` may lack it, and the promise allows `quorum` to lack it.
    pub fn may_name(&self, names: &SyncNames) -> bool {
        self.record.voters.is_empty() || self.overlaps(&self.record, names)
    }

    /// Whether `record`, with me as its leader, can be promised.
    ///
    /// It always can if it demands no less than the present promise, from no more members. Otherwise enough voters must
    /// have all commits acknowledged before the present names took effect, and the names must ensure the same for later
    /// commits.
    pub fn may_promise(&self, record: &SyncRecord) -> bool {
        let (old, new) = (members(&self.record), members(record));
        if record.voters.is_empty() || (new.is_subset(&old) && self.record.quorum <= record.quorum) {
            return true;
        }
        let lacking = record.voters.difference(&self.confirmed).count();
        lacking <= record.quorum && self.overlaps(record, &self.names)
    }

    fn overlaps(&self, record: &SyncRecord, names: &SyncNames) -> bool {
        let mut all = members(record);
        all.insert(&self.me);
        if !names.wildcard {
            all.extend(&names.names);
        }
        !names.wildcard && all.len() <= record.quorum + names.count + 1
    }

    /// The change, if it is allowed now, or the part of it that is. For a promise that some standbys cannot confirm
    /// (they died), that part is a promise without them, or first the names of those that can.
    pub fn permit(&self, step: SyncStep) -> Option<SyncStep> {
        match step {
            SyncStep::Name(names) => self.may_name(&names).then_some(SyncStep::Name(names)),
            SyncStep::Promise(record) if self.may_promise(&record) => Some(SyncStep::Promise(record)),
            SyncStep::Promise(record) => self.promise_less(record).or_else(|| self.name_more()),
            SyncStep::LookAgain => None,
        }
    }

    fn promise_less(&self, record: SyncRecord) -> Option<SyncStep> {
        let lacking = record.voters.difference(&self.confirmed).count();
        let less = SyncRecord { quorum: lacking, ..record.clone() };
        let less_of = lacking > record.quorum && lacking < record.voters.len() && less != self.record;
        (less_of && self.may_promise(&less)).then_some(SyncStep::Promise(less))
    }

    /// Names all standbys that can confirm, or only the voters among them where the promise does not allow so many.
    fn name_more(&self) -> Option<SyncStep> {
        let more = |who: &BTreeSet<MemberName>| {
            let names = SyncNames { names: &self.names.names | who, ..self.names.clone() };
            (self.names.any && names != self.names && self.may_name(&names)).then_some(SyncStep::Name(names))
        };
        let active = self.active.iter().cloned().collect();
        more(&active).or_else(|| more(&(&active & &self.record.voters)))
    }

    pub(super) fn promise(&self, quorum: usize, voters: BTreeSet<MemberName>) -> SyncRecord {
        SyncRecord { leader: Some(self.me.clone()), quorum, voters }
    }
}

/// Voters and leader.
pub(super) fn members(record: &SyncRecord) -> BTreeSet<&MemberName> {
    record.voters.iter().chain(&record.leader).collect()
}
