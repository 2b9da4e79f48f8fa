//! A driver that performs every effect, and a guard that can be silent.

use super::super::{Deadlines, Guard, GuardInput};
use super::*;

const START: Moment = Moment::from_millis(100_000);

fn at(millis: u64) -> Moment {
    START + Duration::from_millis(millis)
}

fn armed(kill_after: u64) -> Option<ArmedDeadlines<()>> {
    let deadlines = Deadlines { stop_at: at(kill_after - 500), kill_at: at(kill_after) };
    Some(ArmedDeadlines { deadlines, target: (), watchdog_at: None })
}

/// The simplest driver: every effect succeeds at once and is recorded as text.
struct Driver {
    keep: KeepGuard<()>,
    guard: Option<Guard>,
    /// The guard's process is frozen.
    frozen: bool,
    done: Vec<String>,
}

impl Driver {
    fn new(predecessor: bool) -> Driver {
        Driver { keep: KeepGuard::new(predecessor), guard: None, frozen: false, done: Vec::new() }
    }

    /// The effects at that time.
    fn run(&mut self, now: Moment) -> String {
        while let Some(effect) = self.keep.poll(now) {
            self.carry_out(effect, now);
        }
        std::mem::take(&mut self.done).join(" ")
    }

    fn carry_out(&mut self, effect: GuardEffect<()>, now: Moment) {
        let text = match effect {
            GuardEffect::StopPostgres(()) => "stop",
            GuardEffect::KillPostgres { without_guard: true, .. } => "kill-without-guard",
            GuardEffect::KillPostgres { .. } => "kill",
            GuardEffect::EndGuard { .. } => {
                self.guard = None;
                "end"
            }
            GuardEffect::StartGuard => {
                (self.guard, self.frozen) = (Some(Guard::default()), false);
                self.keep.handle(GuardEvent::Started, now);
                "start"
            }
            GuardEffect::NameArmed | GuardEffect::NameIdle { .. } => {
                let armed = effect == GuardEffect::NameArmed;
                self.keep.handle(GuardEvent::Renamed { armed }, now);
                if armed { "name" } else { "unname" }
            }
            GuardEffect::Send { sequence, order } => {
                self.send(sequence, order, now);
                match order {
                    GuardOrder::Ask => "ask",
                    GuardOrder::Arm(_) => "arm",
                    GuardOrder::Disarm => "disarm",
                    GuardOrder::Dismiss => "dismiss",
                }
            }
            GuardEffect::Held { .. } => "held",
            GuardEffect::DismissPredecessor => "relieve",
        };
        self.done.push(text.to_owned());
    }

    fn send(&mut self, sequence: u32, order: GuardOrder<()>, now: Moment) {
        let Some(guard) = self.guard.as_mut().filter(|_| !self.frozen) else { return };
        for guard_action in guard.step(GuardInput::Ordered { sequence, order: &order }, now) {
            if let super::super::GuardAction::Answer(answer) = guard_action {
                self.keep.handle(GuardEvent::Answered(answer), now);
            }
        }
    }
}

#[test]
fn the_socket_says_armed_before_a_guard_is_armed_and_until_it_is_disarmed() {
    let mut driver = Driver::new(false);
    assert_eq!(driver.run(at(0)), "start ask held");
    driver.keep.order(armed(8_000));
    assert!(!driver.keep.holds(driver.keep.sequence()));
    assert_eq!(driver.run(at(1)), "name arm held");
    assert!(driver.keep.holds(driver.keep.sequence()));
    assert!(!driver.keep.order(armed(8_000)), "no news");
    driver.keep.order(None);
    assert_eq!(driver.run(at(2)), "disarm held unname");
}

#[test]
fn a_predecessor_is_dismissed_only_after_the_first_acknowledged_order() {
    let mut driver = Driver::new(true);
    assert_eq!(driver.run(at(0)), "start ask held", "nothing is decided yet");
    driver.frozen = true;
    driver.keep.order(armed(8_000));
    assert_eq!(driver.run(at(1)), "name arm", "it is not held");
    assert_eq!(driver.run(at(1_001)), "end start arm held relieve arm");
    assert!(!driver.keep.predecessor);
}

#[test]
fn a_lost_guard_is_ended_and_the_next_gets_the_same_order() {
    let mut driver = Driver::new(false);
    driver.run(at(0));
    driver.keep.order(armed(8_000));
    driver.run(at(1));
    driver.keep.handle(GuardEvent::Closed, at(2));
    assert_eq!(driver.keep.poll(at(2)), Some(GuardEffect::EndGuard { lost: GuardLoss::Died, armed: true }));
    assert!(!driver.keep.holds(driver.keep.sequence()), "nobody holds it now");
    assert_eq!(driver.run(at(2)), "start arm held");
    assert!(driver.keep.holds(driver.keep.sequence()));
}

#[test]
fn a_guard_that_does_not_answer_is_replaced_within_two_seconds() {
    let mut driver = Driver::new(false);
    driver.run(at(0));
    driver.keep.order(armed(60_000));
    driver.run(at(1));
    driver.frozen = true;
    assert_eq!(driver.keep.wake_at(), at(501));
    assert_eq!(driver.run(at(501)), "ask");
    assert_eq!(driver.run(at(1_001)), "ask");
    assert_eq!(driver.run(at(1_501)), "end start arm held");
}

#[test]
fn an_answer_to_another_order_or_with_other_deadlines_acknowledges_nothing() {
    let mut driver = Driver::new(false);
    driver.run(at(0));
    driver.frozen = true;
    driver.keep.order(armed(8_000));
    driver.run(at(1));
    let sequence = driver.keep.sequence();
    let deadlines = armed(8_000).expect("it is").deadlines;
    let right = GuardAnswer { sequence, phase: GuardPhase::Armed, deadlines };
    let others = [
        GuardAnswer { sequence: sequence - 1, ..right },
        GuardAnswer { sequence: 0, ..right },
        GuardAnswer { phase: GuardPhase::Firing, ..right },
        GuardAnswer { deadlines: Deadlines { kill_at: at(8_001), ..deadlines }, ..right },
    ];
    for other in others {
        driver.keep.handle(GuardEvent::Answered(other), at(2));
        assert!(!driver.keep.holds(sequence), "{other:?}");
    }
    driver.keep.handle(GuardEvent::Answered(right), at(2));
    assert!(driver.keep.holds(sequence));
    // An acknowledgement that comes after the next order does not count for it.
    driver.keep.order(None);
    driver.keep.handle(GuardEvent::Answered(right), at(3));
    assert!(!driver.keep.holds(driver.keep.sequence()));
}

#[test]
fn without_a_guard_the_driver_stops_at_the_deadline_and_kills_after_three_seconds_at_once() {
    let mut keep = KeepGuard::<()>::new(false);
    keep.order(armed(60_000));
    assert_eq!(keep.poll(at(0)), Some(GuardEffect::StartGuard));
    assert!(keep.wake_at() <= at(0), "the socket is to be renamed");
    assert_eq!(keep.poll(at(0)), Some(GuardEffect::NameArmed));
    assert_eq!((keep.poll(at(0)), keep.wake_at()), (None, at(100)));
    let kill = GuardEffect::KillPostgres { target: (), sequence: 2, without_guard: true };
    assert_eq!(keep.poll(at(3_000)), Some(kill));
    let mut late = KeepGuard::<()>::new(false);
    late.order(armed(1_000));
    assert_eq!(late.poll(at(600)), Some(GuardEffect::StopPostgres(())));
    let kill = GuardEffect::KillPostgres { target: (), sequence: 2, without_guard: false };
    assert_eq!(late.poll(at(1_000)), Some(kill));
    late.handle(GuardEvent::NoneLeft { sequence: 2 }, at(1_001));
    assert_eq!(late.poll(at(1_020)), Some(GuardEffect::StartGuard), "it is dead");
}

#[test]
fn past_its_deadline_postgres_is_killed_with_or_without_a_guard() {
    let mut driver = Driver::new(false);
    driver.run(at(0));
    driver.keep.order(armed(1_000));
    assert_eq!(driver.run(at(1)), "name arm held");
    assert_eq!(driver.run(at(600)), "ask", "the guard stops it");
    assert_eq!(driver.run(at(1_000)), "kill");
}
