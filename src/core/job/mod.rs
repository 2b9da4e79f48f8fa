//! A long action as a machine: [`Machine::next`] takes the answer to the step before and gives the next step.
//!
//! The driver does one step at a time. A driver that is frozen, killed or cancelled stops between two steps or within
//! one; no later step is done then.

mod aside;
mod bootstrap;
mod leader_key;
mod promotion;
mod start_standby;

use std::collections::VecDeque;
use std::time::Duration;

use self::aside::Aside;
use self::bootstrap::Bootstrap;
use self::leader_key::LeaderKeyWrite;
use self::promotion::Promotion;
use self::start_standby::StartStandby;
use super::store::{Cas, Keys, StoredKey, Txn, WriteError};
use crate::model::{
    Action, FollowTarget, Job, LeaseFacts, LeaseId, Lsn, MemberName, Moment, Outcome, StopMode, Term,
    Timeline,
};

/// A checkpoint of a large, busy primary takes this long at most; a hand-over gives up sooner.
const CHECKPOINT_WITHIN: Duration = Duration::from_secs(3600);

/// One thing that the driver does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Read this key, linearizable. Answer: [`Answer::Key`].
    Read(String),
    /// Commit this transaction. Answer: [`Answer::Written`].
    Commit(Txn),
    /// Renew the lease now: only a renewal shows who leads since.
    RenewLease,
    /// Read the whole cluster anew: what the watch showed is not so.
    ReadCluster,
    /// Take the label of the primary off this pod, and wait for it.
    Unlabel,
    /// Wait until no Service sends the primary's clients here.
    Unroute,
    /// Begin to take the label of the primary off all other pods.
    BeginStrip(Term),
    /// Wait until the other pods are stripped, or the API server's deadline has passed.
    AwaitStripped,
    /// Wait.
    Pause(Duration),
    /// Change PostgreSQL or its data directory.
    Postgres(PostgresStep),
    /// Promote PostgreSQL.
    Promote(PromotionStep),
}

/// A step of PostgreSQL or of its data directory.
#[derive(Clone, Debug, PartialEq)]
pub enum PostgresStep {
    /// initdb, users, `post_bootstrap`. Answer: [`Answer::SystemId`].
    Initdb,
    /// Set the data directory that initdb made aside: it belongs to no cluster.
    SetAside,
    /// Copy this member's data directory.
    Clone(FollowTarget),
    /// Lower the parameters that a standby may not have lower than its primary.
    LowerMinimums,
    /// Start as a standby.
    Start {
        /// Whom to follow.
        follow: Option<FollowTarget>,
        /// When to give up waiting for it to be ready.
        within: Duration,
    },
    /// Stop.
    Stop {
        /// The first mode.
        mode: StopMode,
        /// When the next, harder mode is taken.
        within: Duration,
    },
    /// CHECKPOINT.
    Checkpoint {
        /// At most.
        within: Duration,
    },
    /// Crash recovery in single-user mode.
    CrashRecovery,
    /// Keep the diverged WAL aside and run pg_rewind.
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
    /// Connect, and resume a paused replay. Answer: [`Answer::AlreadyPrimary`] where there is nothing to promote.
    Prepare,
    /// Have the guard armed until the end of the lease, and wait for its acknowledgement.
    Arm,
    /// Write PostgreSQL's file `promote`. It is removed again when the machine ends, or is cancelled, before PostgreSQL
    /// has taken it.
    WriteTrigger,
    /// Signal the postmaster to look for the file.
    Signal,
    /// Wait until PostgreSQL accepts writes.
    AwaitPrimary,
}

/// What came of the step before.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// There was none: the machine begins.
    Begin,
    /// Done.
    Done,
    /// It failed, for this reason.
    Failed(String),
    /// PostgreSQL is a primary already.
    AlreadyPrimary,
    /// The key as it is now, or why it could not be read.
    Key(Result<Option<StoredKey>, WriteError>),
    /// How the transaction ended.
    Written(Result<Cas, WriteError>),
    /// The system identifier of the new cluster.
    SystemId(u64),
}

/// What the machine does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// This.
    Do(Step),
    /// Nothing more.
    End(Outcome),
}

/// What is true at this moment, for each step.
#[derive(Clone, Copy, Debug)]
pub struct Now<'a> {
    /// The lease.
    pub lease: &'a LeaseFacts,
    /// By this member's clock.
    pub at: Moment,
}

/// Who acts, and where.
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
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    LeaderKey(LeaderKeyWrite),
    Bootstrap(Bootstrap),
    Promotion(Promotion),
    Aside(Aside),
    StartStandby(StartStandby),
    Sequence(VecDeque<Step>),
}

impl Kind {
    fn only(step: PostgresStep) -> Kind {
        Kind::Sequence([Step::Postgres(step)].into())
    }
}

impl Machine {
    /// For this job. `first_config`: what a new cluster's key `config` holds.
    pub fn of(actor: Actor, job: Job, first_config: impl FnOnce() -> String) -> Machine {
        let kind = match job {
            Job::TakeLeadership { .. }
            | Job::HandOver { .. }
            | Job::ReleaseLeadership { .. }
            | Job::ReclaimLeadership { .. } => Kind::LeaderKey(LeaderKeyWrite::of(job)),
            Job::Bootstrap { seen } => Kind::Bootstrap(Bootstrap::of(seen, first_config())),
            Job::Promote { term, above } => Kind::Promotion(Promotion::of(term, above)),
            Job::Clone { from } => Kind::only(PostgresStep::Clone(from)),
            Job::StartStandby { follow, within } => Kind::StartStandby(StartStandby::of(follow, within)),
            Job::Stop { mode, within } => {
                let planned = (mode == StopMode::Fast).then_some(Step::Unlabel);
                let stop = Step::Postgres(PostgresStep::Stop { mode, within });
                Kind::Sequence(planned.into_iter().chain([stop]).collect())
            }
            Job::Checkpoint => Kind::only(PostgresStep::Checkpoint { within: CHECKPOINT_WITHIN }),
            Job::CrashRecovery => Kind::only(PostgresStep::CrashRecovery),
            Job::Rewind { from, fork } => Kind::only(PostgresStep::Rewind { from, fork }),
        };
        Machine { actor, kind }
    }

    /// For this action, where it is a write to etcd that is done beside the jobs; without a lease only what needs none.
    /// `config` is the text that the key `config` is restored with.
    pub fn aside(
        actor: Actor,
        action: &Action,
        lease: Option<LeaseId>,
        config: impl FnOnce() -> String,
    ) -> Option<Machine> {
        let aside = Aside::of(&actor.keys, action, lease, config)?;
        Some(Machine { actor, kind: Kind::Aside(aside) })
    }

    /// What comes next, given what came of the step before.
    pub fn next(&mut self, answer: Answer, now: Now<'_>) -> Next {
        match &mut self.kind {
            Kind::LeaderKey(write) => write.next(&self.actor, answer, now),
            Kind::Bootstrap(bootstrap) => bootstrap.next(&self.actor, answer, now),
            Kind::Promotion(promotion) => promotion.next(&self.actor, answer, now),
            Kind::Aside(aside) => aside.next(&self.actor, answer),
            Kind::StartStandby(start) => start.next(answer, now),
            Kind::Sequence(steps) => sequence(steps, answer),
        }
    }
}

/// The steps in their order; the first that fails is the last.
fn sequence(steps: &mut VecDeque<Step>, answer: Answer) -> Next {
    match (answer, steps.pop_front()) {
        (Answer::Failed(why), _) => Next::End(Outcome::Failed(why)),
        (_, Some(step)) => Next::Do(step),
        (_, None) => Next::End(Outcome::Done),
    }
}

/// What became of a transaction.
fn outcome(written: Result<Cas, WriteError>) -> Outcome {
    match written {
        Ok(Cas::Done(_)) => Outcome::Done,
        Ok(Cas::Lost) => Outcome::Lost,
        Err(WriteError::LeaseNotFound) => Outcome::LeaseGone,
        Err(WriteError::NoSpace(why)) => Outcome::Refused(why),
        Err(WriteError::Unknown(why)) => Outcome::Unknown(why),
    }
}

fn failed(why: &str) -> Next {
    Next::End(Outcome::Failed(why.to_owned()))
}

/// An answer to another step than the one that was asked for: a driver's fault.
fn out_of_turn(answer: &Answer) -> Next {
    failed(&format!("an answer out of turn: {answer:?}"))
}

#[cfg(test)]
mod tests;
