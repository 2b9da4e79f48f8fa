//! The guard's process: one pair of deadlines, and what follows when they pass.
//!
//! ```text
//!  Idle ── arm ──► Armed ── stop_at: SIGQUIT; kill_at ──► Firing ── nothing left ──► Over
//!   ▲ ▲             │ ▲ └── arm (a renewal, or a shorter lease): other deadlines      │
//!   │ └── disarm ───┘ └──────────────────────── arm ──────────────────────────────────┘
//!   └──── disarm, from anywhere
//! ```
//!
//! **Invariants.** An order to arm counts as it is, also when it shortens. A guard that fires takes no other deadline:
//! half a kill helps nobody. An order is answered after everything that it asks for is done, the dead-man timer
//! included. A guard ends only when it is neither armed nor firing and no supervisor is connected, or when it is
//! dismissed by a supervisor whose own guard is armed.

use std::time::Duration;

use super::{Answer, Armed, Deadlines, Deed, Deeds, Order, Phase};
use crate::model::Moment;

/// A process in an uninterruptible wait dies late: it is looked for this often.
const KILL_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// What reaches a guard.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a, T> {
    /// An order of its supervisor.
    Ordered {
        /// Counts the orders of one supervisor; the answer repeats it.
        sequence: u32,
        /// What is wanted.
        order: &'a Order<T>,
    },
    /// A message that this version does not understand.
    NotUnderstood,
    /// A supervisor connected, in the place of the former one.
    Connected,
    /// The supervisor's end of the connection is closed.
    Disconnected,
    /// Time has passed.
    Tick,
    /// [`Deed::Kill`] was carried out.
    Killed {
        /// So many processes were found alive.
        found: u32,
        /// It is proved that no process is left.
        none_left: bool,
    },
}

/// See above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    phase: Phase,
    deadlines: Deadlines,
    /// The postmaster was told to stop.
    stopped: bool,
    killed: u32,
    connected: bool,
    dismissed: bool,
}

impl Default for Guard {
    /// Idle, with the supervisor connected that started it.
    fn default() -> Guard {
        Guard {
            phase: Phase::Idle,
            deadlines: Deadlines::default(),
            stopped: false,
            killed: 0,
            connected: true,
            dismissed: false,
        }
    }
}

impl Guard {
    /// Takes one input; what is to be done about it, in that order.
    pub fn step<'a, T: Copy>(&mut self, input: Input<'a, T>, now: Moment) -> Deeds<'a, T> {
        let mut deeds = Deeds::none();
        match input {
            Input::Ordered { sequence, order } => {
                self.obey(order, now, &mut deeds);
                deeds.add(Deed::Answer(self.answer(sequence)));
            }
            Input::NotUnderstood => deeds.add(Deed::Answer(self.answer(0))),
            Input::Connected => self.connected = true,
            Input::Disconnected => self.connected = false,
            Input::Tick => self.look(now, &mut deeds),
            Input::Killed { found, none_left } => self.count(found, none_left, &mut deeds),
        }
        deeds
    }

    fn obey<'a, T: Copy>(&mut self, order: &'a Order<T>, now: Moment, deeds: &mut Deeds<'a, T>) {
        match order {
            Order::Ask => {}
            Order::Dismiss => {
                self.dismissed = true;
                deeds.add(Deed::CloseWatchdog);
            }
            Order::Disarm => {
                self.phase = Phase::Idle;
                deeds.add(Deed::ClearDeadManTimer);
                deeds.add(Deed::CloseWatchdog);
            }
            Order::Arm(_) if self.phase == Phase::Firing => {}
            Order::Arm(Armed { deadlines, target, watchdog_at }) => {
                (self.phase, self.deadlines) = (Phase::Armed, *deadlines);
                (self.stopped, self.killed) = (false, 0);
                deeds.add(Deed::TakeTarget(target));
                deeds.add(Deed::SetDeadManTimer(deadlines.kill_at));
                // An order that lay unread through a freeze is no sign of life.
                if now < deadlines.stop_at {
                    deeds.add(Deed::FeedWatchdog(*watchdog_at));
                }
            }
        }
    }

    /// Does what is due.
    fn look<T: Copy>(&mut self, now: Moment, deeds: &mut Deeds<'_, T>) {
        if self.phase == Phase::Armed {
            deeds.add(Deed::FollowProcesses);
            if self.deadlines.kill_at <= now {
                self.phase = Phase::Firing;
            } else if self.deadlines.stop_at <= now && !self.stopped {
                self.stopped = true;
                deeds.add(Deed::Stop);
            } else {
                deeds.add(Deed::Rehearse);
            }
        }
        if self.phase == Phase::Firing {
            deeds.add(Deed::Kill);
        }
    }

    fn count<T: Copy>(&mut self, found: u32, none_left: bool, deeds: &mut Deeds<'_, T>) {
        if self.phase != Phase::Firing {
            return;
        }
        self.killed = self.killed.max(found);
        if none_left {
            self.phase = Phase::Over;
            deeds.add(Deed::ClearDeadManTimer);
            deeds.add(Deed::CloseWatchdog);
            // Nothing is written to the log before: its reader may be as frozen as the supervisor.
            deeds.add(Deed::Report { deadlines: self.deadlines, killed: self.killed });
            deeds.add(Deed::Answer(self.answer(0)));
        }
    }

    fn answer(&self, sequence: u32) -> Answer {
        Answer { sequence, phase: self.phase, deadlines: self.deadlines }
    }

    /// What it does now.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What it is armed with, or fires for.
    pub fn armed(&self) -> Option<Deadlines> {
        matches!(self.phase, Phase::Armed | Phase::Firing).then_some(self.deadlines)
    }

    /// The next [`Input::Tick`] is due then; `None`: only an order changes anything.
    pub fn wake_at(&self, now: Moment) -> Option<Moment> {
        match self.phase {
            Phase::Idle | Phase::Over => None,
            Phase::Firing => Some(now + KILL_AGAIN_AFTER),
            Phase::Armed if self.stopped => Some(self.deadlines.kill_at),
            Phase::Armed => Some(self.deadlines.stop_at.min(self.deadlines.kill_at)),
        }
    }

    /// Nothing is left to guard, and no supervisor is there to give other orders.
    pub fn is_done(&self) -> bool {
        self.dismissed || (!self.connected && self.armed().is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOP_AT: Moment = Moment::from_millis(1_000);
    const KILL_AT: Moment = Moment::from_millis(2_000);

    fn arm_until(stop_at: Moment, kill_at: Moment) -> Order<()> {
        let deadlines = Deadlines { stop_at, kill_at };
        Order::Arm(Armed { deadlines, target: (), watchdog_at: Some(kill_at) })
    }

    fn order<'a>(guard: &mut Guard, order: &'a Order<()>, now: Moment) -> Vec<Deed<'a, ()>> {
        guard.step(Input::Ordered { sequence: 7, order }, now).into_iter().collect()
    }

    fn tick(guard: &mut Guard, now: Moment) -> Vec<Deed<'static, ()>> {
        guard.step(Input::Tick, now).into_iter().collect()
    }

    fn killed(guard: &mut Guard, found: u32, none_left: bool) -> Vec<Deed<'static, ()>> {
        guard.step(Input::Killed { found, none_left }, KILL_AT).into_iter().collect()
    }

    fn connection(guard: &mut Guard, input: Input<'_, ()>) {
        assert_eq!(guard.step(input, KILL_AT).into_iter().count(), 0);
    }

    #[test]
    fn an_order_is_answered_after_the_dead_man_timer_is_set() {
        let (mut guard, arm) = (Guard::default(), arm_until(STOP_AT, KILL_AT));
        let deeds = order(&mut guard, &arm, Moment::from_millis(1));
        let timer = deeds.iter().position(|deed| *deed == Deed::SetDeadManTimer(KILL_AT));
        let answer = deeds.iter().position(|deed| matches!(deed, Deed::Answer(_)));
        assert!(timer.is_some() && timer < answer && answer == Some(deeds.len() - 1), "{deeds:?}");
    }

    #[test]
    fn it_stops_and_then_kills_until_nothing_is_left() {
        let (mut guard, arm) = (Guard::default(), arm_until(STOP_AT, KILL_AT));
        order(&mut guard, &arm, Moment::from_millis(1));
        assert_eq!(tick(&mut guard, Moment::from_millis(999)), [Deed::FollowProcesses, Deed::Rehearse]);
        assert_eq!(tick(&mut guard, STOP_AT), [Deed::FollowProcesses, Deed::Stop]);
        assert_eq!(guard.wake_at(STOP_AT), Some(KILL_AT));
        assert_eq!(tick(&mut guard, KILL_AT), [Deed::FollowProcesses, Deed::Kill]);
        assert_eq!(killed(&mut guard, 3, false), []);
        // Half a kill helps nobody.
        let later = arm_until(STOP_AT + Duration::from_secs(9), KILL_AT + Duration::from_secs(9));
        order(&mut guard, &later, KILL_AT);
        assert_eq!(tick(&mut guard, KILL_AT), [Deed::Kill]);
        let last = killed(&mut guard, 0, true);
        assert_eq!(last[0], Deed::ClearDeadManTimer);
        assert!(last.contains(&Deed::Report { deadlines: guard.deadlines, killed: 3 }));
        assert_eq!((guard.phase(), guard.armed()), (Phase::Over, None));
    }

    #[test]
    fn an_order_counts_as_it_is_also_when_it_shortens() {
        let (mut guard, arm) = (Guard::default(), arm_until(STOP_AT, KILL_AT));
        order(&mut guard, &arm, Moment::from_millis(1));
        let earlier = arm_until(Moment::from_millis(100), Moment::from_millis(200));
        order(&mut guard, &earlier, Moment::from_millis(2));
        assert_eq!(tick(&mut guard, Moment::from_millis(200)), [Deed::FollowProcesses, Deed::Kill]);
    }

    #[test]
    fn an_order_that_lay_unread_feeds_no_watchdog() {
        let (mut guard, arm) = (Guard::default(), arm_until(STOP_AT, KILL_AT));
        let feeds = |deeds: &[Deed<'_, ()>]| deeds.iter().any(|deed| matches!(deed, Deed::FeedWatchdog(_)));
        assert!(!feeds(&order(&mut guard, &arm, STOP_AT)));
        assert!(feeds(&order(&mut guard, &arm, Moment::from_millis(1))));
    }

    #[test]
    fn it_outlives_its_supervisor_while_it_is_armed_and_ends_afterwards() {
        let (mut guard, arm) = (Guard::default(), arm_until(STOP_AT, KILL_AT));
        order(&mut guard, &arm, Moment::from_millis(1));
        connection(&mut guard, Input::Disconnected);
        assert!(!guard.is_done());
        tick(&mut guard, KILL_AT);
        assert!(!guard.is_done(), "it fires");
        killed(&mut guard, 1, true);
        assert!(guard.is_done());
        connection(&mut guard, Input::Connected);
        assert!(!guard.is_done());
        order(&mut guard, &Order::Dismiss, KILL_AT);
        assert!(guard.is_done());
    }
}
