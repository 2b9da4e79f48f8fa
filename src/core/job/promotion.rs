//! The steps of a promotion.

use super::{Actor, Answer, Next, Now, PromotionStep, Step, failed, out_of_turn};
use crate::core::store::{Cas, WriteError};
use crate::model::{Outcome, Term, Timeline};

/// The order is the safety argument:
///
/// 1. Nothing is claimed for a promotion that cannot begin: first PostgreSQL must be ready for it.
/// 2. The number of the timeline is claimed in etcd, as leader, so that no other history has it.
/// 3. The guard is armed and has acknowledged, and the lease lasts longer than a demotion: a freeze right behind this
///    ends in the fence.
/// 4. The trigger is written. The postmaster looks for it at any signal: from here on this may be a primary.
/// 5. Armed and allowed once more, then the signal.
#[derive(Clone, Debug)]
pub(super) struct Promotion {
    term: Term,
    above: Timeline,
    at: At,
}

#[derive(Clone, Copy, Debug)]
enum At {
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
        Promotion { term, above, at: At::Begin }
    }

    pub(super) fn next(&mut self, actor: &Actor, answer: Answer, now: Now<'_>) -> Next {
        if let Answer::Failed(why) = answer {
            return Next::End(Outcome::Failed(why));
        }
        match (self.at, answer) {
            (At::Begin, _) => self.promote(At::AwaitingPromotable, PromotionStep::AwaitPromotable),
            (At::AwaitingPromotable, _) => self.step(At::Stripping, Step::BeginStrip(self.term)),
            (At::Stripping, _) => self.step(At::ReadingTimeline, Step::Read(actor.keys.path("timeline"))),
            (At::ReadingTimeline, Answer::Key(Ok(key))) => {
                let Some(lease) = now.lease.lease else { return failed("there is no lease") };
                let claim = actor.keys.claim_timeline((self.term, lease), self.above, key.as_ref());
                self.step(At::Claiming { passed_over: claim.1 }, Step::Commit(claim.0))
            }
            (At::Claiming { passed_over }, Answer::Written(Ok(Cas::Done(_)))) => {
                self.step(At::AwaitingStripped { passed_over }, Step::AwaitStripped)
            }
            (At::Claiming { .. }, Answer::Written(Ok(Cas::Lost))) => {
                failed("the leader key is not mine any more")
            }
            (At::ReadingTimeline, Answer::Key(Err(error)))
            | (At::Claiming { .. }, Answer::Written(Err(error))) => refused(error),
            (At::AwaitingStripped { passed_over }, _) => {
                self.promote(At::Reserving, PromotionStep::ReserveTimelines(passed_over))
            }
            (At::Reserving, _) => self.promote(At::Preparing, PromotionStep::Prepare),
            (At::Preparing, Answer::AlreadyPrimary) => Next::End(Outcome::Done),
            (At::Preparing, _) => self.promote(At::ArmingFirst, PromotionStep::Arm),
            (At::ArmingFirst, _) => self.if_allowed(now, At::WritingTrigger, PromotionStep::WriteTrigger),
            (At::WritingTrigger, _) => self.promote(At::ArmingAgain, PromotionStep::Arm),
            (At::ArmingAgain, _) => self.if_allowed(now, At::Signalling, PromotionStep::Signal),
            (At::Signalling, _) => self.promote(At::AwaitingPrimary, PromotionStep::AwaitPrimary),
            (At::AwaitingPrimary, _) => Next::End(Outcome::Done),
            (At::ReadingTimeline | At::Claiming { .. }, answer) => out_of_turn(&answer),
        }
    }

    fn if_allowed(&mut self, now: Now<'_>, at: At, step: PromotionStep) -> Next {
        match now.lease.allows_promotion(self.term, now.at) {
            true => self.promote(at, step),
            false => failed("the lease does not allow a promotion any more"),
        }
    }

    fn promote(&mut self, at: At, step: PromotionStep) -> Next {
        self.step(at, Step::Promote(step))
    }

    fn step(&mut self, at: At, step: Step) -> Next {
        self.at = at;
        Next::Do(step)
    }
}

fn refused(error: WriteError) -> Next {
    Next::End(match error {
        WriteError::NoSpace(why) => Outcome::Refused(why),
        WriteError::LeaseNotFound => Outcome::Failed("requested lease not found".to_owned()),
        WriteError::Unknown(why) => Outcome::Failed(why),
    })
}
