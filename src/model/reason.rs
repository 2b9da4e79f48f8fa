//! The reasons for decisions, and the events that the next tick waits for.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    HandOverRefusal, HandOverStep, JobKind, MemberName, NoDataReason, PodEnd, StoreReason, SyncReason,
    UnfencedReason, Unfit,
};

/// The operator's sentence, as a type: log, REST, command line and tests use the same value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each variant is its own sentence, written out in Display")]
pub enum Reason {
    ClusterUnknown,
    Busy(JobKind),
    ForeignData {
        mine: u64,
        cluster: String,
    },
    DataUnreadable(String),
    Paused,
    PausedWithoutPrimary,
    ShuttingDown,
    Leading,
    Confirming,
    GivingAway,
    NoLeaseYet,
    Promoting,
    /// An operator's failover loses what the former leader had written; etcd is told before the promotion.
    TakingLoss,
    /// What comes next needs a write, and etcd takes none.
    WritesRefused,
    Restarting,
    Reinitializing,
    CrashedLeader,
    CrashBudgetSpent,
    StartTooSlow,
    NoDataToLead,
    PostgresSilent,
    Unfit(Unfit),
    Sync(SyncReason),
    PostgresStarting,
    LeaseExpiring,
    NotMyLease,
    Deposed {
        leader: MemberName,
    },
    KeyVanished,
    FormerSelf,
    HandingOver(HandOverStep),
    HandOverRefused(HandOverRefusal),
    TakingLeadership,
    AskedToLead,
    HealthiestMember,
    AskingMembers,
    Yielding,
    NoFailoverTag,
    WatchdogFailed,
    /// No leader runs in a pod that ends or is gone.
    PodEnds(PodEnd),
    ReplicaMustNotRebuild {
        me: MemberName,
    },
    TooFarBehind {
        bytes: u64,
    },
    OldTimeline,
    Unfenced(UnfencedReason),
    PrimaryStillAlive {
        member: MemberName,
    },
    MemberAhead {
        member: MemberName,
        bytes: u64,
    },
    MemberHasPriority {
        member: MemberName,
    },
    CandidateGoesFirst {
        member: MemberName,
    },
    StartingToCompete,
    Store(StoreReason),
    NoData(NoDataReason),
    Cloning {
        from: MemberName,
    },
    LeaderNotReady {
        leader: MemberName,
    },
    Following {
        leader: MemberName,
    },
    NotStreaming {
        leader: MemberName,
    },
    WalRemoved {
        leader: MemberName,
        me: MemberName,
    },
    StartingToFollow {
        leader: MemberName,
    },
    AskingHistory {
        leader: MemberName,
    },
    HistoryUntold {
        leader: MemberName,
        why: String,
    },
    ReadingOwnWal {
        leader: MemberName,
    },
    FormerSource {
        leader: MemberName,
    },
    InconsistentCopy {
        leader: MemberName,
    },
    CrashRecoveryFirst,
    AwaitingCheckpoint {
        leader: MemberName,
    },
    Diverged {
        leader: MemberName,
    },
    Recloning {
        leader: MemberName,
    },
    CannotRejoin {
        leader: MemberName,
        obstacle: Obstacle,
    },
}

/// What keeps a member from coming back behind a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Obstacle {
    /// Crash recovery fails.
    Recovery,
    /// PostgreSQL does not start as a standby.
    Start,
    /// pg_rewind fails.
    Rewind,
    /// Histories parted, and pg_rewind cannot be used.
    NoRewind,
    /// Cloning fails.
    Clone,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, setting) = match self {
            Obstacle::Recovery => ("crash recovery fails here (retrying)", "diverged_timelines"),
            Obstacle::Start => ("PostgreSQL does not start here (retrying)", "diverged_timelines"),
            Obstacle::Rewind => ("the timelines diverged, and pg_rewind fails (retrying)", "rewind_failure"),
            Obstacle::NoRewind => (
                "the timelines diverged, and pg_rewind cannot be used (use_pg_rewind, checksums or wal_log_hints are \
                 off)",
                "diverged_timelines",
            ),
            Obstacle::Clone => return write!(f, "cloning fails (retrying)"),
        };
        write!(
            f,
            "{what}; nothing is deleted unless remove_data_directory_on_{setting} is set or you run reinit"
        )
    }
}

impl Reason {
    /// Nothing happens here until somebody acts on it.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Reason::ForeignData { .. }
                | Reason::DataUnreadable(_)
                | Reason::NoFailoverTag
                | Reason::WatchdogFailed
                | Reason::PodEnds(_)
                | Reason::ReplicaMustNotRebuild { .. }
                | Reason::TooFarBehind { .. }
                | Reason::OldTimeline
                | Reason::Sync(SyncReason::NotVouchedFor { .. })
                | Reason::NoData(
                    NoDataReason::BootstrapElsewhere
                        | NoDataReason::DataElsewhere { .. }
                        | NoDataReason::MayNotBootstrap
                )
                | Reason::CannotRejoin { .. }
                | Reason::WalRemoved { .. }
        )
    }

    /// Says nothing of whether a refusal still stands.
    pub fn is_passing(&self) -> bool {
        matches!(self, Reason::AskingMembers | Reason::Busy(_) | Reason::StartingToCompete)
    }
}

impl fmt::Display for Reason {
    #[expect(clippy::too_many_lines, reason = "one line per sentence")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::ClusterUnknown => write!(f, "waiting for the first readings of etcd and PostgreSQL"),
            Reason::Busy(job) => write!(f, "{job} is in progress"),
            Reason::ForeignData { mine, cluster } => write!(
                f,
                "the data directory belongs to cluster {mine}, but this cluster is {cluster}: wrong volume or wrong scope"
            ),
            Reason::DataUnreadable(why) => {
                write!(f, "the data directory cannot be read (repair it, or run reinit): {why}")
            }
            Reason::Paused => write!(f, "paused: no automatic action before `matriarch resume`"),
            Reason::PausedWithoutPrimary => {
                write!(f, "paused, and PostgreSQL here is not primary: releasing the leader key")
            }
            Reason::ShuttingDown => write!(f, "shutting down"),
            Reason::Leading => write!(f, "leading: the lease is mine and PostgreSQL is primary"),
            Reason::Confirming => write!(f, "the leader key is mine: awaiting a confirming renewal"),
            Reason::GivingAway => write!(f, "releasing the leader key: awaiting a confirming renewal"),
            Reason::NoLeaseYet => write!(f, "waiting for a lease from etcd"),
            Reason::TakingLoss => write!(f, "accepting data loss as requested: recording it in etcd first"),
            Reason::WritesRefused => {
                write!(f, "etcd refuses writes, and a new leader needs one: waiting for etcd")
            }
            Reason::Promoting => write!(f, "promoting: the lease is mine and PostgreSQL is a standby"),
            Reason::Restarting => write!(f, "restarting PostgreSQL as requested"),
            Reason::Reinitializing => write!(f, "reinitializing as requested"),
            Reason::CrashedLeader => write!(f, "PostgreSQL is down while I lead: starting it in place"),
            Reason::CrashBudgetSpent => {
                write!(f, "PostgreSQL crashes repeatedly and another member can lead: releasing the key")
            }
            Reason::StartTooSlow => {
                write!(f, "PostgreSQL takes longer than primary_start_timeout and another member can lead")
            }
            Reason::NoDataToLead => {
                write!(f, "the leader key is mine but there is no usable data here: releasing the key")
            }
            Reason::PostgresSilent => write!(f, "PostgreSQL runs but does not answer"),
            Reason::Unfit(unfit) => unfit.fmt(f),
            Reason::Sync(reason) => reason.fmt(f),
            Reason::PostgresStarting => write!(f, "PostgreSQL is starting"),
            Reason::LeaseExpiring => {
                write!(f, "the lease could not be renewed and is about to expire: no primary may run here")
            }
            Reason::NotMyLease => write!(
                f,
                "the leader key is attached to the lease of another supervisor: stopping PostgreSQL"
            ),
            Reason::Deposed { leader } => {
                write!(f, "{leader} leads and PostgreSQL here may accept writes: stopping it at once")
            }
            Reason::KeyVanished => {
                write!(f, "the leader key disappeared while this primary runs: taking the key again")
            }
            Reason::FormerSelf => write!(
                f,
                "a previous incarnation of this member holds the leader key, and it does not run: revoking its lease"
            ),
            Reason::HandingOver(step) => write!(f, "handing over: {step}"),
            Reason::HandOverRefused(why) => write!(f, "the hand-over does not happen: {why}"),
            Reason::TakingLeadership => write!(f, "taking the leader key"),
            Reason::AskedToLead => write!(f, "nobody leads and this member is the requested candidate"),
            Reason::HealthiestMember => write!(f, "nobody leads and no member that answers is ahead of me"),
            Reason::AskingMembers => write!(f, "asking the other members for their positions"),
            Reason::Yielding => write!(f, "this member released the leader key: others go first"),
            Reason::WatchdogFailed => {
                write!(f, "the required watchdog cannot be used: repair it, or let another member lead")
            }
            Reason::PodEnds(end) => write!(f, "{end}: another member has to lead"),
            Reason::NoFailoverTag => write!(
                f,
                "nobody leads, and this member has the tag nofailover: to let it lead, remove tags.nofailover from its \
                 file and run `matriarch reload`"
            ),
            Reason::ReplicaMustNotRebuild { me } => write!(
                f,
                "etcd knows no cluster: only a running primary may rebuild it, and this is a replica; `matriarch \
                 failover --candidate {me} --rebuild` rebuilds it from the data here, and newer data on other members \
                 is lost"
            ),
            Reason::TooFarBehind { bytes } => write!(
                f,
                "nobody leads, and this member is {bytes} bytes behind the last leader: more than \
                 maximum_lag_on_failover (`matriarch failover --candidate` promotes it anyway, and loses them)"
            ),
            Reason::OldTimeline => {
                write!(f, "the timeline here is older than the cluster's (`failover` takes it, with loss)")
            }
            Reason::Unfenced(reason) => reason.fmt(f),
            Reason::PrimaryStillAlive { member } => {
                write!(f, "nobody leads, but {member} still runs as a primary")
            }
            Reason::MemberAhead { member, bytes } => {
                write!(f, "nobody leads, and {member} is {bytes} bytes ahead")
            }
            Reason::MemberHasPriority { member } => {
                write!(f, "nobody leads, and {member} has the same position and a higher failover_priority")
            }
            Reason::CandidateGoesFirst { member } => {
                write!(f, "nobody leads, and {member} is the requested candidate")
            }
            Reason::Store(reason) => reason.fmt(f),
            Reason::StartingToCompete => {
                write!(f, "nobody leads: starting PostgreSQL as a standby to compare positions")
            }
            Reason::NoData(reason) => reason.fmt(f),
            Reason::Cloning { from } => write!(f, "no data here: cloning from {from}"),
            Reason::LeaderNotReady { leader } => {
                write!(f, "waiting until {leader}, the leader, runs as a primary")
            }
            Reason::Following { leader } => write!(f, "following {leader}, the leader"),
            Reason::NotStreaming { leader } => {
                write!(f, "{leader} leads, but PostgreSQL here does not stream")
            }
            Reason::WalRemoved { leader, me } => f.write_str(&wal_removed(leader, me)),
            Reason::StartingToFollow { leader } => write!(f, "starting PostgreSQL to follow {leader}"),
            Reason::AskingHistory { leader } => write!(f, "asking {leader} for its timeline history"),
            Reason::HistoryUntold { leader, why } => write!(
                f,
                "{leader} leads, and following it requires its timeline history, which cannot be read: {why}"
            ),
            Reason::ReadingOwnWal { leader } => {
                write!(f, "replaying the local WAL before following {leader}")
            }
            Reason::FormerSource { leader } => {
                write!(f, "WAL of the previous leader may still arrive: following {leader} afterwards")
            }
            Reason::InconsistentCopy { leader } => write!(
                f,
                "the local WAL does not make the copy here consistent: stopping PostgreSQL, to follow {leader}"
            ),
            Reason::CrashRecoveryFirst => {
                write!(f, "the primary here did not stop cleanly: crash recovery shows its last position")
            }
            Reason::AwaitingCheckpoint { leader } => {
                write!(f, "timelines diverged: waiting for the checkpoint of {leader} before the rewind")
            }
            Reason::Diverged { leader } => {
                write!(f, "the timeline here diverged from that of {leader}: rewinding")
            }
            Reason::Recloning { leader } => {
                write!(f, "the data here cannot follow {leader}: cloning again, as configured")
            }
            Reason::CannotRejoin { leader, obstacle } => write!(f, "cannot follow {leader}: {obstacle}"),
        }
    }
}

fn wal_removed(leader: &MemberName, me: &MemberName) -> String {
    format!(
        "WAL removed: {leader}, the leader, no longer has the WAL that this member needs next: reinit {me} (with \
         remove_data_directory_on_diverged_timelines set, the member is cloned automatically)"
    )
}

/// What the next look waits for, when it comes before the safety net.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaitingOn {
    /// Nothing: the safety net of `loop_wait`.
    NextLook,
    /// A renewal, or a change of the leader key.
    Lease,
    /// Answers of other members.
    Members,
    /// The leader to become ready.
    Leader,
    /// The local Postgres.
    Postgres,
    /// Standbys to confirm, or to come or go.
    Standbys,
    /// A long action.
    Job,
    /// The pause after a failure.
    Retry,
    /// A time somebody set.
    Schedule,
}
