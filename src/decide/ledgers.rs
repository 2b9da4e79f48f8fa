//! Parts of the memory, grouped by purpose.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{
    ClusterView, FailsafeMembers, FailsafePlan, Failure, JobKind, LeaseFacts, LeaseId, LogicalSlotChanges,
    Lsn, MemberName, Moment, PeerIdentity, Promise, RecruitPromise, RecruitWrite, SlotChanges, Term,
    UnfencedPrimary,
};

/// The leader key of `term` was to be given away. While I seem to lead in it, no Postgres here may become primary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReleasedTerm {
    /// The term.
    pub term: Term,
    /// The attempt failed or its result is unknown: before anything else the key has to be mine in a new term.
    pub reclaim: bool,
}

/// Requests under the lease.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LeaseLedger {
    /// The lease of the last request for the leader key or for the creation of the cluster.
    pub asked_under: Option<LeaseId>,
    /// That lease, if etcd reported that it does not exist: no further request is made under it.
    pub gone: Option<LeaseId>,
}

/// Memory that depends on the state of the leader key. Each tick consumes and returns it, so that no data of one phase
/// remains in another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum LeaderKeyPhase {
    /// A member holds the key, or the key was not read yet.
    #[default]
    Held,
    /// The view and the last renewal disagree on whether I hold it.
    Unconfirmed {
        /// The start of the disagreement.
        since: Moment,
    },
    /// No member holds it.
    Vacant(Leaderless),
}

impl LeaderKeyPhase {
    /// The memory while no member holds the key.
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

/// No member leads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Leaderless {
    /// By the last tick I am too far behind to lead.
    pub lag_disqualified: bool,
    /// The revision that showed no leader; `None`: the next view begins anew.
    pub revision: Option<i64>,
    /// The rounds of questions whose answers did not allow me to lead.
    pub failed_race_rounds: Option<FailedRaceRounds>,
    /// WAL that arrives although no member leads.
    pub incoming: Option<Incoming>,
}

/// Rounds of questions whose answers did not allow me to lead. A change that may change the answers begins a new count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FailedRaceRounds {
    /// Their number.
    pub times: u32,
    /// The members registered at that time.
    pub registered: Vec<PeerIdentity>,
    /// Whether WAL was arriving here at that time.
    pub receives: bool,
}

/// WAL that arrives although no member leads.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incoming {
    /// The received position at the last tick.
    pub received: Lsn,
    /// When that position last advanced.
    pub advanced_at: Option<Moment>,
}

/// Unfenced primaries, and the writes about them to etcd.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UnfencedLedger {
    /// I am to end in pause and to leave a primary running.
    pub leaving: Option<Leaving>,
    /// The revision of the key `unfenced` from which I removed an entry, and the time.
    pub cleared: Option<(i64, Moment)>,
    /// Unfenced primaries that a restored store lacks, until it has them.
    pub owed: BTreeMap<MemberName, UnfencedPrimary>,
    /// When those were last written.
    pub owed_sent_at: Option<Moment>,
}

/// A primary is left running.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leaving {
    /// The time of the request.
    pub asked_at: Moment,
    /// The time of the last write to etcd.
    pub sent_at: Option<Moment>,
}

/// The end of this supervisor, or of its pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// My Postgres is down: the time of my exit, whatever the state of the leader key.
    pub leave_by: Option<Moment>,
    /// The hand-over for this end failed: it is not tried again.
    pub failed_hand_over: bool,
}

/// Failsafe mode.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FailsafeLedger {
    /// What I have promised to a leader.
    pub promise: Option<Promise>,
    /// When this supervisor made its first decision.
    pub began_at: Option<Moment>,
    /// No promise of its predecessor stands any more.
    pub is_free: bool,
    /// What is asked of the members while etcd does not answer.
    pub plan: FailsafePlan,
    /// Writes to the key `failsafe` that may still be done.
    pub written: Option<FailsafeWritten>,
    /// I tried to take the leader key, and the outcome was lost: it may become mine yet.
    pub may_have_taken: bool,
}

/// Writes to the key `failsafe` over one state of it: at most one of them is done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FailsafeWritten {
    /// The revision of the key over which they were sent; zero: it was absent.
    pub over: i64,
    /// All members that they would name.
    pub members: FailsafeMembers,
    /// Whether one of them deletes the key.
    pub deletes: bool,
    /// When the last of them was sent.
    pub at: Moment,
}

/// Recruiting.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecruitLedger {
    /// What I have promised.
    pub promise: Option<RecruitPromise>,
    /// When, as far as this supervisor knows.
    pub promised_at: Option<Moment>,
    /// This supervisor has seen the keys: an attempt that they showed first counts as promised by its predecessor.
    pub has_looked: bool,
    /// The leader's silence.
    pub silence: Option<Silence>,
    /// The term of the leader that I suspect.
    pub suspects: Option<Term>,
    /// The last write to the key `recruit`.
    pub written: Option<(RecruitWrite, Moment)>,
    /// The deposal did not succeed.
    pub deposal_failed: bool,
    /// The leader's term, for which the following count.
    pub of_term: Option<Term>,
    /// Failed attempts.
    pub failures: u32,
    /// The last of them.
    pub failed_attempt: Option<i64>,
    /// I begin none before.
    pub not_before: Option<Moment>,
    /// I lead, and no member listens.
    pub seclusion: Option<Seclusion>,
    /// For that, and nothing else, clients were locked out.
    pub locked_out: Option<Seclusion>,
}

/// No member listens to a leader. Whoever replaces it has cut it off from etcd and the synchronous standbys, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seclusion {
    /// Since when nothing has come from etcd or the standbys.
    pub since: Moment,
    /// The end of the lease by then.
    pub covered_until: Option<Moment>,
    /// What a synchronous standby had confirmed.
    pub confirmed: Lsn,
}

/// No heartbeat arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// The leader's term.
    pub term: Term,
    /// Since when no WAL has arrived, either.
    pub since: Moment,
    /// What has.
    pub received: Lsn,
}

impl RecruitLedger {
    /// The promise, while its attempt may succeed: until etcd shows another leader, or another state of the key.
    pub fn bound_by(&self, cluster: Option<&ClusterView>) -> Option<&RecruitPromise> {
        let promise = self.promise.as_ref()?;
        let may_succeed = |cluster: &ClusterView| {
            let attempt = cluster.recruit.as_ref().map(|key| key.attempt);
            let term = cluster.leader.as_ref().map(|leader| leader.term);
            (attempt, term) == (Some(promise.attempt), Some(promise.term))
        };
        cluster.is_none_or(may_succeed).then_some(promise)
    }
}

impl FailsafeLedger {
    /// The promise that has not ended.
    pub fn standing(&self, now: Moment) -> Option<&Promise> {
        self.promise.as_ref().filter(|promise| now < promise.until)
    }

    /// Whether I lead by the members' promises, or have promised.
    pub fn is_active(&self, lease: &LeaseFacts, now: Moment) -> bool {
        self.standing(now).is_some() || (lease.leading_at(now).is_some() && lease.is_promised(now))
    }
}

/// Failures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Failures {
    /// Unexpected ends of the postmaster while I led, newest last; their number is limited.
    pub crashes: Vec<Moment>,
    /// Failed attempts in a row to start or promote.
    pub starts: u32,
    /// The last failure of a long action, for the operator.
    pub last: Option<Failure>,
    /// The earliest time of the next attempt, for each kind of action.
    pub retry_at: BTreeMap<JobKind, Moment>,
}

/// Replication slots.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SlotLedger {
    /// The slots that the former leader retained were taken over.
    pub inherited: bool,
    /// Slots of members, each with the time when it was last wanted.
    pub wanted: BTreeMap<String, Moment>,
    /// Slots that no connection uses, no member wants and no setting keeps, each with the time since when.
    pub idle: BTreeMap<String, Moment>,
    /// The permanent slots, and those that were permanent and are still there.
    #[serde(default)]
    pub permanent: BTreeSet<String>,
    /// The last changes that were ordered, and when: a failing statement is not repeated at once.
    pub asked: Option<(SlotChanges, Moment)>,
    /// Permanent logical slots.
    #[serde(default)]
    pub logical: LogicalSlotLedger,
}

/// Permanent logical slots.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogicalSlotLedger {
    /// The last changes that were ordered, and when.
    pub ordered: Option<(LogicalSlotChanges, Moment)>,
    /// When the leader was last asked about its slots.
    pub asked_at: Option<Moment>,
    /// When it was asked what it answered last.
    pub told_at: Option<Moment>,
    /// Since when slots are to be copied.
    pub lacking_since: Option<Moment>,
    /// Slots that were copied, each with the time when it was to be put in place.
    pub copied: BTreeMap<String, Moment>,
    /// Slots that cannot be moved any more.
    pub broken: BTreeSet<String>,
    /// The leader's term, and the start of PostgreSQL, in which slots proved safe.
    pub safe_in: Option<(Term, Moment)>,
    /// Slots that can be used after a promotion.
    pub safe: BTreeSet<String>,
    /// At a promotion: the slots that were missing, or not safe.
    pub doubtful: Vec<String>,
}

/// The script before a promotion, in a term of mine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PrePromote {
    /// It runs.
    Begun(Term),
    /// A promotion may follow.
    Passed(Term),
    /// Another member is to lead.
    Failed(Term),
}

/// The progress of a promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromotionSeen {
    /// The replayed position.
    pub replayed: Lsn,
    /// The time since when it has not advanced.
    pub since: Moment,
}

/// The members that have registered while etcd knows no cluster and I have no data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Registered {
    /// All that were seen; a member that returns is not new.
    pub names: BTreeSet<MemberName>,
    /// When the last of them was first seen, once I am registered myself.
    pub last_at: Option<Moment>,
    /// A member that had data, even if it has gone since.
    pub with_data: Option<MemberName>,
}
