//! The events that a member handles, and the effects that it returns.

use super::look::{AskedPostgres, LookId};
use crate::model::{
    Action, CloneProgress, DataDirectory, Finished, JobKind, LeaderBranch, LeaseFacts, LivenessFacts,
    MemberName, Moment, Observation, OwnAccess, PeerAnswer, PodEnd, PodRole, PrimaryRoute, Process, Reason,
    Request, Settings, SyncOwner, TimelineHistory, View, WallTime, WriteFacts,
};

/// Everything that can wake a member.
#[derive(Clone, Debug)]
pub enum MemberEvent {
    /// The time that [`Decided::wake_at`] named has come.
    Woke,
    /// One of [`Levels`] is another.
    LevelChanged,
    /// A look into PostgreSQL that is not older than this event is wanted.
    LookWanted,
    /// A question was answered. The answer to a question of another look than the present one does not count.
    Answered(LookId, LookAnswer),
    /// A long action ended.
    JobFinished(Finished),
    /// Another member answered, or failed to.
    PeerAnswered(MemberName, PeerAnswer),
    /// The leader gave its timeline history, or failed to.
    LeaderBranchTold(LeaderBranch),
    /// The status could not be written: it has to be written again.
    StatusNotPublished,
    /// The source of the standby could not be written: it has to be compared and written again.
    NotFollowed,
    /// The rules that let clients in could not be written: clients are locked out as before.
    ClientsNotLetIn,
    /// An operator asks for something.
    Asked(Request),
}

/// What is so at this moment.
#[derive(Clone, Debug)]
pub struct Levels {
    /// The settings in force with this view.
    pub settings: Settings,
    /// The cluster in etcd.
    pub view: Option<View>,
    /// The lease.
    pub lease: LeaseFacts,
    /// The postmaster.
    pub process: Process,
    /// Whether PostgreSQL proves that it works.
    pub liveness: LivenessFacts,
    /// Who says what `synchronous_standby_names` is.
    pub sync_owner: SyncOwner,
    /// Clients are locked out.
    pub clients_locked_out: bool,
    /// How the supervisor gets into its PostgreSQL.
    pub access: OwnAccess,
    /// What etcd does with writes.
    pub writes: WriteFacts,
    /// How far a running clone is.
    pub clone_progress: Option<CloneProgress>,
    /// The supervisor was asked to end.
    pub shutting_down: bool,
    /// The watchdog is required and cannot be used.
    pub watchdog_failed: bool,
    /// What has become of the pod.
    pub pod_end: Option<PodEnd>,
    /// What does not work with the Kubernetes API.
    pub pod_trouble: Option<String>,
    /// For schedules only.
    pub wall: WallTime,
}

/// What a driver answers before there is a decision. At most one question is open: a new one replaces the one before,
/// whose answer nobody waits for any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Bring PostgreSQL's parameters and passwords in line with the newest configuration. Answer:
    /// [`LookAnswer::Prepared`].
    Prepare,
    /// Ask PostgreSQL; with `pending` also for what needs a restart. Statements that were decided before are over by
    /// then. Answer: [`LookAnswer::PostgresAnswered`].
    AskPostgres {
        /// Also what can wait.
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
        /// PostgreSQL has other parameters than before.
        changed: bool,
    },
    /// To [`Question::AskPostgres`].
    PostgresAnswered(Box<AskedPostgres>),
    /// To [`Question::ReadDataDirectory`]; `None`: it could not be read in time.
    DataDirectoryRead(Option<(DataDirectory, TimelineHistory)>),
}

/// A decision for its driver: the effects in their order, then what is published, then the wait.
#[derive(Clone, Debug)]
pub struct Decided {
    /// To be done.
    pub effects: Vec<MemberEffect>,
    /// What the decision rested on, to be published.
    pub seen: Observation,
    /// The member wants to be woken then at the latest.
    pub wake_at: Moment,
}

/// What a driver does.
#[derive(Clone, Debug)]
pub enum MemberEffect {
    /// Tell operators.
    Say(Notice),
    /// Write what was seen of etcd's store beside the data directory, where it has changed.
    KeepStore,
    /// Point the Service of the primary there.
    Route(PrimaryRoute),
    /// Label the pod; `None`: leave the label.
    Label(Option<PodRole>),
    /// Keep the guard armed with each renewal.
    Fence,
    /// Disarm the guard: PostgreSQL is no primary.
    Unfence,
    /// Do what was decided.
    Act(Action),
}

/// What operators are told.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// The decision has another reason than the one before.
    Decided(Reason),
    /// Replication slots that no member uses will be dropped.
    IdleSlots(Vec<String>),
    /// Commits whose wait for a standby was cancelled.
    SyncWaitsCancelled {
        /// Since the last decision.
        more: u64,
        /// Since this supervisor began.
        total: u64,
    },
    /// A long action was asked for while another of its lane runs: a fault of ours.
    TwoJobs {
        /// Asked for.
        asked: JobKind,
        /// Under way.
        runs: JobKind,
    },
}
