//! The start of the leader's own PostgreSQL as the primary that it was, without a new timeline.

use std::time::Duration;

use super::{JobAnswer, JobNext, JobStep, Now, PrimaryStartStep, PromotionStep, failed};
use crate::model::{Outcome, Term};

/// PostgreSQL becomes read-write by itself at the end of such a start, so the order is that of a promotion:
///
/// 1. The process that will be the postmaster is there, and waits. Nothing can be written yet.
/// 2. The guard is armed for this process and has acknowledged, and the lease lasts longer than a demotion: after a
///    freeze here the guard kills the process.
/// 3. The process is released. It ends by itself if the supervisor ends before.
#[derive(Clone, Debug)]
pub(super) struct StartPrimary {
    term: Term,
    within: Duration,
    at: StartPrimaryPhase,
}

#[derive(Clone, Copy, Debug)]
enum StartPrimaryPhase {
    BeginFirst,
    Stripping,
    Begin,
    Holding,
    Arming,
    Releasing,
    AwaitingReady,
}

impl StartPrimary {
    /// `first`: other pods may have the label of the primary, from a cluster of before.
    pub(super) fn of(term: Term, within: Duration, first: bool) -> StartPrimary {
        let at = if first { StartPrimaryPhase::BeginFirst } else { StartPrimaryPhase::Begin };
        StartPrimary { term, within, at }
    }

    pub(super) fn next(&mut self, answer: JobAnswer, now: Now<'_>) -> JobNext {
        if let JobAnswer::Failed(why) = answer {
            return JobNext::End(Outcome::Failed(why));
        }
        let allowed = now.lease.allows_promotion(self.term, now.at);
        match self.at {
            StartPrimaryPhase::BeginFirst => {
                self.step(StartPrimaryPhase::Stripping, JobStep::BeginStrip(self.term))
            }
            StartPrimaryPhase::Stripping => self.step(StartPrimaryPhase::Begin, JobStep::AwaitStripped),
            StartPrimaryPhase::Begin => self.start(StartPrimaryPhase::Holding, PrimaryStartStep::Hold),
            StartPrimaryPhase::Holding => {
                self.step(StartPrimaryPhase::Arming, JobStep::Promote(PromotionStep::Arm))
            }
            StartPrimaryPhase::Arming if allowed => {
                self.start(StartPrimaryPhase::Releasing, PrimaryStartStep::Release)
            }
            StartPrimaryPhase::Arming => failed("the lease does not allow the start of a primary any more"),
            StartPrimaryPhase::Releasing => {
                self.start(StartPrimaryPhase::AwaitingReady, PrimaryStartStep::AwaitReady(self.within))
            }
            StartPrimaryPhase::AwaitingReady => JobNext::End(Outcome::Done),
        }
    }

    fn start(&mut self, at: StartPrimaryPhase, step: PrimaryStartStep) -> JobNext {
        self.step(at, JobStep::StartPrimary(step))
    }

    fn step(&mut self, at: StartPrimaryPhase, step: JobStep) -> JobNext {
        self.at = at;
        JobNext::Do(step)
    }
}
