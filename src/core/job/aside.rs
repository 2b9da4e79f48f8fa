//! A write to etcd that no other step waits for.

use super::{Actor, JobAnswer, JobNext, JobStep, out_of_turn, outcome};
use crate::core::store::{Keys, Txn};
use crate::model::{Action, LeaseId, MemberName, Outcome, Term};

/// One transaction; for some keys a read precedes or follows it.
#[derive(Clone, Debug)]
pub(super) struct SingleWrite {
    at: SingleWritePhase,
}

#[derive(Clone, Debug)]
enum SingleWritePhase {
    Begin(Write),
    ReadingConfig { held: (Term, LeaseId), text: String },
    Committing { then_read: bool },
    ReadingCluster(Outcome),
}

#[derive(Clone, Debug)]
enum Write {
    Commit(Txn),
    /// The view is read anew afterwards: the decision needs the result.
    CommitAndRead(Txn),
    RestoreConfig {
        held: (Term, LeaseId),
        text: String,
    },
}

impl SingleWrite {
    pub(super) fn of(
        keys: &Keys,
        name: &MemberName,
        action: &Action,
        lease: Option<LeaseId>,
        config: impl FnOnce() -> String,
    ) -> Option<SingleWrite> {
        let write = match action {
            Action::PublishStatus { term, status } => {
                Write::Commit(keys.publish_status((*term, lease?), status))
            }
            Action::PublishHistory { term, lines } => {
                Write::Commit(keys.publish_history((*term, lease?), lines))
            }
            Action::PublishSync { term, record, mod_revision } => {
                Write::Commit(keys.write_sync((*term, lease?), record.as_ref(), *mod_revision))
            }
            Action::PublishFailsafe { term, members, mod_revision } => {
                Write::Commit(keys.write_failsafe((*term, lease?), members, *mod_revision))
            }
            Action::PublishUnfenced(write) => {
                let lease = lease?;
                let held = write.term.map(|term| (term, lease));
                Write::CommitAndRead(keys.write_unfenced(held, &write.primaries, write.mod_revision))
            }
            Action::RestoreInitialize { term, system_id } => {
                Write::Commit(keys.restore_initialize((*term, lease?), *system_id))
            }
            Action::RestoreConfig { term } => Write::RestoreConfig { held: (*term, lease?), text: config() },
            Action::WriteGeneration(write) => Write::Commit(keys.write_generation(lease?, write)),
            Action::WriteRecruit(write) => Write::Commit(keys.write_recruit(name, lease?, write)),
            Action::ClearFailover { mod_revision } => {
                Write::Commit(keys.write_failover(None, Some(*mod_revision)))
            }
            Action::Start(_)
            | Action::CancelJob
            | Action::AskPeers { .. }
            | Action::AskLeaderBranch { .. }
            | Action::RenewLease
            | Action::RevokeLease { .. }
            | Action::SuspendLivenessCheck { .. }
            | Action::PublishMember(_)
            | Action::PlanFailsafe(_)
            | Action::SetSyncNames(_)
            | Action::SetClientLockout { .. }
            | Action::Follow(_)
            | Action::SetSlots(_)
            | Action::SetLogicalSlots(_)
            | Action::AskLeaderSlots(_)
            | Action::ResumeReplay
            | Action::CheckpointAfterPromotion { .. }
            | Action::Answer { .. }
            | Action::Exit(_) => return None,
        };
        Some(SingleWrite { at: SingleWritePhase::Begin(write) })
    }

    pub(super) fn next(&mut self, actor: &Actor, answer: JobAnswer) -> JobNext {
        match (std::mem::replace(&mut self.at, SingleWritePhase::ReadingCluster(Outcome::Done)), answer) {
            (SingleWritePhase::Begin(Write::Commit(txn)), _) => {
                self.step(SingleWritePhase::Committing { then_read: false }, JobStep::Commit(txn))
            }
            (SingleWritePhase::Begin(Write::CommitAndRead(txn)), _) => {
                self.step(SingleWritePhase::Committing { then_read: true }, JobStep::Commit(txn))
            }
            (SingleWritePhase::Begin(Write::RestoreConfig { held, text }), _) => self.step(
                SingleWritePhase::ReadingConfig { held, text },
                JobStep::Read(actor.keys.path("config")),
            ),
            (SingleWritePhase::ReadingConfig { held, text }, JobAnswer::Key(Ok(key))) => {
                match actor.keys.restore_config(held, &text, key.as_ref()) {
                    Some(txn) => {
                        self.step(SingleWritePhase::Committing { then_read: false }, JobStep::Commit(txn))
                    }
                    None => JobNext::End(Outcome::Lost),
                }
            }
            (SingleWritePhase::ReadingConfig { .. }, JobAnswer::Key(Err(error))) => {
                JobNext::End(outcome(Err(error)))
            }
            (SingleWritePhase::Committing { then_read: false }, JobAnswer::Written(written)) => {
                JobNext::End(outcome(written))
            }
            (SingleWritePhase::Committing { then_read: true }, JobAnswer::Written(written)) => {
                self.step(SingleWritePhase::ReadingCluster(outcome(written)), JobStep::ReadCluster)
            }
            (SingleWritePhase::ReadingCluster(ended), _) => JobNext::End(ended),
            (SingleWritePhase::ReadingConfig { .. } | SingleWritePhase::Committing { .. }, answer) => {
                out_of_turn(&answer)
            }
        }
    }

    fn step(&mut self, at: SingleWritePhase, step: JobStep) -> JobNext {
        self.at = at;
        JobNext::Do(step)
    }
}
