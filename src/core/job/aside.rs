//! A write to etcd that no other step waits for.

use super::{Actor, Answer, Next, Step, out_of_turn, outcome};
use crate::core::store::{Keys, Txn};
use crate::model::{Action, LeaseId, Outcome, Term};

/// One transaction, for some keys with a read before it or after it.
#[derive(Clone, Debug)]
pub(super) struct Aside {
    at: At,
}

#[derive(Clone, Debug)]
enum At {
    Begin(Write),
    ReadingConfig { held: (Term, LeaseId), text: String },
    Committing { then_read: bool },
    ReadingCluster(Outcome),
}

#[derive(Clone, Debug)]
enum Write {
    Commit(Txn),
    /// The view is read anew afterwards: the decision waits for what became of it.
    CommitAndRead(Txn),
    RestoreConfig {
        held: (Term, LeaseId),
        text: String,
    },
}

impl Aside {
    pub(super) fn of(
        keys: &Keys,
        action: &Action,
        lease: Option<LeaseId>,
        config: impl FnOnce() -> String,
    ) -> Option<Aside> {
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
            Action::ClearFailover { mod_revision } => {
                Write::Commit(keys.write_failover(None, Some(*mod_revision)))
            }
            Action::Start(_)
            | Action::CancelJob
            | Action::AskPeers { .. }
            | Action::AskLeaderBranch { .. }
            | Action::RenewLease
            | Action::RevokeLease { .. }
            | Action::PardonPostgres { .. }
            | Action::PublishMember(_)
            | Action::SetSyncNames(_)
            | Action::SetGate { .. }
            | Action::Follow(_)
            | Action::SetSlots { .. }
            | Action::ResumeReplay
            | Action::CheckpointAfterPromotion { .. }
            | Action::Answer { .. }
            | Action::Exit(_) => return None,
        };
        Some(Aside { at: At::Begin(write) })
    }

    pub(super) fn next(&mut self, actor: &Actor, answer: Answer) -> Next {
        match (std::mem::replace(&mut self.at, At::ReadingCluster(Outcome::Done)), answer) {
            (At::Begin(Write::Commit(txn)), _) => {
                self.step(At::Committing { then_read: false }, Step::Commit(txn))
            }
            (At::Begin(Write::CommitAndRead(txn)), _) => {
                self.step(At::Committing { then_read: true }, Step::Commit(txn))
            }
            (At::Begin(Write::RestoreConfig { held, text }), _) => {
                self.step(At::ReadingConfig { held, text }, Step::Read(actor.keys.path("config")))
            }
            (At::ReadingConfig { held, text }, Answer::Key(Ok(key))) => {
                match actor.keys.restore_config(held, &text, key.as_ref()) {
                    Some(txn) => self.step(At::Committing { then_read: false }, Step::Commit(txn)),
                    None => Next::End(Outcome::Lost),
                }
            }
            (At::ReadingConfig { .. }, Answer::Key(Err(error))) => Next::End(outcome(Err(error))),
            (At::Committing { then_read: false }, Answer::Written(written)) => Next::End(outcome(written)),
            (At::Committing { then_read: true }, Answer::Written(written)) => {
                self.step(At::ReadingCluster(outcome(written)), Step::ReadCluster)
            }
            (At::ReadingCluster(ended), _) => Next::End(ended),
            (At::ReadingConfig { .. } | At::Committing { .. }, answer) => out_of_turn(&answer),
        }
    }

    fn step(&mut self, at: At, step: Step) -> Next {
        self.at = at;
        Next::Do(step)
    }
}
