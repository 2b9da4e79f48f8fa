//! The memory that one tick passes to the next. All other facts are observed again.

use serde::{Deserialize, Serialize};

use super::ledgers::{
    Ending, Failures, LeaderKeyPhase, LeaseLedger, PromotionSeen, Registered, ReleasedTerm, SlotLedger,
    UnfencedLedger,
};
use super::sync::SyncMemory;
use crate::model::{
    ClusterStatus, FollowTarget, HandOverRefusal, HandOverStep, LeaseId, Lsn, MemberName, MemberRecord,
    Moment, Obstacle, Request, RequestId, RestartFilter, StoreSeen, Term, Unfit,
};

/// The loop's memory. Lost when the supervisor restarts, and nothing unsafe follows from that.
///
/// What excludes each other is one value: the phases of the leader key, of a hand-over, and the source that is
/// followed. The rest are ledgers that do coexist: a restart goes on while leadership changes, a hand-over may begin
/// while a reinitialize is asked for, failures are counted across all of it, and `led_since` outlives its leader, which
/// may lead again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// The member record last written, under which lease, and when.
    pub published: Option<(MemberRecord, LeaseId, Moment)>,
    /// The status last written, and when.
    pub status: Option<(ClusterStatus, Moment)>,
    /// The hand-over under way.
    pub hand_over: Option<HandOver>,
    /// Why the last hand-over did not happen, until the next begins.
    pub hand_over_refused: Option<HandOverRefusal>,
    /// The request of the key `failover` that was dealt with, by its revision, and when it was cleared.
    pub failover_done: Option<(i64, Moment)>,
    /// The leader key that I tried to give away, until it is seen to be gone or mine in a new term.
    pub released_term: Option<ReleasedTerm>,
    /// What was asked for under the lease.
    pub lease: LeaseLedger,
    /// I stopped being primary and have not been a standby since.
    pub demoted: bool,
    /// While I am primary: whether the checkpoint after promotion is done (`None`: not begun).
    pub checkpoint: Option<bool>,
    /// Where the running standby was told to get WAL from.
    pub following: Option<Following>,
    /// The leader's term, and when it was first seen: what its PostgreSQL said before says nothing of it.
    pub led_since: Option<(Term, Moment)>,
    /// Since when the answers of the others count: since nobody leads, or a step of the hand-over.
    pub answers_since: Option<Moment>,
    /// When members were last asked.
    pub asked_at: Option<Moment>,
    /// What belongs to who holds the leader key.
    pub leader_key: LeaderKeyPhase,
    /// Primaries without a fence.
    pub unfenced: UnfencedLedger,
    /// While this supervisor, or its pod, ends.
    pub ending: Ending,
    /// I gave leadership away and let the others go first until then.
    pub yield_until: Option<Moment>,
    /// What failed, and how often.
    pub failures: Failures,
    /// The process of the postmaster last seen up, to notice its end.
    pub last_pid: Option<i32>,
    /// Where I am on the way back behind another leader.
    pub rejoin: Rejoin,
    /// A restart under way.
    pub restart: Option<Restart>,
    /// A restart that waits for its time.
    pub scheduled_restart: Option<Request>,
    /// A reinitialize under way: clone from the leader only?
    pub reinitialize: Option<bool>,
    /// Replication slots.
    pub slots: SlotLedger,
    /// What was seen of etcd's store. The one thing here that outlives the supervisor.
    pub store: StoreSeen,
    /// The revision at which nobody was seen to lead when I first tried to take the leader key, and the highest
    /// revision of the store that others had seen by then: the write by which I lead may be older, although its answer
    /// was lost.
    #[serde(default)]
    pub store_heard: Option<(i64, i64)>,
    /// When a write to the key `generation` was last sent.
    pub generation_sent_at: Option<Moment>,
    /// Synchronous replication.
    pub sync: SyncMemory,
    /// Since when a standby under a leader does not stream.
    pub not_streaming_since: Option<Moment>,
    /// Why this Postgres was stopped, or is to be, so that another member leads.
    pub unhealthy: Option<Unfit>,
    /// It is dead and goes on, because nobody else can lead.
    pub kept_serving: bool,
    /// etcd knows no cluster, and my Postgres was a primary when it went down: it may rebuild the cluster, although it
    /// runs as a standby until it does.
    pub rebuilds: bool,
    /// How far the promotion under way has come.
    pub promotion: Option<PromotionSeen>,
    /// Who has registered while there is no cluster.
    #[serde(default)]
    pub registered: Registered,
}

impl Memory {
    /// etcd's store is another one than before: the numbers of that one (revisions, terms) come again and mean
    /// something else. What was written to it may not be in this one.
    pub(super) fn forget_numbers(&mut self) {
        (self.failover_done, self.unfenced.cleared, self.generation_sent_at) = (None, None, None);
        if let Some(leaderless) = self.leader_key.vacant_mut() {
            leaderless.revision = None;
        }
        (self.answers_since, self.store_heard) = (None, None);
        (self.released_term, self.hand_over, self.led_since) = (None, None, None);
        (self.published, self.status, self.lease.gone) = (None, None, None);
        (self.sync.term, self.sync.owned, self.sync.writing) = (None, None, None);
        if let Some(Following::Source { term, .. }) = &mut self.following {
            // No term of a leader: its history is asked for.
            *term = Term(0);
        }
    }

    /// The revision at which nobody was seen to lead; zero while that is not so.
    pub(super) fn vacant_at(&self) -> i64 {
        self.leader_key.vacant().and_then(|leaderless| leaderless.revision).unwrap_or_default()
    }

    /// I gave the leader key away and let the others go first.
    pub fn yields(&self, now: Moment) -> bool {
        self.yield_until.is_some_and(|until| now < until)
    }

    /// Nobody needs to wait for me.
    pub fn stands_back(&self, now: Moment) -> bool {
        self.leader_key.vacant().is_some_and(|leaderless| leaderless.lag_disqualified) || self.yields(now)
    }
}

/// Where a standby gets WAL from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Following {
    /// From nowhere.
    Nobody {
        /// Since when.
        since: Moment,
    },
    /// From there.
    Source {
        /// The term of the leader by whose history this was found right.
        term: Term,
        /// From whom.
        target: FollowTarget,
    },
}

/// A planned hand-over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandOver {
    /// What asked for it.
    pub cause: HandOverCause,
    /// Who shall lead; `None` until the candidates answered.
    pub to: Option<MemberName>,
    /// How far it is.
    pub phase: HandOverPhase,
    /// When it began.
    pub since: Moment,
    /// When it is aborted.
    pub give_up_at: Moment,
    /// After the stop: how far the candidate was when it last advanced, and when that was.
    pub reached: Option<(Lsn, Moment)>,
}

impl HandOver {
    /// What is being done, and for whom.
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

    /// PostgreSQL is down and the candidate has not shown yet that it holds everything: this has its own deadline.
    pub(super) fn waits_for_candidate(&self) -> bool {
        matches!(self.phase, HandOverPhase::Stopping | HandOverPhase::Proving { .. })
    }
}

/// What asked for a hand-over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum HandOverCause {
    /// The key `failover`, at this revision, naming this candidate.
    Request {
        /// Of the key.
        mod_revision: i64,
        /// As asked.
        candidate: Option<MemberName>,
    },
    /// The supervisor was asked to end, or its pod ends or is gone.
    Shutdown,
}

impl HandOverCause {
    /// The member that was asked for.
    pub(super) fn candidate(&self) -> Option<&MemberName> {
        match self {
            HandOverCause::Request { candidate, .. } => candidate.as_ref(),
            HandOverCause::Shutdown => None,
        }
    }
}

/// The steps of a hand-over, in order.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum HandOverPhase {
    /// Asking the candidates; still serving.
    Choosing,
    /// CHECKPOINT; still serving.
    Checkpoint,
    /// It is done; still serving, until etcd is seen to take writes.
    Checkpointed,
    /// Clean stop: writes are away from here on.
    Stopping,
    /// Asking the candidate whether it holds the shutdown checkpoint.
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
    /// Who waits for the answer; `None` for a scheduled one.
    pub id: Option<RequestId>,
    /// When it began: a postmaster younger than this is the new one.
    pub since: Moment,
    /// When to answer that it takes too long.
    pub give_up_at: Moment,
    /// The old postmaster was told to stop.
    pub stopped: bool,
    /// What was asked.
    pub filter: RestartFilter,
}

/// The ladder back behind another leader: each rung with its count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rejoin {
    /// A copy that needs WAL to be consistent did not find it here, and it may hold some that is not the leader's.
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
    /// Questions about the leader's history that failed in a row.
    pub silences: u32,
    /// Which leader was last asked for its history.
    pub asked: Option<Asked>,
    /// When a standby to which no WAL comes is taken off its source, unless etcd is heard of before.
    #[serde(default)]
    pub leave_at: Option<Moment>,
    /// When it was first told to have no source, since it last had one: it may have to be told again and again.
    #[serde(default)]
    pub alone_since: Option<Moment>,
    /// When this PostgreSQL may last have received or written something.
    pub changed_at: Option<Moment>,
    /// How far I have come, since when, without WAL that the leader has removed.
    #[serde(default)]
    pub unfed: Option<(Lsn, Moment)>,
    /// The leader that has removed WAL without which nothing here goes on.
    #[serde(default)]
    pub wal_removed_by: Option<MemberName>,
    /// Behind whom nothing more is tried until then, and why.
    pub stuck: Option<(MemberName, Obstacle, Moment)>,
}

/// The question for a leader's history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// Who was asked.
    pub leader: MemberName,
    /// When it was first asked.
    pub since: Moment,
    /// When it was last asked.
    pub at: Moment,
}
