//! Everything that a decision can order. `agent::perform` is one match over [`Action`] and contains no decision of its
//! own.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    CloneMethods, ClusterStatus, Deposal, FailsafeMembers, FailsafePlan, GenerationWrite, HistoryLine,
    LeaderSlotsQuestion, LeaseId, LogicalSlotChanges, Lsn, MemberName, MemberRecord, Moment, RecruitWrite,
    Reply, RequestId, SlotChanges, SyncRecord, Term, Timeline, UnfencedWrite,
};

/// One order. All but [`Action::Start`] return at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// Begin a long action. Its end comes back as a [`super::Finished`]. One lane never runs two at a time.
    Start(Job),
    /// Cancel the running long action if that is possible. Its end is then [`super::Outcome::Cancelled`].
    CancelJob,
    /// Ask these members over REST, all at once, with one deadline.
    AskPeers {
        /// Names and `api_url`s.
        who: Vec<(MemberName, String)>,
    },
    /// Ask the leader's Postgres for its timeline history.
    AskLeaderBranch {
        /// The leader.
        from: FollowTarget,
    },
    /// Renew the lease now, ahead of its schedule: the view shows a change that only a renewal can confirm.
    RenewLease,
    /// Revoke the lease that the previous incarnation of this member left behind: none of its processes runs any more.
    RevokeLease {
        /// The lease on the leader key.
        lease: LeaseId,
    },
    /// Allow renewals of the lease until then although Postgres is dead: no other member can lead, and Postgres still
    /// serves part of its clients.
    SuspendLivenessCheck {
        /// A moment close to now: only a live loop can extend it.
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
    /// Write `sync`, or delete it, if I still lead in `term` and the key has not changed since it was read.
    PublishSync {
        /// The term that guards the write.
        term: Term,
        /// The value; `None` deletes the key.
        record: Option<SyncRecord>,
        /// The revision that was read; zero: there was no key.
        mod_revision: i64,
    },
    /// Write `unfenced` if the key has not changed since it was read. An empty value deletes the key.
    PublishUnfenced(UnfencedWrite),
    /// Set `synchronous_standby_names`; `None`: to the value in the operator's parameters.
    SetSyncNames(Option<String>),
    /// Start or end the client lockout: only superusers and replication connect while it lasts.
    SetClientLockout {
        /// Whether to lock clients out.
        closed: bool,
    },
    /// Write `failsafe`, or without members delete it, if I still lead in `term` and the key has not changed since it
    /// was read.
    PublishFailsafe {
        /// The term that guards the write.
        term: Term,
        /// The value.
        members: FailsafeMembers,
        /// The revision that was read; zero: there was no key.
        mod_revision: i64,
    },
    /// From now on, this is asked of the members while etcd does not answer.
    PlanFailsafe(FailsafePlan),
    /// Clear the key `failover` if it has not changed since it was read.
    ClearFailover {
        /// The revision of the key that this member acted on.
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
    /// Begin or end an attempt to replace the leader, in the key `recruit`.
    WriteRecruit(RecruitWrite),
    /// Write `generation`: the store went back in time, or a leader confirms the result.
    WriteGeneration(GenerationWrite),
    /// Point a running standby elsewhere by a reload.
    Follow(Option<FollowTarget>),
    /// Change the slots of a running Postgres.
    SetSlots(SlotChanges),
    /// Change its logical slots, beside all other work: that may take long.
    SetLogicalSlots(LogicalSlotChanges),
    /// Ask the leader's Postgres about its logical slots, and keep copies of them for the next start.
    AskLeaderSlots(LeaderSlotsQuestion),
    /// Resume a WAL replay that a parameter change paused.
    ResumeReplay,
    /// Run CHECKPOINT after a promotion, beside all other work, so that other members can safely rewind from this one.
    CheckpointAfterPromotion {
        /// The term it was promoted in.
        term: Term,
    },
    /// Answer a request.
    Answer {
        /// The request.
        id: RequestId,
        /// The answer.
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
        /// The conditions that must still hold.
        by: TakeLeadershipPreconditions,
    },
    /// Move the leader key to another member's lease, in one transaction guarded by my term.
    HandOver {
        /// The term that guards it.
        term: Term,
        /// The next leader.
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
    /// Write the leader key anew under its present lease, if that lease is still mine in `term`. A new term begins, and
    /// writes of the old term that are still in flight fail.
    ReclaimLeadership {
        /// The term that guards it.
        term: Term,
    },
    /// Win `initialize`, run initdb, make users, run `post_bootstrap`, write `initialize` and `config`.
    Bootstrap {
        /// Only if no member has registered since this revision.
        seen: i64,
    },
    /// As [`Job::Bootstrap`], for a standby cluster: copy its remote primary in the place of initdb.
    BootstrapStandby {
        /// Only if no member has registered since this revision.
        seen: i64,
        /// The remote primary; `None`: only methods that need no source are tried.
        from: Option<FollowTarget>,
        /// Which methods may be tried.
        methods: CloneMethods,
    },
    /// Make a replica in an empty directory: by a base backup, or by a script of the operator. An existing directory is
    /// moved aside first, unless the script starts from what is there.
    Clone {
        /// The member to copy from; `None`: nobody leads, and only methods that need no member are tried.
        from: Option<FollowTarget>,
        /// Which methods may be tried.
        methods: CloneMethods,
        /// The system identifier of the cluster, if etcd has it. What is made must have it.
        system_id: Option<u64>,
    },
    /// Restore the data that an interrupted clone had set aside. If there is none, the directory is empty afterwards.
    UndoClone,
    /// Start as a standby.
    StartStandby {
        /// The member to follow; `None`: none yet.
        follow: Option<FollowTarget>,
        /// When to give up waiting.
        within: Duration,
        /// The leader may reduce its minimums before: it is promoted next, and writes WAL for that now.
        lowers: bool,
    },
    /// Start my own PostgreSQL as the primary that it was, on its timeline, if I still lead in `term`.
    StartPrimary {
        /// The term that allows it.
        term: Term,
        /// When to give up waiting.
        within: Duration,
        /// The first start of a new cluster: this member has not led in `term` before.
        first: bool,
    },
    /// Stop in steps of growing force that begin at `mode`.
    Stop {
        /// The first step.
        mode: StopMode,
        /// Time for the first step before the next is taken.
        within: Duration,
    },
    /// Run CHECKPOINT, so that a stop is short.
    Checkpoint,
    /// Run the operator's script before a promotion, while I lead in `term`.
    PrePromote {
        /// The term that allows it.
        term: Term,
    },
    /// Make the running standby a primary, if I still lead in `term`.
    Promote {
        /// The term that allows it.
        term: Term,
        /// The newest timeline that any member is known to have begun: the new timeline has a higher number.
        above: Timeline,
    },
    /// Run crash recovery in single-user mode, so that the control file tells where WAL ends.
    CrashRecovery,
    /// Keep the diverged WAL aside and run pg_rewind.
    Rewind {
        /// The member to rewind to.
        from: FollowTarget,
        /// The last common timeline and the first position that differs.
        fork: (Timeline, Lsn),
    },
}

/// The conditions under which this member may take the leader key. They matter where the watch missed a change or this
/// process was frozen: another member may have led since the others reported their positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeLeadershipPreconditions {
    /// The revision of the key `sync`; zero: there is none.
    pub sync: i64,
    /// The revision of the key `unfenced`; zero: there is none.
    pub unfenced: i64,
    /// The revision of the key `failsafe`; zero: there is none.
    #[serde(default)]
    pub failsafe: i64,
    /// The revision at which the cluster had no leader, before the other members were asked. Since then no member has
    /// published a position or claimed a timeline.
    pub unlocked: i64,
    /// The leader that is replaced; `None`: the key is vacant, since `unlocked`.
    #[serde(default)]
    pub deposes: Option<Deposal>,
}

impl Job {
    /// Its kind.
    pub fn kind(&self) -> JobKind {
        match self {
            Job::TakeLeadership { .. } => JobKind::TakeLeadership,
            Job::HandOver { .. } => JobKind::HandOver,
            Job::ReleaseLeadership { .. } => JobKind::ReleaseLeadership,
            Job::ReclaimLeadership { .. } => JobKind::ReclaimLeadership,
            Job::Bootstrap { .. } | Job::BootstrapStandby { .. } => JobKind::Bootstrap,
            Job::Clone { .. } => JobKind::Clone,
            Job::UndoClone => JobKind::UndoClone,
            Job::StartStandby { .. } => JobKind::StartStandby,
            Job::StartPrimary { .. } => JobKind::StartPrimary,
            Job::Stop { .. } => JobKind::Stop,
            Job::Checkpoint => JobKind::Checkpoint,
            Job::PrePromote { .. } => JobKind::PrePromote,
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
    StartPrimary,
    Stop,
    Checkpoint,
    PrePromote,
    Promote,
    CrashRecovery,
    Rewind,
    CheckpointAfterPromotion,
}

impl JobKind {
    /// Whether the files in the data directory are others afterwards.
    pub fn replaces_data(self) -> bool {
        matches!(self, JobKind::Bootstrap | JobKind::Clone | JobKind::UndoClone | JobKind::Rewind)
    }
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
            JobKind::StartStandby | JobKind::StartPrimary => "starting",
            JobKind::Stop => "stopping",
            JobKind::Checkpoint => "checkpoint",
            JobKind::PrePromote => "running pre_promote",
            JobKind::Promote => "promote",
            JobKind::CrashRecovery => "doing crash recovery in a single user mode",
            JobKind::Rewind => "running pg_rewind",
            JobKind::CheckpointAfterPromotion => "checkpoint after promotion",
        })
    }
}

/// The member to stream or copy from.
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
    /// It was asked to end, and has finished.
    Asked,
    /// The data directory belongs to another cluster.
    ForeignDataDirectory {
        /// The system identifier of the directory.
        mine: u64,
        /// The system identifier of the cluster.
        cluster: String,
    },
    /// A bootstrap failed; its directory was set aside.
    BootstrapFailed {
        /// The reason.
        why: String,
    },
}
