//! The messages between supervisor and guard.

use crate::model::{LeaseTiming, Moment};

/// When Postgres is stopped, and when it is killed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deadlines {
    /// SIGQUIT to the postmaster: it ends its backends and itself at once.
    pub stop_at: Moment,
    /// SIGKILL to every process that is left.
    pub kill_at: Moment,
}

impl Deadlines {
    /// Those of a lease that ends at `deadline`.
    pub fn of_lease(timing: LeaseTiming, deadline: Moment) -> Deadlines {
        Deadlines { stop_at: timing.stop_at(deadline), kill_at: timing.kill_at(deadline) }
    }
}

/// What a guard is armed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArmedDeadlines<T> {
    /// When it acts.
    pub deadlines: Deadlines,
    /// The processes that it kills.
    pub target: T,
    /// The machine's watchdog resets the machine then, however late this order arrives, unless another order comes;
    /// `None`: no watchdog is wanted.
    pub watchdog_at: Option<Moment>,
}

/// What a supervisor asks of a guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardOrder<T> {
    /// Nothing: the answer is wanted.
    Ask,
    /// Kill at these deadlines, in place of all earlier ones.
    Arm(ArmedDeadlines<T>),
    /// Nothing is to be killed.
    Disarm,
    /// Forget everything and end.
    Dismiss,
}

/// What a guard is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GuardPhase {
    /// Nothing.
    #[default]
    Idle,
    /// It waits for a deadline.
    Armed,
    /// The deadline has passed: it kills.
    Firing,
    /// It has killed, and nothing is left.
    Over,
}

/// What a guard says to every order, and unasked when it has killed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardAnswer {
    /// The number of the order that it answers; zero: of none.
    pub sequence: u32,
    /// What it does now.
    pub phase: GuardPhase,
    /// The deadlines that it has, or had last.
    pub deadlines: Deadlines,
}

/// What a supervisor that starts finds of its predecessor's guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftBehind {
    /// Nothing was armed here: a PostgreSQL that runs as a primary was never fenced.
    Nothing,
    /// A guard is armed, or fires already: its deadlines are the only ones that a lease has paid for.
    Armed(Deadlines),
    /// Something was armed here, and no guard answers any more: a primary may run without a fence.
    Unguarded,
}

impl LeftBehind {
    /// Where a socket has the name that says armed: judged by what the guard behind it answered in time, if it did.
    pub fn judge(answer: Option<GuardAnswer>) -> LeftBehind {
        let Some(answer) = answer else { return LeftBehind::Unguarded };
        match answer.phase {
            GuardPhase::Idle => LeftBehind::Nothing,
            GuardPhase::Armed | GuardPhase::Firing => LeftBehind::Armed(answer.deadlines),
            // It has killed everything once; what runs now, it does not know.
            GuardPhase::Over => LeftBehind::Unguarded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_and_a_guard_that_has_killed_do_not_mean_that_nothing_was_armed() {
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
