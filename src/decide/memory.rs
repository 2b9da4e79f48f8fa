//! What one tick leaves for the next. Everything else is observed anew.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::sync::SyncMemory;
use crate::model::{
    ClusterStatus, FollowTarget, JobKind, LeaseId, Lsn, MemberName, MemberRecord, Moment, Obstacle,
    PeerIdentity, Request, RequestId, RestartFilter, StoreSeen, Term, UnfencedPrimary, Unfit,
};

/// The loop's memory. Lost when the supervisor restarts, and nothing unsafe follows from that.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// The member record last written, under which lease, and when.
    pub published: Option<(MemberRecord, LeaseId, Moment)>,
    /// The status last written, and when.
    pub status: Option<(ClusterStatus, Moment)>,
    /// The hand-over under way.
    pub hand_over: Option<HandOver>,
    /// The hand-over that began then has had its checkpoint.
    pub checkpointed_for: Option<Moment>,
    /// Why the last hand-over did not happen, until the next begins.
    pub hand_over_refused: Option<String>,
    /// The hand-over that the end of this supervisor, or of its pod, asked for was given up: it is not tried again.
    #[serde(default)]
    pub left_in_vain: bool,
    /// The request of the key `failover` that was dealt with, by its revision, and when it was cleared.
    pub failover_done: Option<(i64, Moment)>,
    /// The term whose key I tried to give away: as long as I seem to lead in it, nothing here may become primary.
    pub given_away: Option<Term>,
    /// The try failed or its end is unknown: the key has to be mine again, in a new term, before anything else.
    pub reclaim: bool,
    /// The lease under which the leader key, or the making of the cluster, was last asked for.
    #[serde(default)]
    pub asked_under: Option<LeaseId>,
    /// That lease, if etcd said that there is none such: nothing is asked for under it any more.
    #[serde(default)]
    pub lease_gone: Option<LeaseId>,
    /// Since when the view and the last renewal disagree on whether I lead.
    pub unconfirmed_since: Option<Moment>,
    /// While I end and my Postgres is down: when I go, whatever became of the leader key.
    pub leave_by: Option<Moment>,
    /// I stopped being primary and have not been a standby since.
    pub demoted: bool,
    /// While I am primary: whether the checkpoint after promotion is done (`None`: not begun).
    pub checkpoint: Option<bool>,
    /// Where the running standby was told to get WAL from.
    pub following: Option<Following>,
    /// The leader's term, and when it was first seen: what its PostgreSQL said before says nothing of it.
    pub led_since: Option<(Term, Moment)>,
    /// When members were last asked.
    pub asked_at: Option<Moment>,
    /// How often the answers did not vouch for me.
    pub asked_in_vain: Option<AskedInVain>,
    /// WAL that comes in although nobody leads.
    pub incoming: Option<Incoming>,
    /// Since when I am to end in pause and leave a primary, and when etcd was last told so.
    pub leaving: Option<(Moment, Option<Moment>)>,
    /// Which revision of the key `unfenced` I took something out of, and when.
    pub unfenced_cleared: Option<(i64, Moment)>,
    /// Primaries that were left running of which a store from before does not know, until it does, and when that was
    /// last written.
    #[serde(default)]
    pub unfenced_owed: (BTreeMap<MemberName, UnfencedPrimary>, Option<Moment>),
    /// Since when nobody leads.
    pub unlocked_since: Option<Moment>,
    /// The revision at which that was seen.
    pub unlocked_at: Option<i64>,
    /// I gave leadership away and let the others go first until then.
    pub yield_until: Option<Moment>,
    /// Nobody leads, and I am too far behind to.
    pub too_old: bool,
    /// Unexpected ends of the postmaster while I led, newest last; bounded.
    pub crashes: Vec<Moment>,
    /// The process of the postmaster last seen up, to notice its end.
    pub last_pid: Option<i32>,
    /// Where I am on the way back behind another leader.
    pub rejoin: Rejoin,
    /// Failed attempts in a row to start or promote.
    pub start_failures: u32,
    /// The last failure of a long action, for the operator.
    pub last_failure: Option<String>,
    /// Do not try the failed action again before this.
    pub retry_at: BTreeMap<JobKind, Moment>,
    /// A restart under way.
    pub restart: Option<Restart>,
    /// A restart that waits for its time.
    pub scheduled_restart: Option<Request>,
    /// A reinitialize under way: clone from the leader only?
    pub reinitialize: Option<bool>,
    /// The slots retained by the former leader were taken over.
    pub slots_inherited: bool,
    /// Slots of members, and when each was last wanted.
    pub slots_wanted: BTreeMap<String, Moment>,
    /// Slots that nobody uses, that no member asks for and no setting keeps, and since when.
    #[serde(default)]
    pub slots_idle: BTreeMap<String, Moment>,
    /// The slots last asked for (made, dropped) and when, so that a failing statement is not repeated at once.
    pub slots_set: Option<(Vec<String>, Vec<String>, Moment)>,
    /// What was seen of etcd's store. The one thing here that outlives the supervisor.
    pub store: StoreSeen,
    /// The highest revision of it that others had seen when I first tried to take the leader key, and `unlocked_at`
    /// then: the write by which I lead may be that one, although its answer was lost.
    #[serde(default)]
    pub store_heard: Option<(i64, i64)>,
    /// When a write to the key `generation` was last sent.
    pub generation_sent_at: Option<Moment>,
    /// Synchronous replication.
    pub sync: SyncMemory,
    /// Since when a standby under a leader does not stream.
    pub not_streaming_since: Option<Moment>,
    /// Why this Postgres was stopped, or is to be, so that another member leads.
    pub condemned: Option<Unfit>,
    /// It is dead and goes on, because nobody else can lead.
    pub spared: bool,
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
        (self.failover_done, self.unfenced_cleared, self.generation_sent_at) = (None, None, None);
        (self.unlocked_at, self.unlocked_since, self.store_heard) = (None, None, None);
        (self.given_away, self.reclaim, self.hand_over, self.led_since) = (None, false, None, None);
        (self.published, self.status, self.lease_gone) = (None, None, None);
        (self.sync.term, self.sync.owned, self.sync.writing) = (None, None, None);
        if let Some(Following::Source { term, .. }) = &mut self.following {
            // No term of a leader: its history is asked for.
            *term = Term(0);
        }
    }

    /// I gave the leader key away and let the others go first.
    pub fn yields(&self, now: Moment) -> bool {
        self.yield_until.is_some_and(|until| now < until)
    }

    /// Nobody needs to wait for me.
    pub fn stands_back(&self, now: Moment) -> bool {
        self.too_old || self.yields(now)
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

/// The steps of a hand-over, in order.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum HandOverPhase {
    /// Asking the candidates; still serving.
    Choosing,
    /// CHECKPOINT; still serving.
    Checkpoint,
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
    pub alone_in_vain: bool,
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

/// WAL that comes in although nobody leads.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incoming {
    /// How far, at the last look.
    pub received: Lsn,
    /// When that was last seen to advance.
    pub advanced_at: Option<Moment>,
}

/// How far a promotion has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromotionSeen {
    /// Replayed up to here.
    pub replayed: Lsn,
    /// Since when.
    pub since: Moment,
}

/// Questions whose answers did not vouch for me. Anything that may change the answers begins a new count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AskedInVain {
    /// How often.
    pub times: u32,
    /// Who was registered then.
    pub registered: Vec<PeerIdentity>,
    /// Whether WAL was coming in here then.
    pub receives: bool,
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
