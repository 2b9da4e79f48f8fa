//! The memory that one tick passes to the next. All other facts are observed anew in each tick.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ledgers::{
    Ending, FailsafeLedger, Failures, LeaderKeyPhase, LeaseLedger, PrePromote, PromotionSeen, RecruitLedger,
    Registered, ReleasedTerm, SlotLedger, UnfencedLedger,
};
use super::sync::SyncMemory;
use crate::model::{
    ClusterStatus, FollowTarget, HandOverRefusal, HandOverStep, LeaderHearing, LeaseId, Lsn, MemberName,
    MemberRecord, Moment, Observation, Obstacle, OperationId, Request, RequestId, RestartFilter, StoreSeen,
    Suspicion, Term, Timeline, Unfit,
};

/// The loop's memory. It is lost when the supervisor restarts, which is safe.
///
/// Memory that excludes other memory is one value: the phases of the leader key and of a hand-over, and the source that
/// a standby follows. The rest are ledgers that exist side by side: a restart continues while leadership changes, a
/// hand-over may begin during a requested reinitialization, failures are counted across all phases, and `led_since`
/// outlives its leader, which may lead again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// The member record last written, with its lease and the time.
    pub published: Option<(MemberRecord, LeaseId, Moment)>,
    /// The status last written, and the time.
    pub status: Option<(ClusterStatus, Moment)>,
    /// The hand-over under way.
    pub hand_over: Option<HandOver>,
    /// Why the last hand-over did not happen; kept until the next begins.
    pub hand_over_refused: Option<HandOverRefusal>,
    /// The revision of the key `failover` whose request was handled, and when it was cleared.
    pub failover_done: Option<(i64, Moment)>,
    /// The leader key that I tried to give away, until it is seen to be gone or to be mine in a new term.
    pub released_term: Option<ReleasedTerm>,
    /// The requests made under the lease.
    pub lease: LeaseLedger,
    /// I stopped being primary and have not been a standby since.
    pub demoted: bool,
    /// My PostgreSQL has accepted writes, and nobody else can have led since.
    #[serde(default)]
    pub served: Option<Served>,
    /// This member has created the cluster, and nobody has led it yet: nobody else has any of its data.
    #[serde(default)]
    pub is_new_cluster: bool,
    /// Whether the checkpoint after promotion is done, while I am primary (`None`: not begun).
    pub checkpoint: Option<bool>,
    /// The source of WAL that the running standby was given.
    pub following: Option<Following>,
    /// The leader's term, and when it was first seen: earlier answers of its PostgreSQL do not count.
    pub led_since: Option<(Term, Moment)>,
    /// Since when the other members' answers count: since the leader key is vacant, or a step of the hand-over began.
    pub answers_since: Option<Moment>,
    /// When members were last asked.
    pub asked_at: Option<Moment>,
    /// Memory that depends on the state of the leader key.
    pub leader_key: LeaderKeyPhase,
    /// Unfenced primaries.
    pub unfenced: UnfencedLedger,
    /// Memory for the time in which this supervisor or its pod ends.
    pub ending: Ending,
    /// I gave leadership away and yield to the other members until then.
    pub yield_until: Option<Moment>,
    /// Failsafe mode.
    #[serde(default)]
    pub failsafe: FailsafeLedger,
    /// Recruiting.
    #[serde(default)]
    pub recruit: RecruitLedger,
    /// Failures, and their number.
    pub failures: Failures,
    /// The process id of the postmaster last seen running, to notice its end.
    pub last_pid: Option<i32>,
    /// The progress of this member's way back behind another leader.
    pub rejoin: Rejoin,
    /// A restart under way.
    pub restart: Option<Restart>,
    /// A restart that is scheduled.
    pub scheduled_restart: Option<Request>,
    /// The start of the PostgreSQL that it is for.
    #[serde(default)]
    pub scheduled_for: Option<String>,
    /// A reinitialization under way; true: clone from the leader only.
    pub reinitialize: Option<bool>,
    /// Replication slots.
    pub slots: SlotLedger,
    /// etcd's store as seen. This is the only part that outlives the supervisor.
    pub store: StoreSeen,
    /// The revision that showed no leader when I first tried to take the leader key, and the highest revision of the
    /// store that other members had seen by then. The write that made me leader may be older than the answer to it, if
    /// an earlier answer was lost.
    #[serde(default)]
    pub store_heard: Option<(i64, i64)>,
    /// When a write to the key `generation` was last sent.
    pub generation_sent_at: Option<Moment>,
    /// Synchronous replication.
    pub sync: SyncMemory,
    /// Since when a standby with a leader does not stream.
    pub not_streaming_since: Option<Moment>,
    /// Why this Postgres was stopped, or is to be stopped, so that another member leads.
    pub unhealthy: Option<Unfit>,
    /// It is dead and keeps serving, because no other member can lead.
    pub kept_serving: bool,
    /// etcd knows no cluster, and my Postgres was a primary when it went down: it may rebuild the cluster, although it
    /// runs as a standby until then.
    pub rebuilds: bool,
    /// The script before a promotion.
    #[serde(default)]
    pub pre_promote: Option<PrePromote>,
    /// The progress of the promotion under way.
    pub promotion: Option<PromotionSeen>,
    /// The members that registered while there is no cluster.
    #[serde(default)]
    pub registered: Registered,
}

impl Memory {
    /// etcd's store was replaced or restored: its numbers (revisions, terms) repeat with another meaning, and earlier
    /// writes may be missing from it.
    pub(super) fn forget_numbers(&mut self) {
        (self.failover_done, self.unfenced.cleared, self.generation_sent_at) = (None, None, None);
        if let Some(leaderless) = self.leader_key.vacant_mut() {
            leaderless.revision = None;
        }
        (self.answers_since, self.store_heard) = (None, None);
        (self.released_term, self.hand_over, self.led_since) = (None, None, None);
        (self.published, self.status, self.lease.gone) = (None, None, None);
        (self.failsafe.written, self.served) = (None, None);
        (self.sync.term, self.sync.owned, self.sync.writing) = (None, None, None);
        if let Some(Following::Source { term, .. }) = &mut self.following {
            // Not the term of any leader, so that the leader's history is asked for.
            *term = Term(0);
        }
    }

    /// The revision that showed no leader; zero while there is a leader.
    pub(super) fn vacant_at(&self) -> i64 {
        self.leader_key.vacant().and_then(|leaderless| leaderless.revision).unwrap_or_default()
    }

    /// What I say of the leader's heartbeats to other members.
    pub fn suspicion(&self, hearing: LeaderHearing) -> Suspicion {
        match hearing {
            LeaderHearing::Silent { term, .. } if self.recruit.suspects == Some(term) => {
                Suspicion::Suspects(term)
            }
            // Its WAL may arrive.
            LeaderHearing::Heard { term } | LeaderHearing::Silent { term, .. } => Suspicion::Hears(term),
            LeaderHearing::Unknown | LeaderHearing::Unheard => Suspicion::Unknown,
        }
    }

    /// The attempt to replace the leader that I have promised, if PostgreSQL shows that it has left the leader.
    pub fn recruited(&self, seen: &Observation) -> Option<i64> {
        let promise = self.recruit.bound_by(seen.view.as_ref().map(|view| &view.cluster))?;
        let is_detached = seen.postgres.answering().is_some_and(|sql| sql.is_detached);
        let has_left = matches!(self.following, Some(Following::Nobody { .. }));
        (is_detached && has_left).then_some(promise.attempt)
    }

    /// Whether I gave the leader key away and still yield to the other members.
    pub fn yields(&self, now: Moment) -> bool {
        self.yield_until.is_some_and(|until| now < until)
    }

    /// Whether the other members need not wait for me.
    pub fn stands_back(&self, now: Moment) -> bool {
        self.leader_key.vacant().is_some_and(|leaderless| leaderless.lag_disqualified) || self.yields(now)
    }
}

/// What my PostgreSQL did when it last accepted writes, as long as the lease was held without a doubt since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// The term.
    pub term: Term,
    /// The timeline that it wrote. No member can have begun another one.
    pub timeline: Timeline,
    /// A tick that comes later comes from a loop that was frozen.
    pub until: Moment,
}

/// The source of a standby's WAL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Following {
    /// None.
    Nobody {
        /// The time since when.
        since: Moment,
    },
    /// This member.
    Source {
        /// The term of the leader whose history showed that the source is right.
        term: Term,
        /// The member to stream from.
        target: FollowTarget,
    },
}

/// A planned hand-over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandOver {
    /// The cause.
    pub cause: HandOverCause,
    /// The next leader; `None` until the candidates have answered.
    pub to: Option<MemberName>,
    /// Its phase.
    pub phase: HandOverPhase,
    /// When it began.
    pub since: Moment,
    /// When it is aborted.
    pub give_up_at: Moment,
    /// After the stop: the candidate's position when it last advanced, and the time.
    pub reached: Option<(Lsn, Moment)>,
}

impl HandOver {
    /// The present step, with the next leader.
    pub fn step(&self) -> HandOverStep {
        let to = self.to.clone();
        match self.phase {
            HandOverPhase::Choosing => HandOverStep::Choosing,
            HandOverPhase::Checkpoint | HandOverPhase::Checkpointed => HandOverStep::Checkpoint { to },
            HandOverPhase::Stopping => HandOverStep::Stopping { to },
            HandOverPhase::Proving { checkpoint } => HandOverStep::Proving { to, checkpoint },
            HandOverPhase::Moving { .. } => HandOverStep::Moving { to },
        }
    }

    /// The request that caused it.
    pub fn operation(&self) -> Option<OperationId> {
        match self.cause {
            HandOverCause::Request { mod_revision, .. } => Some(mod_revision),
            HandOverCause::Shutdown => None,
        }
    }

    /// The stop is to begin, or has begun: when the hand-over is given up. A checkpoint before it, while clients were
    /// served, does not shorten an operator's. A supervisor that ends has one deadline for all.
    pub(super) fn stop_by(&mut self, now: Moment, within: Duration) -> Moment {
        if self.phase != HandOverPhase::Stopping && self.operation().is_some() {
            self.give_up_at = now + within;
        }
        self.give_up_at
    }

    /// Whether PostgreSQL is down and the candidate has not yet proved that it has all WAL. This wait has its own
    /// deadline.
    pub(super) fn waits_for_candidate(&self) -> bool {
        matches!(self.phase, HandOverPhase::Stopping | HandOverPhase::Proving { .. })
    }
}

/// The cause of a hand-over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum HandOverCause {
    /// The key `failover`.
    Request {
        /// Its revision.
        mod_revision: i64,
        /// The requested candidate.
        candidate: Option<MemberName>,
        /// It was requested as a failover: its candidate need not be synchronous.
        #[serde(default)]
        is_failover: bool,
    },
    /// The supervisor is to end, or its pod is being deleted or is gone.
    Shutdown,
}

impl HandOverCause {
    /// The requested member.
    pub(super) fn candidate(&self) -> Option<&MemberName> {
        match self {
            HandOverCause::Request { candidate, .. } => candidate.as_ref(),
            HandOverCause::Shutdown => None,
        }
    }

    /// Whether in mode on an asynchronous member may take over, as an operator requested. It loses nothing, as it
    /// receives all WAL before; from then on fewer members have the acknowledged commits.
    pub(super) fn accepts_asynchronous(&self) -> bool {
        matches!(self, HandOverCause::Request { is_failover: true, .. })
    }
}

/// The steps of a hand-over, in order.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum HandOverPhase {
    /// Asking the candidates; still serving.
    Choosing,
    /// CHECKPOINT; still serving.
    Checkpoint,
    /// The checkpoint is done; still serving, until etcd has proved that it accepts writes.
    Checkpointed,
    /// Clean stop: clients cannot write from here on.
    Stopping,
    /// Asking the candidate whether it has the shutdown checkpoint.
    Proving {
        /// Where the shutdown checkpoint begins.
        checkpoint: Lsn,
    },
    /// The leader key is being moved.
    Moving {
        /// Where the shutdown checkpoint begins.
        checkpoint: Lsn,
    },
}

/// A restart under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Restart {
    /// The request to answer; `None` for a scheduled restart.
    pub id: Option<RequestId>,
    /// When it began: a postmaster younger than this is the new one.
    pub since: Moment,
    /// When to answer that it takes too long.
    pub give_up_at: Moment,
    /// The old postmaster was ordered to stop.
    pub stopped: bool,
    /// The conditions of the request.
    pub filter: RestartFilter,
    /// No operator asked for it: it puts copies of logical slots in place.
    #[serde(default)]
    pub for_slots: bool,
}

/// The attempts to rejoin behind another leader, each with its count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rejoin {
    /// A copy needs WAL that is not here to become consistent, and it may have WAL that is not the leader's.
    #[serde(default)]
    pub rejoin_alone_failed: bool,
    /// Crash recovery was run since the postmaster went down.
    pub recovered: bool,
    /// Failed crash recoveries in a row.
    pub recovery_failures: u32,
    /// Failed rewinds in a row.
    pub rewind_failures: u32,
    /// Failed clones in a row.
    pub clone_failures: u32,
    /// Failed questions about the leader's history in a row.
    pub silences: u32,
    /// The last question for a leader's history.
    pub asked: Option<Asked>,
    /// When a standby that receives no WAL is detached from its source, unless etcd answers before.
    #[serde(default)]
    pub leave_at: Option<Moment>,
    /// When this standby was first ordered to have no source, since it last had one. The order may be repeated.
    #[serde(default)]
    pub alone_since: Option<Moment>,
    /// When this PostgreSQL may last have received or written WAL.
    pub changed_at: Option<Moment>,
    /// The position where this member waits for WAL that the leader has removed, and since when.
    #[serde(default)]
    pub unfed: Option<(Lsn, Moment)>,
    /// The leader that has removed WAL which this member needs.
    #[serde(default)]
    pub wal_removed_by: Option<MemberName>,
    /// The leader behind which nothing more is tried until then, and the reason.
    pub stuck: Option<(MemberName, Obstacle, Moment)>,
}

/// The question for a leader's history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// The leader.
    pub leader: MemberName,
    /// When it was first asked.
    pub since: Moment,
    /// When it was last asked.
    pub at: Moment,
}
