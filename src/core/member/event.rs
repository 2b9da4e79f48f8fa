//! The events that a member handles, and the effects that it returns.

use super::look::{AskedPostgres, LookId};
use crate::model::{
    Action, CloneProgress, DataDirectory, Finished, JobKind, JournalRecord, LeaderBranch, LeaderHearing,
    LeaderSlots, LeaseFacts, LivenessFacts, MemberName, Moment, Observation, OwnAccess, PeerAnswer, PodEnd,
    PodRole, PrimaryRoute, Process, Reason, Request, Settings, SyncOwner, TimelineHistory, View, WallTime,
    WriteFacts,
};

/// Every event that can wake a member.
#[derive(Clone, Debug)]
pub enum MemberEvent {
    /// The time in [`Decided::wake_at`] has come.
    Woke,
    /// One of the [`Levels`] has changed.
    LevelChanged,
    /// PostgreSQL is to be examined not earlier than this event.
    LookWanted,
    /// A question was answered. An answer from an earlier look does not count.
    Answered(LookId, LookAnswer),
    /// A long action ended.
    JobFinished(Finished),
    /// Another member answered, or failed to.
    PeerAnswered(MemberName, PeerAnswer),
    /// The leader reported its timeline history, or failed to.
    LeaderBranchTold(LeaderBranch),
    /// The leader answered about its logical slots.
    LeaderSlotsTold(LeaderSlots),
    /// Logical slots that cannot be moved any more: they have to be copied again.
    SlotsBroken(Vec<String>),
    /// The status could not be written: it has to be written again.
    StatusNotPublished,
    /// The source of the standby could not be set: it has to be compared and set again.
    NotFollowed,
    /// The rules that let clients in could not be written: clients are locked out as before.
    ClientsNotLetIn,
    /// An operator's request.
    Asked(Request),
}

/// The present state.
#[derive(Clone, Debug, Default)]
pub struct Levels {
    /// The settings in force with this view.
    pub settings: Settings,
    /// The cluster in etcd.
    pub view: Option<View>,
    /// The lease.
    pub lease: LeaseFacts,
    /// What is heard of the leader.
    pub hearing: LeaderHearing,
    /// The postmaster.
    pub process: Process,
    /// Whether PostgreSQL proves that it works.
    pub liveness: LivenessFacts,
    /// The source of the present value of `synchronous_standby_names`.
    pub sync_owner: SyncOwner,
    /// The client lockout is on.
    pub clients_locked_out: bool,
    /// How the supervisor connects to its PostgreSQL.
    pub access: OwnAccess,
    /// Whether etcd accepts writes.
    pub writes: WriteFacts,
    /// The progress of a running clone.
    pub clone_progress: Option<CloneProgress>,
    /// The supervisor was asked to end.
    pub shutting_down: bool,
    /// The watchdog is required and cannot be used.
    pub watchdog_failed: bool,
    /// The end of the pod.
    pub pod_end: Option<PodEnd>,
    /// What fails with the Kubernetes API.
    pub pod_trouble: Option<String>,
    /// Wall-clock time, for schedules only.
    pub wall: WallTime,
}

/// A question that the driver answers before a decision. At most one is open: a new question replaces it, and its late
/// answer does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Apply the newest configuration to PostgreSQL's parameters and passwords. Answer: [`LookAnswer::Prepared`].
    Prepare,
    /// Query PostgreSQL's state; with `pending` also the parameters that need a restart. Earlier statements have ended
    /// by then. Answer: [`LookAnswer::PostgresAnswered`].
    AskPostgres {
        /// Whether to query also what is less urgent.
        pending: bool,
    },
    /// Read the control file and the newest history file. Answer: [`LookAnswer::DataDirectoryRead`].
    ReadDataDirectory,
}

/// The answer to a [`Question`].
#[derive(Clone, Debug)]
pub enum LookAnswer {
    /// To [`Question::Prepare`].
    Prepared {
        /// PostgreSQL's parameters have changed.
        changed: bool,
    },
    /// To [`Question::AskPostgres`].
    PostgresAnswered(Box<AskedPostgres>),
    /// To [`Question::ReadDataDirectory`]; `None`: it could not be read in time.
    DataDirectoryRead(Option<(DataDirectory, TimelineHistory)>),
}

/// A decision for the driver: it performs the effects in order, publishes, then waits.
#[derive(Clone, Debug)]
pub struct Decided {
    /// The effects.
    pub effects: Vec<MemberEffect>,
    /// The observation behind the decision, for publication.
    pub seen: Observation,
    /// The latest time at which the member has to be woken.
    pub wake_at: Moment,
}

/// An effect for the driver.
#[derive(Clone, Debug)]
pub enum MemberEffect {
    /// Report to operators.
    Say(Notice),
    /// Write the recorded state of etcd's store beside the data directory, if it has changed.
    KeepStore,
    /// Keep a record of the journal, beside all other work: in etcd and beside the data directory. It may be lost.
    KeepRecord(Box<JournalRecord>),
    /// Change the Service of the primary.
    Route(PrimaryRoute),
    /// Label the pod; `None`: leave its label.
    Label(Option<PodRole>),
    /// Keep the guard armed with each renewal.
    Fence,
    /// Disarm the guard: PostgreSQL is no primary.
    Unfence,
    /// Perform the action.
    Act(Action),
}

/// A report to operators.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// The reason of the decision has changed.
    Decided(Reason),
    /// Replication slots that no member uses will be dropped.
    IdleSlots(Vec<String>),
    /// Logical slots here that can be used after a failover from now on.
    SafeSlots(Vec<String>),
    /// Permanent logical slots that are missing at a promotion, or whose readers may fail: the catalogs may lack what
    /// they need.
    UnsafeSlots(Vec<String>),
    /// Commits whose wait for a standby was cancelled.
    SyncWaitsCancelled {
        /// Since the last decision.
        more: u64,
        /// Since the start of this supervisor.
        total: u64,
    },
    /// A long action was to start while another of its lane runs: a fault of the decision.
    TwoJobs {
        /// The action to start.
        asked: JobKind,
        /// The running one.
        runs: JobKind,
    },
}
