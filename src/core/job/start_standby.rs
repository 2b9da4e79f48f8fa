//! Starting PostgreSQL as a standby.

use std::time::Duration;

use super::{Answer, Next, Now, PostgresStep, Step};
use crate::model::{FollowTarget, Leading, Outcome};

/// Before the start nobody is sent here any more. The leader, which starts its own PostgreSQL without a source, lowers
/// its minimums first: a standby must not have less than its primary.
#[derive(Clone, Debug)]
pub(super) struct StartStandby {
    follow: Option<FollowTarget>,
    within: Duration,
    at: At,
}

#[derive(Clone, Debug)]
enum At {
    Begin,
    Unrouting,
    Lowering,
    Starting,
}

impl StartStandby {
    pub(super) fn of(follow: Option<FollowTarget>, within: Duration) -> StartStandby {
        StartStandby { follow, within, at: At::Begin }
    }

    pub(super) fn next(&mut self, answer: Answer, now: Now<'_>) -> Next {
        match self.at {
            At::Begin => self.step(At::Unrouting, Step::Unroute),
            At::Unrouting if self.follow.is_none() && leads(now) => {
                self.step(At::Lowering, Step::Postgres(PostgresStep::LowerMinimums))
            }
            At::Unrouting | At::Lowering => {
                let start = PostgresStep::Start { follow: self.follow.clone(), within: self.within };
                self.step(At::Starting, Step::Postgres(start))
            }
            At::Starting => Next::End(match answer {
                Answer::Failed(why) => Outcome::Failed(why),
                _ => Outcome::Done,
            }),
        }
    }

    fn step(&mut self, at: At, step: Step) -> Next {
        self.at = at;
        Next::Do(step)
    }
}

fn leads(now: Now<'_>) -> bool {
    match now.lease.leading {
        Leading::Yes(term) => now.lease.allows_promotion(term, now.at),
        Leading::No | Leading::Unknown => false,
    }
}
