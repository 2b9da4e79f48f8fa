//! A long action as a state machine: [`Machine::next`] takes the answer to the last step and returns the next step.
//!
//! The driver does one step at a time. A driver that is frozen, killed or cancelled stops between two steps or within
//! one; later steps are not done then.

mod aside;
mod bootstrap;
mod leader_key;
mod promotion;
mod start_primary;
mod start_standby;
mod stop;

use std::collections::VecDeque;
use std::time::Duration;

use self::aside::SingleWrite;
use self::bootstrap::BootstrapJob;
use self::leader_key::LeaderKeyWrite;
use self::promotion::Promotion;
use self::start_primary::StartPrimary;
use self::start_standby::StartStandby;
use self::stop::StopJob;
use super::store::{Cas, Keys, StoredKey, Txn, WriteError};
use crate::model::{
    Action, CloneMethods, FollowTarget, Job, LeaseFacts, LeaseId, Lsn, MemberName, Moment, Outcome,
    SettingsRole, StopMode, Term, Timeline,
};

/// A checkpoint of a large, busy primary takes at most this long; a hand-over gives up sooner.
const CHECKPOINT_WITHIN: Duration = Duration::from_secs(3600);

/// The driver's next step.
#[derive(Clone, Debug, PartialEq)]
pub enum JobStep {
    /// Read this key, linearizable. Answer: [`JobAnswer::Key`].
    Read(String),
    /// Commit this transaction. Answer: [`JobAnswer::Written`].
    Commit(Txn),
    /// Renew the lease now: only a renewal shows the present leader.
    RenewLease,
    /// Read the whole cluster anew: the watch's view is wrong.
    ReadCluster,
    /// Remove the label of the primary from this pod, and wait for that.
    Unlabel,
    /// Wait until no Service sends the primary's clients here.
    Unroute,
    /// Begin to remove the label of the primary from all other pods.
    BeginStrip(Term),
    /// Wait until the other pods have lost it, or the API server's deadline has passed.
    AwaitStripped,
    /// Wait.
    Pause(Duration),
    /// Run a script of the operator, if it is configured.
    Script(OperatorScript),
    /// Change PostgreSQL or its data directory.
    Postgres(PostgresStep),
    /// Promote PostgreSQL.
    Promote(PromotionStep),
    /// Start PostgreSQL as a primary.
    StartPrimary(PrimaryStartStep),
}

/// A script of the operator that runs beside PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorScript {
    /// `pre_promote`. It ends with the lease of this term. Its failure is that of the step.
    PrePromote(Term),
    /// `before_stop`, if PostgreSQL runs. It ends with the lease, if this member leads. Its result does not count.
    BeforeStop {
        /// The limit.
        within: Duration,
    },
}

/// A step of PostgreSQL or of its data directory.
#[derive(Clone, Debug, PartialEq)]
pub enum PostgresStep {
    /// initdb, users, `post_bootstrap`. Answer: [`JobAnswer::SystemId`].
    Initdb,
    /// Copy the remote primary of a standby cluster. Answer: [`JobAnswer::SystemId`].
    CopyRemote {
        /// The remote primary.
        from: Option<FollowTarget>,
        /// Which methods may be tried.
        methods: CloneMethods,
    },
    /// Set the data directory of initdb aside: it belongs to no cluster.
    SetAside,
    /// Make a replica.
    Clone {
        /// The member to copy from.
        from: Option<FollowTarget>,
        /// Which methods may be tried.
        methods: CloneMethods,
        /// The system identifier that the data must have.
        system_id: Option<u64>,
    },
    /// Restore the data that an interrupted clone had moved aside.
    UndoClone,
    /// Reduce the parameters that a standby must not have lower than its primary.
    LowerMinimums,
    /// Start as a standby.
    Start {
        /// The member to follow.
        follow: Option<FollowTarget>,
        /// The limit for it to become ready.
        within: Duration,
        /// The role whose settings its files get; `None`: those that they had.
        role: Option<SettingsRole>,
    },
    /// Stop.
    Stop {
        /// The first mode.
        mode: StopMode,
        /// How long before the next, harder mode is used.
        within: Duration,
    },
    /// CHECKPOINT.
    Checkpoint {
        /// The limit.
        within: Duration,
    },
    /// Crash recovery in single-user mode.
    CrashRecovery,
    /// Set the diverged WAL aside and run pg_rewind.
    Rewind {
        /// The source.
        from: FollowTarget,
        /// The last common timeline and the first position that differs.
        fork: (Timeline, Lsn),
    },
}

/// A step of a promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromotionStep {
    /// Wait until a promotion can begin.
    AwaitPromotable,
    /// Make PostgreSQL choose a timeline above this one.
    ReserveTimelines(Timeline),
    /// Connect, and resume a paused replay. Answer: [`JobAnswer::AlreadyPrimary`] if PostgreSQL is a primary already.
    Prepare,
    /// Arm the guard until the end of the lease, and wait for its acknowledgement.
    Arm,
    /// Write PostgreSQL's file `promote`. It is removed again when the machine ends, or is cancelled, before PostgreSQL
    /// has read it.
    WriteTrigger,
    /// Signal the postmaster to check for the file.
    Signal,
    /// Wait until PostgreSQL accepts writes.
    AwaitPrimary,
}

/// A step of the start of a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrimaryStartStep {
    /// Write the files of a primary, and start a process that waits before it becomes the postmaster. It ends when the
    /// machine ends, is cancelled or dies before it was released.
    Hold,
    /// Let the process become the postmaster.
    Release,
    /// Wait until it accepts connections, or for this long.
    AwaitReady(Duration),
}

/// The result of the step before.
#[derive(Clone, Debug, PartialEq)]
pub enum JobAnswer {
    /// There was no step: the machine begins.
    Begin,
    /// Done.
    Done,
    /// It failed, for this reason.
    Failed(String),
    /// PostgreSQL is a primary already.
    AlreadyPrimary,
    /// The present value of the key, or why it could not be read.
    Key(Result<Option<StoredKey>, WriteError>),
    /// The result of the transaction.
    Written(Result<Cas, WriteError>),
    /// The system identifier of the new cluster.
    SystemId(u64),
}

/// The machine's next output.
#[derive(Clone, Debug, PartialEq)]
pub enum JobNext {
    /// A step.
    Do(JobStep),
    /// The end.
    End(Outcome),
}

/// The present state, for each step.
#[derive(Clone, Copy, Debug)]
pub struct Now<'a> {
    /// The lease.
    pub lease: &'a LeaseFacts,
    /// The time of this member's clock.
    pub at: Moment,
}

/// The member that acts, and its cluster.
#[derive(Clone, Debug)]
pub struct Actor {
    /// This member.
    pub name: MemberName,
    /// The cluster's keys.
    pub keys: Keys,
}

/// One long action under way.
#[derive(Clone, Debug)]
pub struct Machine {
    actor: Actor,
    kind: JobMachine,
}

#[derive(Clone, Debug)]
enum JobMachine {
    LeaderKey(LeaderKeyWrite),
    Bootstrap(BootstrapJob),
    Promotion(Promotion),
    Aside(SingleWrite),
    StartStandby(StartStandby),
    StartPrimary(StartPrimary),
    Stop(StopJob),
    Sequence(VecDeque<JobStep>),
}

impl JobMachine {
    fn only(step: PostgresStep) -> JobMachine {
        JobMachine::Sequence([JobStep::Postgres(step)].into())
    }
}

impl Machine {
    /// For this job. `first_config`: the value of a new cluster's key `config`.
    pub fn of(actor: Actor, job: Job, first_config: impl FnOnce() -> String) -> Machine {
        let kind = match job {
            Job::TakeLeadership { .. }
            | Job::HandOver { .. }
            | Job::ReleaseLeadership { .. }
            | Job::ReclaimLeadership { .. } => JobMachine::LeaderKey(LeaderKeyWrite::of(job)),
            Job::Bootstrap { seen } => {
                JobMachine::Bootstrap(BootstrapJob::of(seen, PostgresStep::Initdb, first_config()))
            }
            Job::BootstrapStandby { seen, from, methods } => {
                let make = PostgresStep::CopyRemote { from, methods };
                JobMachine::Bootstrap(BootstrapJob::of(seen, make, first_config()))
            }
            Job::PrePromote { term } => {
                JobMachine::Sequence([JobStep::Script(OperatorScript::PrePromote(term))].into())
            }
            Job::Promote { term, above } => JobMachine::Promotion(Promotion::of(term, above)),
            Job::Clone { from, methods, system_id } => {
                JobMachine::only(PostgresStep::Clone { from, methods, system_id })
            }
            Job::UndoClone => JobMachine::only(PostgresStep::UndoClone),
            Job::StartStandby { follow, within, lowers } => {
                JobMachine::StartStandby(StartStandby::of(follow, within, lowers))
            }
            Job::StartPrimary { term, within, first } => {
                JobMachine::StartPrimary(StartPrimary::of(term, within, first))
            }
            Job::Stop { mode, within } => JobMachine::Stop(StopJob::of(mode, within)),
            Job::Checkpoint => JobMachine::only(PostgresStep::Checkpoint { within: CHECKPOINT_WITHIN }),
            Job::CrashRecovery => JobMachine::only(PostgresStep::CrashRecovery),
            Job::Rewind { from, fork } => JobMachine::only(PostgresStep::Rewind { from, fork }),
        };
        Machine { actor, kind }
    }

    /// For this action, if it is a write to etcd that is done beside the jobs. Without a lease: only if the write needs
    /// none. `config`: the text for a missing key `config`.
    pub fn aside(
        actor: Actor,
        action: &Action,
        lease: Option<LeaseId>,
        config: impl FnOnce() -> String,
    ) -> Option<Machine> {
        let aside = SingleWrite::of(&actor.keys, &actor.name, action, lease, config)?;
        Some(Machine { actor, kind: JobMachine::Aside(aside) })
    }

    /// The next output, given the result of the step before.
    pub fn next(&mut self, answer: JobAnswer, now: Now<'_>) -> JobNext {
        match &mut self.kind {
            JobMachine::LeaderKey(write) => write.next(&self.actor, answer, now),
            JobMachine::Bootstrap(bootstrap) => bootstrap.next(&self.actor, answer, now),
            JobMachine::Promotion(promotion) => promotion.next(&self.actor, answer, now),
            JobMachine::Aside(aside) => aside.next(&self.actor, answer),
            JobMachine::StartStandby(start) => start.next(answer, now),
            JobMachine::StartPrimary(start) => start.next(answer, now),
            JobMachine::Stop(stop) => stop.next(answer, now),
            JobMachine::Sequence(steps) => sequence(steps, answer),
        }
    }
}

/// The steps in order, up to the first that fails.
fn sequence(steps: &mut VecDeque<JobStep>, answer: JobAnswer) -> JobNext {
    match (answer, steps.pop_front()) {
        (JobAnswer::Failed(why), _) => JobNext::End(Outcome::Failed(why)),
        (_, Some(step)) => JobNext::Do(step),
        (_, None) => JobNext::End(Outcome::Done),
    }
}

/// The outcome of a transaction.
fn outcome(written: Result<Cas, WriteError>) -> Outcome {
    match written {
        Ok(Cas::Done(_)) => Outcome::Done,
        Ok(Cas::Lost) => Outcome::Lost,
        Err(WriteError::LeaseNotFound) => Outcome::LeaseGone,
        Err(WriteError::NoSpace(why)) => Outcome::Refused(why),
        Err(WriteError::Unknown(why)) => Outcome::Unknown(why),
    }
}

fn failed(why: &str) -> JobNext {
    JobNext::End(Outcome::Failed(why.to_owned()))
}

/// An answer to another step than the requested one: a fault of the driver.
fn out_of_turn(answer: &JobAnswer) -> JobNext {
    failed(&format!("an answer out of turn: {answer:?}"))
}

#[cfg(test)]
mod tests;
