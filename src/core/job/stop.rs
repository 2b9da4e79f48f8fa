//! Stopping PostgreSQL.

use std::time::Duration;

use super::{JobAnswer, JobNext, JobStep, Now, OperatorScript, PostgresStep};
use crate::model::{Moment, Outcome, StopMode};

/// The most time for `before_stop`.
const BEFORE_STOP_WITHIN: Duration = Duration::from_secs(30);

/// Before a planned stop the pod loses the label of the primary, and the operator's script runs. Its time is part of
/// the stop's. Nothing comes before a stop that a deadline demands.
#[derive(Clone, Debug)]
pub(super) struct StopJob {
    mode: StopMode,
    within: Duration,
    at: StopPhase,
}

#[derive(Clone, Debug)]
enum StopPhase {
    Begin,
    Unlabelling,
    BeforeStop { since: Moment },
    Stopping,
}

impl StopJob {
    pub(super) fn of(mode: StopMode, within: Duration) -> StopJob {
        StopJob { mode, within, at: StopPhase::Begin }
    }

    pub(super) fn next(&mut self, answer: JobAnswer, now: Now<'_>) -> JobNext {
        match self.at {
            StopPhase::Begin if self.mode == StopMode::Immediate => self.stop(self.within),
            StopPhase::Begin => self.step(StopPhase::Unlabelling, JobStep::Unlabel),
            StopPhase::Unlabelling => {
                let within = (self.within / 2).min(BEFORE_STOP_WITHIN);
                let script = JobStep::Script(OperatorScript::BeforeStop { within });
                self.step(StopPhase::BeforeStop { since: now.at }, script)
            }
            StopPhase::BeforeStop { since } => {
                let left = self.within.saturating_sub(now.at.since(since));
                self.stop(left.max(self.within / 2))
            }
            StopPhase::Stopping => JobNext::End(match answer {
                JobAnswer::Failed(why) => Outcome::Failed(why),
                _ => Outcome::Done,
            }),
        }
    }

    fn stop(&mut self, within: Duration) -> JobNext {
        let stop = PostgresStep::Stop { mode: self.mode, within };
        self.step(StopPhase::Stopping, JobStep::Postgres(stop))
    }

    fn step(&mut self, at: StopPhase, step: JobStep) -> JobNext {
        self.at = at;
        JobNext::Do(step)
    }
}
