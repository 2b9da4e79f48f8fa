//! The outcome of long actions that ended: the memory of each, and the time of the next try after a failure.

use std::time::Duration;

use super::ledgers::PrePromote;
use super::memory::Rejoin;
use super::tick::Tick;
use crate::model::{Action, ExitBecause, Failure, JobKind, Outcome, StoreSeen};

/// The pause before a write is repeated that a full etcd refused, or that has no answer.
const REFUSED_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The pause before the remote primary of a standby cluster is copied again.
const COPY_AGAIN_AFTER: Duration = Duration::from_secs(5);

impl Tick<'_> {
    /// Records the end of a long action.
    pub(super) fn remember_end(&mut self, job: JobKind, outcome: &Outcome) {
        let failed = match outcome {
            Outcome::Failed(why) | Outcome::Unknown(why) | Outcome::Refused(why) => Some(why),
            Outcome::Done | Outcome::Lost | Outcome::LeaseGone | Outcome::Cancelled => None,
        };
        if let Some(why) = failed {
            self.memory.failures.last = Some(Failure::Job { job, why: why.clone() });
        }
        self.forget_former_data(job, outcome);
        match job {
            JobKind::TakeLeadership => self.took_leadership(outcome),
            JobKind::HandOver | JobKind::ReleaseLeadership => self.gave_away(job, outcome),
            JobKind::ReclaimLeadership => self.reclaimed(outcome, failed),
            JobKind::StartStandby | JobKind::StartPrimary | JobKind::Promote => {
                self.started(job, outcome, failed)
            }
            JobKind::PrePromote => self.pre_promoted(outcome),
            JobKind::Clone => self.cloned(outcome, failed),
            JobKind::UndoClone => self.clone_undone(failed),
            JobKind::Rewind => self.rewound(failed),
            JobKind::CrashRecovery => self.recovered(outcome, failed),
            JobKind::Bootstrap => self.bootstrapped(outcome),
            JobKind::CheckpointAfterPromotion => self.checkpointed(outcome),
            JobKind::Stop | JobKind::Checkpoint => {}
        }
    }

    fn forget_former_data(&mut self, job: JobKind, outcome: &Outcome) {
        if job.replaces_data() && *outcome == Outcome::Done {
            self.memory.failures.starts = 0;
        }
    }

    fn took_leadership(&mut self, outcome: &Outcome) {
        self.memory.recruit.deposal_failed = *outcome != Outcome::Done;
        self.memory.failsafe.may_have_taken =
            matches!(outcome, Outcome::Unknown(_) | Outcome::Failed(_) | Outcome::Cancelled);
        match (outcome, self.memory.leader_key.vacant_mut()) {
            (Outcome::Refused(_), _) => self.retry_in(JobKind::TakeLeadership, REFUSED_AGAIN_AFTER),
            (Outcome::Lost, Some(leaderless)) => leaderless.revision = None,
            (_, _) => {}
        }
    }

    fn gave_away(&mut self, job: JobKind, outcome: &Outcome) {
        if let Outcome::Refused(_) = outcome {
            // Nothing was done, and no write is in flight: the key is still mine.
            self.memory.released_term = None;
            self.retry_in(job, REFUSED_AGAIN_AFTER);
        }
        self.remember_released_term(outcome);
    }

    fn reclaimed(&mut self, outcome: &Outcome, failed: Option<&String>) {
        self.remember_released_term(outcome);
        if failed.is_some() {
            self.retry_in(JobKind::ReclaimLeadership, Duration::from_millis(200));
        }
    }

    fn remember_released_term(&mut self, outcome: &Outcome) {
        if let Some(given) = &mut self.memory.released_term {
            given.reclaim = *outcome != Outcome::Done;
        }
    }

    fn started(&mut self, job: JobKind, outcome: &Outcome, failed: Option<&String>) {
        let refused = matches!(outcome, Outcome::Refused(_));
        if refused && job == JobKind::Promote {
            self.retry_in(job, REFUSED_AGAIN_AFTER);
        } else if failed.is_some() {
            self.memory.failures.starts += 1;
            self.retry_in(job, Duration::from_millis(500) * self.memory.failures.starts.min(20));
        }
    }

    fn pre_promoted(&mut self, outcome: &Outcome) {
        let Some(PrePromote::Begun(term)) = self.memory.pre_promote else { return };
        self.memory.pre_promote = match outcome {
            Outcome::Done => Some(PrePromote::Passed(term)),
            // It may run again if this member still leads.
            Outcome::Cancelled => None,
            Outcome::Failed(_)
            | Outcome::Lost
            | Outcome::LeaseGone
            | Outcome::Unknown(_)
            | Outcome::Refused(_) => Some(PrePromote::Failed(term)),
        };
    }

    fn cloned(&mut self, outcome: &Outcome, failed: Option<&String>) {
        if failed.is_some() {
            self.memory.rejoin.clone_failures += 1;
            self.retry_in(JobKind::Clone, Duration::from_secs(5) * self.memory.rejoin.clone_failures.min(12));
        } else if *outcome == Outcome::Done {
            self.memory.reinitialize = None;
            self.memory.rejoin = Rejoin::default();
        }
    }

    fn clone_undone(&mut self, failed: Option<&String>) {
        if failed.is_some() {
            self.retry_in(JobKind::UndoClone, Duration::from_secs(5));
        }
    }

    fn rewound(&mut self, failed: Option<&String>) {
        if failed.is_some() {
            self.memory.rejoin.rewind_failures += 1;
            self.retry_in(JobKind::Rewind, Duration::from_secs(5));
        }
    }

    fn recovered(&mut self, outcome: &Outcome, failed: Option<&String>) {
        if failed.is_some() {
            self.memory.rejoin.recovery_failures += 1;
            self.retry_in(JobKind::CrashRecovery, Duration::from_secs(5));
        } else if *outcome == Outcome::Done {
            self.memory.rejoin.recovered = true;
            self.memory.rejoin.recovery_failures = 0;
        }
    }

    fn bootstrapped(&mut self, outcome: &Outcome) {
        match outcome {
            // The store as seen before belonged to another cluster, if to any.
            Outcome::Done => {
                self.memory.store = StoreSeen::default();
                // What a script has made may be a copy, on the timeline of its origin.
                self.memory.is_new_cluster =
                    !self.in_standby_cluster() && !self.seen.me.scripts.custom_bootstrap;
            }
            Outcome::Failed(why) => self.bootstrap_failed(why),
            Outcome::Refused(_) | Outcome::Unknown(_) => {
                self.retry_in(JobKind::Bootstrap, REFUSED_AGAIN_AFTER);
            }
            Outcome::Lost | Outcome::LeaseGone | Outcome::Cancelled => {}
        }
    }

    fn bootstrap_failed(&mut self, why: &str) {
        match self.in_standby_cluster() {
            // The remote primary may be reached later.
            true => self.retry_in(JobKind::Bootstrap, COPY_AGAIN_AFTER),
            false => self.act(Action::Exit(ExitBecause::BootstrapFailed { why: why.to_owned() })),
        }
    }

    fn checkpointed(&mut self, outcome: &Outcome) {
        let done = *outcome == Outcome::Done;
        self.memory.checkpoint = done.then_some(true);
        if !done {
            self.retry_in(JobKind::CheckpointAfterPromotion, Duration::from_secs(1));
        }
    }

    fn retry_in(&mut self, job: JobKind, span: Duration) {
        self.memory.failures.retry_at.insert(job, self.now + span);
    }
}
