//! Starting PostgreSQL as a standby.

use std::time::Duration;

use super::{JobAnswer, JobNext, JobStep, Now, PostgresStep};
use crate::model::{FollowTarget, Leading, Outcome, SettingsRole};

/// Before the start no clients are routed here any more. The leader, which is promoted next, first reduces its
/// minimums: a standby must not have lower values than its primary. Its files have a primary's settings, because
/// PostgreSQL reads some only at its start. A leader that starts with a source leads a standby cluster.
#[derive(Clone, Debug)]
pub(super) struct StartStandby {
    follow: Option<FollowTarget>,
    within: Duration,
    lowers: bool,
    at: StartStandbyPhase,
}

#[derive(Clone, Debug)]
enum StartStandbyPhase {
    Begin,
    Unrouting,
    Lowering,
    Starting,
}

impl StartStandby {
    pub(super) fn of(follow: Option<FollowTarget>, within: Duration, lowers: bool) -> StartStandby {
        StartStandby { follow, within, lowers, at: StartStandbyPhase::Begin }
    }

    pub(super) fn next(&mut self, answer: JobAnswer, now: Now<'_>) -> JobNext {
        match self.at {
            StartStandbyPhase::Begin => self.step(StartStandbyPhase::Unrouting, JobStep::Unroute),
            StartStandbyPhase::Unrouting if self.is_promoted_next(now) => {
                self.step(StartStandbyPhase::Lowering, JobStep::Postgres(PostgresStep::LowerMinimums))
            }
            StartStandbyPhase::Unrouting | StartStandbyPhase::Lowering => {
                let role = match &self.follow {
                    Some(_) if leads(now) => Some(SettingsRole::StandbyLeader),
                    Some(_) => Some(SettingsRole::Replica),
                    None => self.is_promoted_next(now).then_some(SettingsRole::Primary),
                };
                let start = PostgresStep::Start { follow: self.follow.clone(), within: self.within, role };
                self.step(StartStandbyPhase::Starting, JobStep::Postgres(start))
            }
            StartStandbyPhase::Starting => JobNext::End(match answer {
                JobAnswer::Failed(why) => Outcome::Failed(why),
                _ => Outcome::Done,
            }),
        }
    }

    fn is_promoted_next(&self, now: Now<'_>) -> bool {
        self.lowers && leads(now)
    }

    fn step(&mut self, at: StartStandbyPhase, step: JobStep) -> JobNext {
        self.at = at;
        JobNext::Do(step)
    }
}

fn leads(now: Now<'_>) -> bool {
    match now.lease.leading {
        Leading::Yes(term) => now.lease.allows_promotion(term, now.at),
        Leading::No | Leading::Unknown => false,
    }
}
