//! The steps of a promotion.

use super::{Actor, JobAnswer, JobNext, JobStep, Now, PromotionStep, failed, out_of_turn};
use crate::core::store::{Cas, WriteError};
use crate::model::{Outcome, Term, Timeline};

/// The order is the safety argument:
///
/// 1. PostgreSQL must be ready for a promotion before anything is claimed.
/// 2. The number of the timeline is claimed in etcd, as leader, so that no other history has it.
/// 3. The guard is armed and has acknowledged, and the lease lasts longer than a demotion: after a freeze here the
///    guard kills PostgreSQL.
/// 4. The trigger file is written. The postmaster checks for it at any signal: from here on PostgreSQL may be a
///    primary.
/// 5. The guard and the lease are checked once more, then the signal is sent.
#[derive(Clone, Debug)]
pub(super) struct Promotion {
    term: Term,
    above: Timeline,
    at: PromotionPhase,
}

#[derive(Clone, Copy, Debug)]
enum PromotionPhase {
    Begin,
    AwaitingPromotable,
    Stripping,
    ReadingTimeline,
    Claiming { passed_over: Timeline },
    AwaitingStripped { passed_over: Timeline },
    Reserving,
    Preparing,
    ArmingFirst,
    WritingTrigger,
    ArmingAgain,
    Signalling,
    AwaitingPrimary,
}

impl Promotion {
    pub(super) fn of(term: Term, above: Timeline) -> Promotion {
        Promotion { term, above, at: PromotionPhase::Begin }
    }

    pub(super) fn next(&mut self, actor: &Actor, answer: JobAnswer, now: Now<'_>) -> JobNext {
        if let JobAnswer::Failed(why) = answer {
            return JobNext::End(Outcome::Failed(why));
        }
        match (self.at, answer) {
            (PromotionPhase::Begin, _) => {
                self.promote(PromotionPhase::AwaitingPromotable, PromotionStep::AwaitPromotable)
            }
            (PromotionPhase::AwaitingPromotable, _) => {
                self.step(PromotionPhase::Stripping, JobStep::BeginStrip(self.term))
            }
            (PromotionPhase::Stripping, _) => {
                self.step(PromotionPhase::ReadingTimeline, JobStep::Read(actor.keys.path("timeline")))
            }
            (PromotionPhase::ReadingTimeline, JobAnswer::Key(Ok(key))) => {
                let Some(lease) = now.lease.lease else { return failed("there is no lease") };
                let claim = actor.keys.claim_timeline((self.term, lease), self.above, key.as_ref());
                self.step(PromotionPhase::Claiming { passed_over: claim.1 }, JobStep::Commit(claim.0))
            }
            (PromotionPhase::Claiming { passed_over }, JobAnswer::Written(Ok(Cas::Done(_)))) => {
                self.step(PromotionPhase::AwaitingStripped { passed_over }, JobStep::AwaitStripped)
            }
            (PromotionPhase::Claiming { .. }, JobAnswer::Written(Ok(Cas::Lost))) => {
                failed("the leader key is not mine any more")
            }
            (PromotionPhase::ReadingTimeline, JobAnswer::Key(Err(error)))
            | (PromotionPhase::Claiming { .. }, JobAnswer::Written(Err(error))) => refused(error),
            (PromotionPhase::AwaitingStripped { passed_over }, _) => {
                self.promote(PromotionPhase::Reserving, PromotionStep::ReserveTimelines(passed_over))
            }
            (PromotionPhase::Reserving, _) => self.promote(PromotionPhase::Preparing, PromotionStep::Prepare),
            (PromotionPhase::Preparing, JobAnswer::AlreadyPrimary) => JobNext::End(Outcome::Done),
            (PromotionPhase::Preparing, _) => self.promote(PromotionPhase::ArmingFirst, PromotionStep::Arm),
            (PromotionPhase::ArmingFirst, _) => {
                self.if_allowed(now, PromotionPhase::WritingTrigger, PromotionStep::WriteTrigger)
            }
            (PromotionPhase::WritingTrigger, _) => {
                self.promote(PromotionPhase::ArmingAgain, PromotionStep::Arm)
            }
            (PromotionPhase::ArmingAgain, _) => {
                self.if_allowed(now, PromotionPhase::Signalling, PromotionStep::Signal)
            }
            (PromotionPhase::Signalling, _) => {
                self.promote(PromotionPhase::AwaitingPrimary, PromotionStep::AwaitPrimary)
            }
            (PromotionPhase::AwaitingPrimary, _) => JobNext::End(Outcome::Done),
            (PromotionPhase::ReadingTimeline | PromotionPhase::Claiming { .. }, answer) => {
                out_of_turn(&answer)
            }
        }
    }

    fn if_allowed(&mut self, now: Now<'_>, at: PromotionPhase, step: PromotionStep) -> JobNext {
        match now.lease.allows_promotion(self.term, now.at) {
            true => self.promote(at, step),
            false => failed("the lease does not allow a promotion any more"),
        }
    }

    fn promote(&mut self, at: PromotionPhase, step: PromotionStep) -> JobNext {
        self.step(at, JobStep::Promote(step))
    }

    fn step(&mut self, at: PromotionPhase, step: JobStep) -> JobNext {
        self.at = at;
        JobNext::Do(step)
    }
}

fn refused(error: WriteError) -> JobNext {
    JobNext::End(match error {
        WriteError::NoSpace(why) => Outcome::Refused(why),
        WriteError::LeaseNotFound | WriteError::Unknown(_) => Outcome::Failed(error.to_string()),
    })
}
