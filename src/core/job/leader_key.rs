//! The four changes of the leader key.

use super::{Actor, JobAnswer, JobNext, JobStep, Now, failed, out_of_turn, outcome};
use crate::core::store::{Cas, Txn, WriteError};
use crate::model::{Job, LeaseId, Outcome};

/// One transaction, then a renewal, which reads the leader key.
#[derive(Clone, Debug)]
pub(super) struct LeaderKeyWrite {
    job: Job,
    at: LeaderKeyWritePhase,
}

#[derive(Clone, Debug)]
enum LeaderKeyWritePhase {
    Begin,
    Committing,
    ReadingCluster(Outcome),
    Renewing(Outcome),
}

impl LeaderKeyWrite {
    pub(super) fn of(job: Job) -> LeaderKeyWrite {
        LeaderKeyWrite { job, at: LeaderKeyWritePhase::Begin }
    }

    pub(super) fn next(&mut self, actor: &Actor, answer: JobAnswer, now: Now<'_>) -> JobNext {
        match (std::mem::replace(&mut self.at, LeaderKeyWritePhase::Begin), answer) {
            (LeaderKeyWritePhase::Begin, _) => {
                let Some(lease) = now.lease.lease else { return failed("there is no lease") };
                let Some(txn) = self.txn(actor, lease) else {
                    return failed("not a write to the leader key");
                };
                self.step(LeaderKeyWritePhase::Committing, JobStep::Commit(txn))
            }
            (LeaderKeyWritePhase::Committing, JobAnswer::Written(written)) => {
                // The watch may have missed a leader.
                match (&self.job, self.outcome(written)) {
                    (Job::TakeLeadership { .. }, Outcome::Lost) => {
                        self.step(LeaderKeyWritePhase::ReadingCluster(Outcome::Lost), JobStep::ReadCluster)
                    }
                    (_, outcome) => self.step(LeaderKeyWritePhase::Renewing(outcome), JobStep::RenewLease),
                }
            }
            (LeaderKeyWritePhase::ReadingCluster(outcome), _) => {
                self.step(LeaderKeyWritePhase::Renewing(outcome), JobStep::RenewLease)
            }
            (LeaderKeyWritePhase::Renewing(outcome), _) => JobNext::End(outcome),
            (LeaderKeyWritePhase::Committing, answer) => out_of_turn(&answer),
        }
    }

    fn step(&mut self, at: LeaderKeyWritePhase, step: JobStep) -> JobNext {
        self.at = at;
        JobNext::Do(step)
    }

    fn txn(&self, actor: &Actor, lease: LeaseId) -> Option<Txn> {
        let keys = &actor.keys;
        match &self.job {
            Job::TakeLeadership { by } => Some(keys.take_leadership(&actor.name, lease, *by)),
            Job::HandOver { term, to, to_lease, status } => {
                Some(keys.hand_over((*term, lease), to, *to_lease, Some(status)))
            }
            Job::ReleaseLeadership { term, status } => {
                Some(keys.release_leadership((*term, lease), status.as_ref()))
            }
            Job::ReclaimLeadership { term } => Some(keys.move_leadership((*term, lease), lease)),
            Job::Bootstrap { .. }
            | Job::BootstrapStandby { .. }
            | Job::Clone { .. }
            | Job::UndoClone
            | Job::StartStandby { .. }
            | Job::StartPrimary { .. }
            | Job::Stop { .. }
            | Job::Checkpoint
            | Job::PrePromote { .. }
            | Job::Promote { .. }
            | Job::CrashRecovery
            | Job::Rewind { .. } => None,
        }
    }

    fn outcome(&self, written: Result<Cas, WriteError>) -> Outcome {
        match (&self.job, written) {
            // The missing lease is the candidate's.
            (Job::HandOver { .. }, Err(WriteError::LeaseNotFound)) => Outcome::Lost,
            (_, written) => outcome(written),
        }
    }
}
