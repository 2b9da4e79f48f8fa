//! The reasons for decisions, and the events that the next tick waits for.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    HandOverRefusal, HandOverStep, JobKind, MemberName, NoDataReason, PodEnd, RecruitReason,
    StandbyClusterReason, StoreReason, SyncReason, UnfencedReason, Unfit,
};

/// The sentence for the operator, as a type: log, REST, command line and tests use the same value. No reason is an
/// error; `thiserror` writes the `Display`, so that each sentence stands beside its variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is its own sentence")]
pub enum Reason {
    #[error("waiting for the first readings of etcd and PostgreSQL")]
    ClusterUnknown,
    #[error("{0} is in progress")]
    Busy(JobKind),
    #[error(
        "the data directory belongs to cluster {mine}, but this cluster is {cluster}: wrong volume or wrong scope"
    )]
    ForeignData { mine: u64, cluster: String },
    #[error("the data directory cannot be read (repair it, or run reinit): {0}")]
    DataUnreadable(String),
    #[error("paused: no automatic action before `matriarch resume`")]
    Paused,
    #[error("paused, and PostgreSQL here is not primary: releasing the leader key")]
    PausedWithoutPrimary,
    #[error("shutting down")]
    ShuttingDown,
    #[error("leading: the lease is mine and PostgreSQL is primary")]
    Leading,
    #[error("the leader key is mine: awaiting a confirming renewal")]
    Confirming,
    #[error("releasing the leader key: awaiting a confirming renewal")]
    GivingAway,
    #[error("waiting for a lease from etcd")]
    NoLeaseYet,
    #[error("promoting: the lease is mine and PostgreSQL is a standby")]
    Promoting,
    #[error("I have made the cluster, and nobody has led it yet: taking the leader key")]
    MadeCluster,
    #[error("I have made the cluster and lead it: starting its primary")]
    StartingFirstPrimary,
    /// A failover by an operator loses WAL of the former leader. etcd records it before the promotion.
    #[error("accepting data loss as requested: recording it in etcd first")]
    TakingLoss,
    /// The next step needs a write, and etcd refuses writes.
    #[error("etcd refuses writes, and a new leader needs one: waiting for etcd")]
    WritesRefused,
    #[error("restarting PostgreSQL as requested")]
    Restarting,
    #[error("reinitializing as requested")]
    Reinitializing,
    #[error("PostgreSQL is down while I lead: starting it in place")]
    CrashedLeader,
    #[error("PostgreSQL crashes repeatedly and another member can lead: releasing the key")]
    CrashBudgetSpent,
    #[error("the start of PostgreSQL takes too long and another member can lead")]
    StartTooSlow,
    #[error("the leader key is mine but there is no usable data here: releasing the key")]
    NoDataToLead,
    #[error("PostgreSQL runs but does not answer")]
    PostgresSilent,
    #[error("{0}")]
    Unfit(Unfit),
    #[error("{0}")]
    Sync(SyncReason),
    #[error("{0}")]
    Recruit(RecruitReason),
    #[error("PostgreSQL is starting")]
    PostgresStarting,
    #[error("the lease could not be renewed and is about to expire: no primary may run here")]
    LeaseExpiring,
    #[error("the leader key is attached to the lease of another supervisor: stopping PostgreSQL")]
    NotMyLease,
    #[error("{leader} leads and PostgreSQL here may accept writes: stopping it at once")]
    Deposed { leader: MemberName },
    #[error("the leader key disappeared while this primary runs: taking the key again")]
    KeyVanished,
    #[error(
        "a previous incarnation of this member holds the leader key, and it does not run: revoking its lease"
    )]
    FormerSelf,
    #[error("handing over: {0}")]
    HandingOver(HandOverStep),
    #[error("the hand-over does not happen: {0}")]
    HandOverRefused(HandOverRefusal),
    #[error("taking the leader key")]
    TakingLeadership,
    #[error("nobody leads and this member is the requested candidate")]
    AskedToLead,
    #[error("nobody leads and no member that answers is ahead of me")]
    HealthiestMember,
    #[error("asking the other members for their positions")]
    AskingMembers,
    #[error("this member released the leader key: others go first")]
    Yielding,
    #[error(
        "nobody leads, and this member has the tag nofailover: to let it lead, remove tags.nofailover from its \
         file and run `matriarch reload`"
    )]
    NoFailoverTag,
    #[error("the required watchdog cannot be used: repair it, or let another member lead")]
    WatchdogFailed,
    #[error("running pre_promote before the promotion")]
    PrePromote,
    #[error("pre_promote failed, so this member is not promoted: another member may lead")]
    PrePromoteFailed,
    /// No leader runs in a pod that is being deleted or is gone.
    #[error("{0}: another member has to lead")]
    PodEnds(PodEnd),
    #[error(
        "etcd knows no cluster: only a running primary may rebuild it, and this is a replica; `matriarch \
         failover --candidate {me} --rebuild` rebuilds it from the data here, and newer data on other members \
         is lost"
    )]
    ReplicaMustNotRebuild { me: MemberName },
    #[error(
        "nobody leads, and this member is {bytes} bytes behind the last leader: more than \
         maximum_lag_on_failover (`matriarch failover --candidate` promotes it anyway, and loses them)"
    )]
    TooFarBehind { bytes: u64 },
    #[error("the timeline here is older than the cluster's (`failover` takes it, with loss)")]
    OldTimeline,
    #[error("{0}")]
    Unfenced(UnfencedReason),
    #[error(
        "nobody leads by etcd, and {leader} leads on without it: this member has promised not to take its place"
    )]
    Promised { leader: MemberName },
    #[error(
        "nobody leads by etcd, and a leader leads on without it: {member} has promised not to take its place"
    )]
    PromisedElsewhere { member: MemberName },
    #[error(
        "this supervisor was just started, and its predecessor may have promised a leader that etcd does not answer \
         not to take its place: waiting for one ttl, or for the answers of all members"
    )]
    MayHavePromised,
    #[error(
        "nobody leads, and the key failsafe does not name this member, so a leader without etcd has not asked it: \
         waiting until another member leads, or all members that it names have answered that they are standbys. If \
         one of those never comes back, delete the key"
    )]
    NotInFailsafe,
    #[error("nobody leads, but {member} still runs as a primary")]
    PrimaryStillAlive { member: MemberName },
    #[error("nobody leads, and {member} is {bytes} bytes ahead")]
    MemberAhead { member: MemberName, bytes: u64 },
    #[error("nobody leads, and {member} has the same position and a higher failover_priority")]
    MemberHasPriority { member: MemberName },
    #[error("nobody leads, and {member} is the requested candidate")]
    CandidateGoesFirst { member: MemberName },
    #[error("nobody leads: starting PostgreSQL as a standby to compare positions")]
    StartingToCompete,
    #[error("{0}")]
    Store(StoreReason),
    #[error("{0}")]
    StandbyCluster(StandbyClusterReason),
    #[error("{0}")]
    NoData(NoDataReason),
    #[error("no data here: cloning from {from}")]
    Cloning { from: MemberName },
    #[error("waiting until {leader}, the leader, runs as a primary")]
    LeaderNotReady { leader: MemberName },
    #[error("following {leader}, the leader")]
    Following { leader: MemberName },
    #[error("{leader} leads, but PostgreSQL here does not stream")]
    NotStreaming { leader: MemberName },
    #[error(
        "WAL removed: {leader}, the leader, no longer has the WAL that this member needs next: reinit {me} (with \
         remove_data_directory_on_diverged_timelines set, the member is cloned automatically)"
    )]
    WalRemoved { leader: MemberName, me: MemberName },
    #[error("starting PostgreSQL to follow {leader}")]
    StartingToFollow { leader: MemberName },
    #[error("asking {leader} for its timeline history")]
    AskingHistory { leader: MemberName },
    #[error("{leader} leads, and following it requires its timeline history, which cannot be read: {why}")]
    HistoryUntold { leader: MemberName, why: String },
    #[error("replaying the local WAL before following {leader}")]
    ReadingOwnWal { leader: MemberName },
    #[error("WAL of the previous leader may still arrive: following {leader} afterwards")]
    FormerSource { leader: MemberName },
    #[error("the local WAL does not make the copy here consistent: stopping PostgreSQL, to follow {leader}")]
    InconsistentCopy { leader: MemberName },
    #[error("the primary here did not stop cleanly: crash recovery shows its last position")]
    CrashRecoveryFirst,
    #[error("timelines diverged: waiting for the checkpoint of {leader} before the rewind")]
    AwaitingCheckpoint { leader: MemberName },
    #[error("the timeline here diverged from that of {leader}: rewinding")]
    Diverged { leader: MemberName },
    #[error("the data here cannot follow {leader}: cloning again, as configured")]
    Recloning { leader: MemberName },
    #[error("cannot follow {leader}: {obstacle}")]
    CannotRejoin { leader: MemberName, obstacle: Obstacle },
}

/// An obstacle that keeps a member from rejoining behind a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Obstacle {
    /// Crash recovery fails.
    Recovery,
    /// PostgreSQL does not start as a standby.
    Start,
    /// pg_rewind fails.
    Rewind,
    /// The timelines diverged, and pg_rewind cannot be used.
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
    /// Whether this member does nothing until an operator acts.
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
                | Reason::NotInFailsafe
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

    /// The name of the rule: the variant, as in `HealthiestMember` or `Recruit.Deposes`.
    pub fn rule(&self) -> String {
        let text = format!("{self:?}");
        let names = text.split(|c: char| !c.is_alphanumeric() && c != '(').next().unwrap_or_default();
        names.trim_end_matches('(').replace('(', ".")
    }

    /// Whether this reason says nothing about the end of an earlier refusal.
    pub fn is_passing(&self) -> bool {
        matches!(self, Reason::AskingMembers | Reason::Busy(_) | Reason::StartingToCompete)
    }
}

/// The event that the next tick waits for, when it comes before the end of `loop_wait`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaitingOn {
    /// None: the tick at the end of `loop_wait`.
    NextLook,
    /// A renewal, or a change of the leader key.
    Lease,
    /// Answers of other members.
    Members,
    /// The leader to become ready.
    Leader,
    /// A change of the local Postgres.
    Postgres,
    /// Standbys that confirm, connect or disconnect.
    Standbys,
    /// The end of a long action.
    Job,
    /// The pause after a failure.
    Retry,
    /// A scheduled time.
    Schedule,
}
