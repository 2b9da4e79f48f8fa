//! Parts of the memory: what belongs together is kept together.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{Failure, JobKind, LeaseId, Lsn, MemberName, Moment, PeerIdentity, Term, UnfencedPrimary};

/// The leader key of `term` was to be given away: as long as I seem to lead in it, nothing here may become primary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReleasedTerm {
    /// The term.
    pub term: Term,
    /// The try failed or its end is unknown: the key has to be mine again, in a new term, before anything else.
    pub reclaim: bool,
}

/// What was asked for under the lease.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LeaseLedger {
    /// The lease under which the leader key, or the making of the cluster, was last asked for.
    pub asked_under: Option<LeaseId>,
    /// That lease, if etcd said that there is none such: nothing is asked for under it any more.
    pub gone: Option<LeaseId>,
}

/// What is remembered by what the leader key shows. It is consumed and returned in each tick, so that nothing of one
/// phase is left in another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum LeaderKeyPhase {
    /// A member holds the key, or it was not read yet.
    #[default]
    Held,
    /// The view and the last renewal disagree on whether I hold it.
    Unconfirmed {
        /// Since when.
        since: Moment,
    },
    /// Nobody holds it.
    Vacant(Leaderless),
}

impl LeaderKeyPhase {
    /// What is remembered while nobody holds the key.
    pub fn vacant(&self) -> Option<&Leaderless> {
        match self {
            LeaderKeyPhase::Vacant(leaderless) => Some(leaderless),
            LeaderKeyPhase::Held | LeaderKeyPhase::Unconfirmed { .. } => None,
        }
    }

    pub(super) fn vacant_mut(&mut self) -> Option<&mut Leaderless> {
        match self {
            LeaderKeyPhase::Vacant(leaderless) => Some(leaderless),
            LeaderKeyPhase::Held | LeaderKeyPhase::Unconfirmed { .. } => None,
        }
    }
}

/// Nobody leads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Leaderless {
    /// I am too far behind to lead, by the last tick.
    pub lag_disqualified: bool,
    /// The revision at which that was seen; `None`: the next look begins anew.
    pub revision: Option<i64>,
    /// How often the answers did not vouch for me.
    pub failed_race_rounds: Option<FailedRaceRounds>,
    /// WAL that comes in all the same.
    pub incoming: Option<Incoming>,
}

/// Questions whose answers did not vouch for me. Anything that may change the answers begins a new count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FailedRaceRounds {
    /// How often.
    pub times: u32,
    /// Who was registered then.
    pub registered: Vec<PeerIdentity>,
    /// Whether WAL was coming in here then.
    pub receives: bool,
}

/// WAL that comes in although nobody leads.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incoming {
    /// How far, at the last look.
    pub received: Lsn,
    /// When that was last seen to advance.
    pub advanced_at: Option<Moment>,
}

/// Primaries without a fence, and what etcd was told of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UnfencedLedger {
    /// I am to end in pause and leave a primary.
    pub leaving: Option<Leaving>,
    /// Which revision of the key `unfenced` I took something out of, and when.
    pub cleared: Option<(i64, Moment)>,
    /// Primaries that were left running of which a store from before does not know, until it does.
    pub owed: BTreeMap<MemberName, UnfencedPrimary>,
    /// When those were last written.
    pub owed_sent_at: Option<Moment>,
}

/// A primary is left running.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leaving {
    /// Since when it is to be left.
    pub asked_at: Moment,
    /// When etcd was last told so.
    pub sent_at: Option<Moment>,
}

/// The end of this supervisor, or of its pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// My Postgres is down: when I go, whatever became of the leader key.
    pub leave_by: Option<Moment>,
    /// The hand-over that the end asked for was given up: it is not tried again.
    pub failed_hand_over: bool,
}

/// What failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Failures {
    /// Unexpected ends of the postmaster while I led, newest last; bounded.
    pub crashes: Vec<Moment>,
    /// Failed attempts in a row to start or promote.
    pub starts: u32,
    /// The last failure of a long action, for the operator.
    pub last: Option<Failure>,
    /// Do not try the failed action again before this.
    pub retry_at: BTreeMap<JobKind, Moment>,
}

/// Replication slots.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SlotLedger {
    /// The slots retained by the former leader were taken over.
    pub inherited: bool,
    /// Slots of members, and when each was last wanted.
    pub wanted: BTreeMap<String, Moment>,
    /// Slots that nobody uses, that no member asks for and no setting keeps, and since when.
    pub idle: BTreeMap<String, Moment>,
    /// The slots last asked for (made, dropped) and when, so that a failing statement is not repeated at once.
    pub asked: Option<(Vec<String>, Vec<String>, Moment)>,
}

/// How far a promotion has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromotionSeen {
    /// Replayed up to here.
    pub replayed: Lsn,
    /// Since when.
    pub since: Moment,
}

/// Who has registered while etcd knows no cluster and I have no data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Registered {
    /// All that were seen: one that comes again is not new.
    pub names: BTreeSet<MemberName>,
    /// When the last of them was first seen, once I am one of them myself.
    pub last_at: Option<Moment>,
    /// One that had data, even if it has gone since.
    pub with_data: Option<MemberName>,
}
