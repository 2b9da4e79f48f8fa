//! The journal: one record for each change of leadership, by the members that saw it.
//!
//! A new leader records how its term began, and a leader how its term ended. Nobody else has to be asked, and neither
//! record waits for the other: a member that was frozen records the end of its term when it runs again. The records are
//! for people. No decision reads them.

mod sentences;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    FailoverKey, FailoverRequest, Ineligible, Lsn, MemberName, OperationId, OperationPhase, Term, Timeline,
    WallTime, json_compact,
};

/// At most so many bytes of a record are kept.
const RECORD_BYTES_MAX: usize = 4096;
/// A longer sentence is cut.
const SENTENCE_CHARS_MAX: usize = 240;

/// One record of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalRecord {
    /// The term that began or ended.
    pub term: Term,
    /// The member that recorded it.
    pub by: MemberName,
    /// When, by its clock.
    pub at: WallTime,
    /// What it records.
    pub entry: JournalEntry,
}

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JournalEntry {
    /// A term began, and its leader serves.
    Began(Box<TermBegan>),
    /// A term ended, by the member that led in it.
    Ended(Box<TermEnded>),
    /// A hand-over did not happen: the leader serves on.
    Refused {
        /// The reason.
        why: String,
        /// What an operator had asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request: Option<ChangeRequest>,
        /// What this member did for it.
        steps: Vec<JournalStep>,
    },
    /// A former leader discards WAL that no other member has, by pg_rewind.
    Discarded {
        /// The first position that differs.
        from: Lsn,
        /// The end of its WAL.
        to: Lsn,
    },
}

/// How a term began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermBegan {
    /// The kind of change.
    pub kind: ChangeKind,
    /// The rule of the decision to lead: the name of its reason.
    pub rule: String,
    /// Its sentence.
    pub because: String,
    /// The leader before; `None`: none was ever seen.
    pub from: Option<FormerLeader>,
    /// What an operator had asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<ChangeRequest>,
    /// The facts.
    pub seen: Vec<Sighting>,
    /// The other members at the decision.
    pub considered: Vec<Considered>,
    /// Members that were considered and have no place in the record.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_considered: usize,
    /// What this member decided on the way, with the times.
    pub steps: Vec<JournalStep>,
    /// The timeline that it serves on.
    pub timeline: Option<Timeline>,
    /// Its position at the decision.
    pub position: Lsn,
    /// What may be lost.
    pub loss: LossBound,
    /// The versions of all members.
    pub versions: BTreeMap<MemberName, String>,
}

/// How a term ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermEnded {
    /// The way.
    pub how: TermEnd,
    /// What an operator had asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<ChangeRequest>,
    /// The facts.
    pub seen: Vec<Sighting>,
    /// What this member decided since it last served undisturbed, with the times.
    pub steps: Vec<JournalStep>,
    /// Its last known position.
    pub position: Lsn,
}

/// The kind of a change of leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// The first leader that this cluster had.
    First,
    /// The leader moved the key to its successor, after a clean stop.
    HandOver,
    /// The key was vacant, and a member took it.
    Failover,
    /// The leader was replaced before its lease ended.
    Recruited,
    /// The same member leads again.
    Again,
    /// The same, of a primary that ran all the time: the key was deleted, or etcd restored.
    FoundAgain,
}

/// How a term ended, by the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TermEnd {
    /// It moved the key to a successor.
    HandedOver {
        /// The successor.
        to: MemberName,
    },
    /// It deleted the key.
    Released,
    /// It could not renew its lease, or did not.
    RanOut,
    /// Another member leads, although the lease had not ended by this member's clock.
    Replaced {
        /// That member.
        by: MemberName,
    },
    /// The key is gone, although the lease had not ended by this member's clock.
    Deleted,
}

/// The leader before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerLeader {
    /// Its name.
    pub name: MemberName,
    /// Its term.
    pub term: Term,
    /// Its timeline, as it published it.
    pub timeline: Option<Timeline>,
    /// The last position that it has certainly reached.
    pub position: Option<Lsn>,
}

/// An operator's request for a change, in the key `failover`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRequest {
    /// Its revision; `None`: an older program wrote the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<OperationId>,
    /// The leader that it names: a switchover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<MemberName>,
    /// The candidate that it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<MemberName>,
    /// Its time, where it was scheduled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<WallTime>,
    /// Who asked, and by what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
}

/// A fact, with its time by the clock of the member that recorded it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// When it was so.
    pub at: WallTime,
    /// What was seen.
    pub what: JournalFact,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant is its own sentence, written out in Display")]
pub enum JournalFact {
    LastHeartbeat { leader: MemberName },
    StillHeard { leader: MemberName },
    NeverHeard { leader: MemberName },
    SilentElsewhere { leader: MemberName, member: MemberName },
    HeardElsewhere { leader: MemberName, member: MemberName },
    LeaseEnded { leader: MemberName },
    KeyReleased { leader: MemberName, state: String },
    KeyMoved { leader: MemberName },
    Promised { leader: MemberName },
    StoreWentBack { why: String },
    RenewalFailed { trouble: String },
    NotRenewed { seconds: u64 },
    Frozen { millis: u64 },
    Unhealthy { death: String },
    Crashed { times: usize },
    PostgresDown { exit: String },
    EndAsked,
    PodEnds { end: String },
    WatchdogFailed,
    WritesRefused { why: String },
}

/// Another member at the decision to lead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Considered {
    /// Its name.
    pub name: MemberName,
    /// Its timeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
    /// Its position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Lsn>,
    /// Why it does not lead.
    pub verdict: CandidateVerdict,
}

/// Why a member does not lead instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CandidateVerdict {
    /// It may not, whatever its position.
    Unfit(Ineligible),
    /// It was not asked.
    NotAsked,
    /// It lacks so many bytes of what the new leader has.
    Behind(u64),
    /// It is as far, and was not faster.
    Equal,
    /// It has so many bytes more, and was not to be waited for.
    Ahead(u64),
}

/// What a change of leadership may lose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossBound {
    /// Nothing: the former leader stopped cleanly, and its last WAL was here before the key moved.
    NothingHandedOver,
    /// No acknowledged commit: synchronous replication, by the key `sync`.
    NothingSynchronous,
    /// Nothing: the primary goes on with its own data.
    NothingOwnData,
    /// Nothing: there was no data before.
    NothingYet,
    /// What the former leader had not sent.
    Asynchronous {
        /// So many bytes up to the last position that it published are missing.
        missing: u64,
        /// The setting `maximum_lag_on_failover`.
        limit: u64,
    },
    /// What the new leader lacks: an operator had it lead all the same.
    Accepted {
        /// So many bytes up to the last position that the former leader published; `None`: it is not known.
        missing: Option<u64>,
    },
    /// The former leader's position is not known.
    Unknown,
}

/// A decision on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalStep {
    /// When it was made.
    pub at: WallTime,
    /// Its reason.
    pub because: String,
    /// The phase of the change that began with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<OperationPhase>,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl ChangeRequest {
    /// The request in the key `failover`.
    pub fn of(key: &FailoverKey) -> ChangeRequest {
        let FailoverRequest { leader, candidate, scheduled_at, requested_by, .. } = key.request.clone();
        ChangeRequest { id: Some(key.mod_revision), leader, candidate, scheduled_at, requested_by }
    }
}

impl JournalStep {
    /// A step with a sentence of limited length.
    pub fn new(at: WallTime, because: &str) -> JournalStep {
        JournalStep { at, because: short_sentence(because), phase: None }
    }
}

/// The sentence, or its beginning.
pub fn short_sentence(sentence: &str) -> String {
    match sentence.char_indices().nth(SENTENCE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &sentence[..end]),
        None => sentence.to_owned(),
    }
}

impl JournalRecord {
    /// The request that it belongs to.
    pub fn request(&self) -> Option<&ChangeRequest> {
        match &self.entry {
            JournalEntry::Began(began) => began.request.as_ref(),
            JournalEntry::Ended(ended) => ended.request.as_ref(),
            JournalEntry::Refused { request, .. } => request.as_ref(),
            JournalEntry::Discarded { .. } => None,
        }
    }

    /// Its name below `journal/`: its term, so that names are in the order of the terms, and its kind.
    pub fn key(&self) -> String {
        let term = format!("{:019}", self.term.0.max(0));
        match &self.entry {
            JournalEntry::Began(_) => format!("{term}/began"),
            JournalEntry::Ended(_) => format!("{term}/ended"),
            JournalEntry::Refused { .. } => format!("{term}/refused-{}", self.at.0),
            JournalEntry::Discarded { .. } => format!("{term}/discarded-{}", self.by),
        }
    }

    /// Its text, within the limit: members and steps in the middle are left out where it would be longer.
    pub fn text(&self) -> String {
        let mut record = self.clone();
        loop {
            let text = serde_json::to_value(&record).map(|value| json_compact(&value)).unwrap_or_default();
            if text.len() <= RECORD_BYTES_MAX || !record.shorten() {
                return text;
            }
        }
    }

    /// Leaves out what is least needed; false where nothing is left to leave out.
    fn shorten(&mut self) -> bool {
        let steps = match &mut self.entry {
            JournalEntry::Began(began) => {
                if 3 < began.considered.len() || began.steps.is_empty() {
                    let shortened = began.considered.pop().is_some();
                    began.more_considered += usize::from(shortened);
                    return shortened;
                }
                if began.versions.pop_last().is_some() {
                    return true;
                }
                &mut began.steps
            }
            JournalEntry::Ended(ended) => &mut ended.steps,
            JournalEntry::Refused { steps, .. } => steps,
            JournalEntry::Discarded { .. } => return false,
        };
        let middle = steps.len() / 2;
        let has_steps = !steps.is_empty();
        if has_steps {
            steps.remove(middle);
        }
        has_steps
    }
}

#[cfg(test)]
mod tests;
