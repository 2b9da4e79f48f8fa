//! Everything a decision can order. `agent::perform` is one match over [`Action`]; what could be decided is not
//! decided there.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    ClusterStatus, GenerationWrite, HistoryLine, LeaseId, Lsn, MemberName, MemberRecord, Moment, Reply,
    RequestId, SyncRecord, Term, Timeline, UnfencedWrite,
};

/// One order. All but [`Action::Start`] are quick or fire-and-forget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// Begin a long action; its end comes back as a [`super::Finished`]. Never while another of its lane runs.
    Start(Job),
    /// Cancel the long action under way, if it can be: its end is [`super::Outcome::Cancelled`].
    CancelJob,
    /// Ask these members over REST, all at once, with one deadline.
    AskPeers {
        /// Name and `api_url`.
        who: Vec<(MemberName, String)>,
    },
    /// Ask the leader's Postgres for its timeline history.
    AskLeaderBranch {
        /// Whom.
        from: FollowTarget,
    },
    /// Renew the lease now instead of at its next turn: the view shows something that only a renewal can confirm.
    RenewLease,
    /// Revoke the lease that my previous incarnation left behind: nothing of it runs any more.
    RevokeLease {
        /// The lease on the leader key.
        lease: LeaseId,
    },
    /// Let the lease be renewed until then although Postgres is dead: nobody else can lead, and it serves what it can.
    SuspendLivenessCheck {
        /// Soon: only a loop that is alive can keep it up.
        until: Moment,
    },
    /// Write `members/ME` under my lease.
    PublishMember(Box<MemberRecord>),
    /// Write `status`, if I still lead in `term`.
    PublishStatus {
        /// The term that guards the write.
        term: Term,
        /// The value.
        status: ClusterStatus,
    },
    /// Write `history`, if I still lead in `term`.
    PublishHistory {
        /// The term that guards the write.
        term: Term,
        /// The value.
        lines: Vec<HistoryLine>,
    },
    /// Write `sync`, or delete it, if I still lead in `term` and nobody changed it since.
    PublishSync {
        /// The term that guards the write.
        term: Term,
        /// The value; `None` deletes the key.
        record: Option<SyncRecord>,
        /// The revision that was read; zero: there was no key.
        mod_revision: i64,
    },
    /// Write `unfenced`, if nobody changed it since, or delete it where nothing is left in it.
    PublishUnfenced(UnfencedWrite),
    /// Set `synchronous_standby_names`; `None`: what the operator's parameters say.
    SetSyncNames(Option<String>),
    /// Keep clients out, or let them in again: all but the superuser and replication.
    SetClientLockout {
        /// Out.
        closed: bool,
    },
    /// Clear the key `failover`, if nobody changed it since.
    ClearFailover {
        /// The revision that was acted on.
        mod_revision: i64,
    },
    /// Write my system identifier to `initialize`, if I still lead in `term`: etcd was wiped.
    RestoreInitialize {
        /// The term that guards the write.
        term: Term,
        /// The value.
        system_id: u64,
    },
    /// Write the last known dynamic configuration to `config`, if I still lead in `term` and the key is missing.
    RestoreConfig {
        /// The term that guards the write.
        term: Term,
    },
    /// Write `generation`: the store went back in time, or a leader has confirmed what came of it.
    WriteGeneration(GenerationWrite),
    /// Point a running standby elsewhere by a reload.
    Follow(Option<FollowTarget>),
    /// Drop these slots of a running Postgres, unless somebody uses them, and then make physical ones.
    SetSlots {
        /// To be made.
        create: Vec<String>,
        /// To be dropped first.
        drop: Vec<String>,
    },
    /// Resume a WAL replay that a parameter change paused.
    ResumeReplay,
    /// Run CHECKPOINT after a promotion, beside everything else, so that rewinding from here is safe.
    CheckpointAfterPromotion {
        /// The term it was promoted in.
        term: Term,
    },
    /// Answer a request.
    Answer {
        /// Which.
        id: RequestId,
        /// With what.
        reply: Reply,
    },
    /// End the supervisor.
    Exit(ExitBecause),
}

/// A long action. The first three change the leader key and run in a lane of their own; the others use Postgres
/// and run one at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Job {
    /// Create the leader key under my lease, if there is none.
    TakeLeadership {
        /// Only while this is still so.
        by: TakeLeadershipPreconditions,
    },
    /// Move the leader key to another member's lease, in one transaction guarded by my term.
    HandOver {
        /// The term that guards it.
        term: Term,
        /// Who leads from then on.
        to: MemberName,
        /// The lease of that member's key.
        to_lease: LeaseId,
        /// The last status, published in the same transaction.
        status: ClusterStatus,
    },
    /// Delete the leader key, guarded by my term.
    ReleaseLeadership {
        /// The term that guards it.
        term: Term,
        /// The last status, published in the same transaction.
        status: Option<ClusterStatus>,
    },
    /// Write the leader key anew under the lease it hangs on, if that is still mine in `term`: a new term begins, and
    /// whatever was sent in the old one and is still on its way fails.
    ReclaimLeadership {
        /// The term that guards it.
        term: Term,
    },
    /// Win `initialize`, run initdb, make users, run `post_bootstrap`, write `initialize` and `config`.
    Bootstrap {
        /// Only if no member has registered since this revision.
        seen: i64,
    },
    /// Base backup from a running member, into an empty directory; an existing one is moved aside first.
    Clone {
        /// Whom from.
        from: FollowTarget,
    },
    /// Put back what an interrupted clone had set aside; where that is nothing, an empty directory is left.
    UndoClone,
    /// Start as a standby.
    StartStandby {
        /// Whom to follow; `None`: nobody yet.
        follow: Option<FollowTarget>,
        /// When to give up waiting.
        within: Duration,
    },
    /// Stop by a staircase that begins at `mode`.
    Stop {
        /// The first step.
        mode: StopMode,
        /// Time for the first step before the next is taken.
        within: Duration,
    },
    /// CHECKPOINT, so that a stop is short.
    Checkpoint,
    /// Make the running standby a primary, if I still lead in `term`.
    Promote {
        /// The term that allows it.
        term: Term,
        /// The newest timeline anybody is known to have begun: the new one is above it.
        above: Timeline,
    },
    /// Run crash recovery in single-user mode, so that the control file tells where WAL ends.
    CrashRecovery,
    /// Keep the diverged WAL aside and run pg_rewind.
    Rewind {
        /// Whom to rewind to.
        from: FollowTarget,
        /// The last common timeline and the first position that differs.
        fork: (Timeline, Lsn),
    },
}

/// By what the leader key may be taken. Where the watch is deaf, or this process was frozen, another may have led since
/// the others said how far they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeLeadershipPreconditions {
    /// The revision of the key `sync`; zero: there is none.
    pub sync: i64,
    /// The revision of the key `unfenced`; zero: there is none.
    pub unfenced: i64,
    /// The revision at which nobody was seen to lead, before the others were asked: nobody has published a position or
    /// claimed a timeline since.
    pub unlocked: i64,
}

impl Job {
    /// Its kind.
    pub fn kind(&self) -> JobKind {
        match self {
            Job::TakeLeadership { .. } => JobKind::TakeLeadership,
            Job::HandOver { .. } => JobKind::HandOver,
            Job::ReleaseLeadership { .. } => JobKind::ReleaseLeadership,
            Job::ReclaimLeadership { .. } => JobKind::ReclaimLeadership,
            Job::Bootstrap { .. } => JobKind::Bootstrap,
            Job::Clone { .. } => JobKind::Clone,
            Job::UndoClone => JobKind::UndoClone,
            Job::StartStandby { .. } => JobKind::StartStandby,
            Job::Stop { .. } => JobKind::Stop,
            Job::Checkpoint => JobKind::Checkpoint,
            Job::Promote { .. } => JobKind::Promote,
            Job::CrashRecovery => JobKind::CrashRecovery,
            Job::Rewind { .. } => JobKind::Rewind,
        }
    }
}

/// A long action without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is documented on its Job")]
pub enum JobKind {
    TakeLeadership,
    HandOver,
    ReleaseLeadership,
    ReclaimLeadership,
    Bootstrap,
    Clone,
    UndoClone,
    StartStandby,
    Stop,
    Checkpoint,
    Promote,
    CrashRecovery,
    Rewind,
    CheckpointAfterPromotion,
}

impl fmt::Display for JobKind {
    /// The name operators see, as in "… already in progress".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JobKind::TakeLeadership => "taking the leader key",
            JobKind::HandOver => "handing over the leader key",
            JobKind::ReleaseLeadership => "releasing the leader key",
            JobKind::ReclaimLeadership => "reclaiming the leader key",
            JobKind::Bootstrap => "bootstrap",
            JobKind::Clone => "creating replica",
            JobKind::UndoClone => "undoing a clone",
            JobKind::StartStandby => "starting",
            JobKind::Stop => "stopping",
            JobKind::Checkpoint => "checkpoint",
            JobKind::Promote => "promote",
            JobKind::CrashRecovery => "doing crash recovery in a single user mode",
            JobKind::Rewind => "running pg_rewind",
            JobKind::CheckpointAfterPromotion => "checkpoint after promotion",
        })
    }
}

/// Whom to stream or copy from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowTarget {
    /// Its name.
    pub name: MemberName,
    /// Its `conn_url`.
    pub conn_url: String,
    /// The slot to use there; `None` when slots are off.
    pub slot: Option<String>,
}

/// How to stop (PostgreSQL manual, "Shutting Down the Server"). SIGKILL is the last step of every staircase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopMode {
    /// Close all sessions, write a shutdown checkpoint, send it to the standbys.
    Fast,
    /// Drop everything: the next start runs crash recovery.
    Immediate,
}

/// Why the supervisor ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitBecause {
    /// It was asked to, and is done.
    Asked,
    /// The data directory belongs to another cluster.
    ForeignDataDirectory {
        /// Of the directory.
        mine: u64,
        /// Of the cluster.
        cluster: String,
    },
    /// A bootstrap failed; its directory was kept aside.
    BootstrapFailed {
        /// Why.
        why: String,
    },
}
