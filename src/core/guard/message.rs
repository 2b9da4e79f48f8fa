//! The messages between supervisor and guard.

use crate::model::{LeaseTiming, Moment};

/// When Postgres is stopped and when it is killed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deadlines {
    /// SIGQUIT to the postmaster: it ends its backends and itself at once.
    pub stop_at: Moment,
    /// SIGKILL to every remaining process.
    pub kill_at: Moment,
}

impl Deadlines {
    /// The deadlines of a lease that ends at `deadline`.
    pub fn of_lease(timing: LeaseTiming, deadline: Moment) -> Deadlines {
        Deadlines { stop_at: timing.stop_at(deadline), kill_at: timing.kill_at(deadline) }
    }
}

/// The data of an armed guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArmedDeadlines<T> {
    /// When it stops and kills.
    pub deadlines: Deadlines,
    /// The processes that it kills.
    pub target: T,
    /// When the watchdog resets the machine unless another order comes, however late this order arrives; `None`: no
    /// watchdog is needed.
    pub watchdog_at: Option<Moment>,
}

/// An order of a supervisor to a guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardOrder<T> {
    /// None: only an answer is wanted.
    Ask,
    /// Kill at these deadlines, instead of all earlier ones.
    Arm(ArmedDeadlines<T>),
    /// Kill no process.
    Disarm,
    /// Drop all deadlines and end.
    Dismiss,
}

/// The state of a guard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GuardPhase {
    /// It is not armed.
    #[default]
    Idle,
    /// It waits for a deadline.
    Armed,
    /// The deadline has passed: it kills.
    Firing,
    /// It has killed, and no process is left.
    Over,
}

/// A guard's answer to every order; also sent without an order after a kill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardAnswer {
    /// The number of the order; zero: no order.
    pub sequence: u32,
    /// Its state.
    pub phase: GuardPhase,
    /// Its present or last deadlines.
    pub deadlines: Deadlines,
}

/// The state that a predecessor's guard left behind, as a starting supervisor finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftBehind {
    /// No guard was armed here: a PostgreSQL that runs as a primary was never fenced.
    Nothing,
    /// A guard is armed, or kills already: no lease covers more than its deadlines.
    Armed(Deadlines),
    /// A guard was armed here, and none answers any more: a primary may run unfenced.
    Unguarded,
}

impl LeftBehind {
    /// The result where a socket has the name of an armed guard, by the answer of its guard, if it came in time.
    pub fn judge(answer: Option<GuardAnswer>) -> LeftBehind {
        let Some(answer) = answer else { return LeftBehind::Unguarded };
        match answer.phase {
            GuardPhase::Idle => LeftBehind::Nothing,
            GuardPhase::Armed | GuardPhase::Firing => LeftBehind::Armed(answer.deadlines),
            // It has killed all processes once. It does not know the processes that run now.
            GuardPhase::Over => LeftBehind::Unguarded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_guard_and_one_that_has_killed_count_as_unguarded() {
        let deadlines = Deadlines { stop_at: Moment::from_millis(1), kill_at: Moment::from_millis(2) };
        let found =
            |phase| LeftBehind::judge(Some(GuardAnswer { phase, deadlines, ..GuardAnswer::default() }));
        assert_eq!(LeftBehind::judge(None), LeftBehind::Unguarded);
        assert_eq!(found(GuardPhase::Over), LeftBehind::Unguarded);
        assert_eq!(found(GuardPhase::Firing), LeftBehind::Armed(deadlines));
        assert_eq!(found(GuardPhase::Armed), LeftBehind::Armed(deadlines));
        assert_eq!(found(GuardPhase::Idle), LeftBehind::Nothing);
    }
}
