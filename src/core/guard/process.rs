//! The guard's process: one pair of deadlines, and the actions when they pass.
//!
//! ```text
//!  Idle ── arm ──► Armed ── stop_at: SIGQUIT; kill_at ──► Firing ── nothing left ──► Over
//!   ▲ ▲             │ ▲ └── arm (a renewal, or a shorter lease): other deadlines      │
//!   │ └── disarm ───┘ └──────────────────────── arm ──────────────────────────────────┘
//!   └──── disarm, from anywhere
//! ```
//!
//! **Invariants.** An order to arm counts as it is, even when it shortens the deadlines. A guard that fires takes no
//! other deadline: PostgreSQL must not be left half killed. An order is answered only after everything that it asks for
//! is done, including the dead-man timer. A guard ends only when it is neither armed nor firing and no supervisor is
//! connected, or when a supervisor whose own guard is armed dismisses it.

use std::time::Duration;

use super::{ArmedDeadlines, Deadlines, GuardAction, GuardActions, GuardAnswer, GuardOrder, GuardPhase};
use crate::model::Moment;

/// The interval between kills: a process in an uninterruptible wait dies late.
const KILL_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// An input of the guard.
#[derive(Clone, Copy, Debug)]
pub enum GuardInput<'a, T> {
    /// An order of its supervisor.
    Ordered {
        /// The number of the order; the answer repeats it.
        sequence: u32,
        /// The order.
        order: &'a GuardOrder<T>,
    },
    /// A message that this version does not understand.
    NotUnderstood,
    /// A supervisor connected, and replaces the former one.
    Connected,
    /// The supervisor's end of the connection is closed.
    Disconnected,
    /// Time has passed.
    Tick,
    /// [`GuardAction::Kill`] was performed.
    Killed {
        /// The number of processes that were found alive.
        found: u32,
        /// Whether certainly no process is left.
        none_left: bool,
    },
}

/// The guard, as the module's head describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    phase: GuardPhase,
    deadlines: Deadlines,
    /// The postmaster was ordered to stop.
    stopped: bool,
    killed: u32,
    connected: bool,
    dismissed: bool,
}

impl Default for Guard {
    /// Not armed, and connected to the supervisor that started it.
    fn default() -> Guard {
        Guard {
            phase: GuardPhase::Idle,
            deadlines: Deadlines::default(),
            stopped: false,
            killed: 0,
            connected: true,
            dismissed: false,
        }
    }
}

impl Guard {
    /// Handles one input, and returns the actions in order.
    pub fn step<'a, T: Copy>(&mut self, input: GuardInput<'a, T>, now: Moment) -> GuardActions<'a, T> {
        let mut guard_actions = GuardActions::none();
        match input {
            GuardInput::Ordered { sequence, order } => {
                self.carry_out_order(order, now, &mut guard_actions);
                guard_actions.add(GuardAction::Answer(self.answer(sequence)));
            }
            GuardInput::NotUnderstood => guard_actions.add(GuardAction::Answer(self.answer(0))),
            GuardInput::Connected => self.connected = true,
            GuardInput::Disconnected => self.connected = false,
            GuardInput::Tick => self.look(now, &mut guard_actions),
            GuardInput::Killed { found, none_left } => self.count(found, none_left, &mut guard_actions),
        }
        guard_actions
    }

    fn carry_out_order<'a, T: Copy>(
        &mut self,
        order: &'a GuardOrder<T>,
        now: Moment,
        guard_actions: &mut GuardActions<'a, T>,
    ) {
        match order {
            GuardOrder::Ask => {}
            GuardOrder::Dismiss => {
                self.dismissed = true;
                guard_actions.add(GuardAction::CloseWatchdog);
            }
            GuardOrder::Disarm => {
                self.phase = GuardPhase::Idle;
                guard_actions.add(GuardAction::ClearDeadManTimer);
                guard_actions.add(GuardAction::CloseWatchdog);
            }
            GuardOrder::Arm(_) if self.phase == GuardPhase::Firing => {}
            GuardOrder::Arm(ArmedDeadlines { deadlines, target, watchdog_at }) => {
                (self.phase, self.deadlines) = (GuardPhase::Armed, *deadlines);
                (self.stopped, self.killed) = (false, 0);
                guard_actions.add(GuardAction::TakeTarget(target));
                guard_actions.add(GuardAction::SetDeadManTimer(deadlines.kill_at));
                // An order that stayed unread during a freeze is no sign of life.
                if now < deadlines.stop_at {
                    guard_actions.add(GuardAction::FeedWatchdog(*watchdog_at));
                }
            }
        }
    }

    /// Adds the actions that are due.
    fn look<T: Copy>(&mut self, now: Moment, guard_actions: &mut GuardActions<'_, T>) {
        if self.phase == GuardPhase::Armed {
            guard_actions.add(GuardAction::FollowProcesses);
            if self.deadlines.kill_at <= now {
                self.phase = GuardPhase::Firing;
            } else if self.deadlines.stop_at <= now && !self.stopped {
                self.stopped = true;
                guard_actions.add(GuardAction::Stop);
            } else {
                guard_actions.add(GuardAction::WarmUp);
            }
        }
        if self.phase == GuardPhase::Firing {
            guard_actions.add(GuardAction::Kill);
        }
    }

    fn count<T: Copy>(&mut self, found: u32, none_left: bool, guard_actions: &mut GuardActions<'_, T>) {
        if self.phase != GuardPhase::Firing {
            return;
        }
        self.killed = self.killed.max(found);
        if none_left {
            self.phase = GuardPhase::Over;
            guard_actions.add(GuardAction::ClearDeadManTimer);
            guard_actions.add(GuardAction::CloseWatchdog);
            // The log is written only now: its reader may be frozen, too.
            guard_actions.add(GuardAction::Report { deadlines: self.deadlines, killed: self.killed });
            guard_actions.add(GuardAction::Answer(self.answer(0)));
        }
    }

    fn answer(&self, sequence: u32) -> GuardAnswer {
        GuardAnswer { sequence, phase: self.phase, deadlines: self.deadlines }
    }

    /// Its state.
    pub fn phase(&self) -> GuardPhase {
        self.phase
    }

    /// Its deadlines, while it waits for them or kills.
    pub fn armed(&self) -> Option<Deadlines> {
        matches!(self.phase, GuardPhase::Armed | GuardPhase::Firing).then_some(self.deadlines)
    }

    /// When the next [`GuardInput::Tick`] is due; `None`: only an order changes the state.
    pub fn wake_at(&self, now: Moment) -> Option<Moment> {
        match self.phase {
            GuardPhase::Idle | GuardPhase::Over => None,
            GuardPhase::Firing => Some(now + KILL_AGAIN_AFTER),
            GuardPhase::Armed if self.stopped => Some(self.deadlines.kill_at),
            GuardPhase::Armed => Some(self.deadlines.stop_at.min(self.deadlines.kill_at)),
        }
    }

    /// Whether there is nothing left to guard and no supervisor to give orders.
    pub fn is_done(&self) -> bool {
        self.dismissed || (!self.connected && self.armed().is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOP_AT: Moment = Moment::from_millis(1_000);
    const KILL_AT: Moment = Moment::from_millis(2_000);

    fn arm_until(stop_at: Moment, kill_at: Moment) -> GuardOrder<()> {
        let deadlines = Deadlines { stop_at, kill_at };
        GuardOrder::Arm(ArmedDeadlines { deadlines, target: (), watchdog_at: Some(kill_at) })
    }

    fn order<'a>(guard: &mut Guard, order: &'a GuardOrder<()>, now: Moment) -> Vec<GuardAction<'a, ()>> {
        guard.step(GuardInput::Ordered { sequence: 7, order }, now).into_iter().collect()
    }

    fn tick(guard: &mut Guard, now: Moment) -> Vec<GuardAction<'static, ()>> {
        guard.step(GuardInput::Tick, now).into_iter().collect()
    }

    fn killed(guard: &mut Guard, found: u32, none_left: bool) -> Vec<GuardAction<'static, ()>> {
        guard.step(GuardInput::Killed { found, none_left }, KILL_AT).into_iter().collect()
    }

    fn connection(guard: &mut Guard, input: GuardInput<'_, ()>) {
        assert_eq!(guard.step(input, KILL_AT).into_iter().count(), 0);
    }

    #[test]
    fn an_order_is_answered_after_the_dead_man_timer_is_set() {
        let (mut guard, arm) = (Guard::default(), arm_until(STOP_AT, KILL_AT));
        let guard_actions = order(&mut guard, &arm, Moment::from_millis(1));
        let timer = guard_actions
            .iter()
            .position(|guard_action| *guard_action == GuardAction::SetDeadManTimer(KILL_AT));
        let answer =
            guard_actions.iter().position(|guard_action| matches!(guard_action, GuardAction::Answer(_)));
        assert!(
            timer.is_some() && timer < answer && answer == Some(guard_actions.len() - 1),
            "{guard_actions:?}"
        );
    }

    #[test]
    fn the_guard_stops_and_then_kills_until_nothing_is_left() {
        let (mut guard, arm) = (Guard::default(), arm_until(STOP_AT, KILL_AT));
        order(&mut guard, &arm, Moment::from_millis(1));
        assert_eq!(
            tick(&mut guard, Moment::from_millis(999)),
            [GuardAction::FollowProcesses, GuardAction::WarmUp]
        );
        assert_eq!(tick(&mut guard, STOP_AT), [GuardAction::FollowProcesses, GuardAction::Stop]);
        assert_eq!(guard.wake_at(STOP_AT), Some(KILL_AT));
        assert_eq!(tick(&mut guard, KILL_AT), [GuardAction::FollowProcesses, GuardAction::Kill]);
        assert_eq!(killed(&mut guard, 3, false), []);
        // A kill that has begun is finished.
        let later = arm_until(STOP_AT + Duration::from_secs(9), KILL_AT + Duration::from_secs(9));
        order(&mut guard, &later, KILL_AT);
        assert_eq!(tick(&mut guard, KILL_AT), [GuardAction::Kill]);
        let last = killed(&mut guard, 0, true);
        assert_eq!(last[0], GuardAction::ClearDeadManTimer);
        assert!(last.contains(&GuardAction::Report { deadlines: guard.deadlines, killed: 3 }));
        assert_eq!((guard.phase(), guard.armed()), (GuardPhase::Over, None));
    }

    #[test]
    fn a_new_order_counts_even_if_it_shortens_the_deadline() {
        let (mut guard, arm) = (Guard::default(), arm_until(STOP_AT, KILL_AT));
        order(&mut guard, &arm, Moment::from_millis(1));
        let earlier = arm_until(Moment::from_millis(100), Moment::from_millis(200));
        order(&mut guard, &earlier, Moment::from_millis(2));
        assert_eq!(
            tick(&mut guard, Moment::from_millis(200)),
            [GuardAction::FollowProcesses, GuardAction::Kill]
        );
    }

    #[test]
    fn an_order_read_late_does_not_ping_the_watchdog() {
        let (mut guard, arm) = (Guard::default(), arm_until(STOP_AT, KILL_AT));
        let feeds = |guard_actions: &[GuardAction<'_, ()>]| {
            guard_actions.iter().any(|guard_action| matches!(guard_action, GuardAction::FeedWatchdog(_)))
        };
        assert!(!feeds(&order(&mut guard, &arm, STOP_AT)));
        assert!(feeds(&order(&mut guard, &arm, Moment::from_millis(1))));
    }

    #[test]
    fn an_armed_guard_outlives_its_supervisor() {
        let (mut guard, arm) = (Guard::default(), arm_until(STOP_AT, KILL_AT));
        order(&mut guard, &arm, Moment::from_millis(1));
        connection(&mut guard, GuardInput::Disconnected);
        assert!(!guard.is_done());
        tick(&mut guard, KILL_AT);
        assert!(!guard.is_done(), "it fires");
        killed(&mut guard, 1, true);
        assert!(guard.is_done());
        connection(&mut guard, GuardInput::Connected);
        assert!(!guard.is_done());
        order(&mut guard, &GuardOrder::Dismiss, KILL_AT);
        assert!(guard.is_done());
    }
}
