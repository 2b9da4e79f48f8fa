//! Ways to break the product on purpose, at the seam between it and the world: each has to be caught.

use clap::ValueEnum;

/// One way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mutation {
    /// The deadlines of the lease, for supervisor and guard, lie far behind its end.
    DeadlineTooLate,
    /// The leader key is taken although somebody has it.
    TakeFromAnybody,
    /// The guard is never armed, and a supervisor at its deadline does nothing.
    NoGuard,
    /// The kernel does nothing for a guard that is frozen.
    NoDeadManTimer,
    /// A keepalive counts from its answer instead of from its sending.
    CountFromAnswer,
    /// A keepalive counts without the read that confirms it.
    NoConfirmedRead,
    /// A lagging standby takes over whatever the limit.
    NoLagLimit,
    /// A hand-over does not wait for the candidate's proof.
    HandOverUnproved,
    /// The number of a timeline that was begun elsewhere is not passed over.
    ReuseTimelines,
    /// The lease that a supervisor goes on with is known only after its first renewal.
    ForgetFormerLease,
    /// A clone deletes what is there before it has something better.
    WipeBeforeClone,
    /// A lost view is never read again.
    NeverRelist,
    /// To every standby the key `sync` seems to vouch for itself.
    IgnoreSyncRecord,
    /// A promotion waits neither for the names nor for the key `sync`.
    PromoteUnprepared,
    /// A primary that was left running in pause does not keep anybody from being promoted.
    IgnoreUnfenced,
    /// An operator confirms that the others are down, and they run.
    ConfirmRunning,
    /// An answer counts whoever gave it.
    TrustAnyAnswer,
    /// The leader key moves to a lease of another TTL before the guard knows of the earlier deadline.
    TtlJump,
    /// As long as it cannot be told what runs, nothing seems to, and the guard is dismissed.
    DisarmOnDoubt,
    /// Standbys seem to hold everything as soon as they are connected.
    ConfirmTooEarly,
    /// A dynamic configuration that is faulty or gone puts the defaults in force.
    SettingsByDefault,
    /// A member without data does not see that there is a cluster that was led, and the transaction does not ask.
    ForgetCluster,
    /// A release carries no write, and what a full etcd refuses is not taken note of.
    GiveToNobody,
    /// A line of the log waits until somebody reads it.
    LogBlocks,
    /// Whatever a leader says of its history, it seems to be one's own.
    AttachUnchecked,
    /// A receiver that was told to end seems to be gone at once.
    ReceiverGoneAtOnce,
    /// What was seen of etcd's store is forgotten: one that went back in time is like any other.
    TrustRestoredStore,
    /// A supervisor that starts does not see that its predecessor may have promised to leave the leader.
    FormerPromiseForgotten,
    /// A standby says that it has left the leader as soon as it is told to.
    PromiseBeforeLeaving,
    /// Whoever suspects the leader seems to have promised.
    SuspicionPromises,
    /// A leader is replaced whatever the key `sync` has become since.
    DeposeOverOldSync,
    /// A leader is replaced although the attempt was withdrawn.
    DeposeWithdrawn,
    /// The pod says that it leads as soon as its PostgreSQL is promoted.
    LabelEarly,
    /// The pod goes on to say that it leads when its PostgreSQL is stopped.
    LabelLate,
    /// An order to disarm is carried out once more when the guard was armed again.
    DisarmOvertaken,
    /// The guard of a former supervisor is dismissed as soon as another is started.
    RelieveEarly,
    /// The driver drops the effect that stops PostgreSQL.
    StopDropped,
    /// The driver arms the guard after a promotion instead of before it.
    ArmAfterPromotion,
    /// The driver ignores the exit of PostgreSQL.
    ExitIgnored,
    /// The driver ignores the event that brings the leader's timeline history.
    HistoryIgnored,
    /// The driver delivers the outcome of a job again while the next job of its kind runs.
    OutcomeTwice,
    /// The driver ignores the guard's answers.
    GuardUnheard,
    /// The driver reports `synchronous_standby_names` as written without writing them.
    NamesNotWritten,
    /// The candidate of a switchover in pause does not know that it was asked for.
    CandidateForgets,
    /// A leader without etcd goes on if most members have promised.
    MostPromises,
    /// The members' promises count from their answers.
    PromisesFromAnswer,
    /// A promise to a leader without etcd is forgotten.
    PromisesForgotten,
    /// What the predecessor of a supervisor may have promised does not count.
    PredecessorForgotten,
    /// Whoever the key `failsafe` does not name takes the leader key all the same.
    UnlistedLeads,
    /// Whoever answers at a member's address promises for it.
    AnybodyPromises,
    /// The driver reports a job as cancelled and leaves its task running.
    CancelWithoutAbort,
    /// A leader whose PostgreSQL is down seems to have served in its term, on whatever timeline lies there.
    GoesOnAfterAnybody,
    /// The driver does not lock clients out of a primary that starts in place.
    NoLockoutInPlace,
    /// The driver reports the roles' passwords as set without setting them.
    RolesUnchanged,
    /// A standby that is refused goes on with one of its two passwords.
    OnePassword,
    /// A supervisor does not read which passwords the one before it had.
    FormerForgotten,
    /// The driver drops the creation of the supervisors' own role.
    OwnRoleDropped,
    /// The driver of the guard reports PostgreSQL as killed without killing it.
    GuardKillDropped,
}
