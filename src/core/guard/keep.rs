//! The supervisor's side: keeps one guard alive and sends it the newest order.
//!
//! ```text
//!            order(armed or nothing)
//!                     │
//!  Event ──► handle ──┤
//!                     ▼
//!                KeepGuard ──► poll(now): one Effect at a time, from what is true then ──► wake_at
//! ```
//!
//! A driver passes on every answer that has arrived, then asks [`KeepGuard::poll`] for one effect after the other until
//! there is none. An effect is chosen when it is asked for, so it takes orders into account that arrived meanwhile.
//!
//! # Invariants
//!
//! * Every guard, the present one and each replacement, gets the newest order. An order counts as held only while the
//!   guard that acknowledged it is the present one.
//! * The guard's socket has its armed name before the first order to arm is sent. It loses that name only when a guard
//!   has acknowledged that nothing is armed.
//! * A lost guard is ended before another is started, so that it cannot fire at an old deadline.
//! * A former supervisor's guard is dismissed only when the present guard holds an order that was decided.
//! * The driver takes the place of the guard after the deadline, and while deadlines are set that no guard holds: it
//!   kills at the deadline, or at once after [`REPLACE_WITHIN`] without a guard.

use std::time::Duration;

use super::{ArmedDeadlines, GuardAnswer, GuardEffect, GuardEvent, GuardLoss, GuardOrder, GuardPhase};
use crate::model::Moment;

/// The interval between questions to an armed guard. With the time for the answer, a frozen guard is detected after one
/// and a half seconds.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// The interval for a guard that is not armed.
const ASK_IDLE_EVERY: Duration = Duration::from_secs(2);
/// A guard without an answer for this long is frozen.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// The limit for the first answer of a new guard, whose program has to be loaded first.
const FIRST_ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How long a primary may run while no guard can be started, if its deadline is that far ahead.
const REPLACE_WITHIN: Duration = Duration::from_secs(3);
/// The pause after a failed start of a guard, or a failed rename of a socket.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// The interval between kills while the driver itself kills.
const KILL_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// The present guard.
#[derive(Clone, Copy, Debug)]
struct PresentGuard {
    /// The newest order that was sent; `None` before the first.
    sent: Option<u32>,
    /// When the oldest order was sent that is still unanswered, or when the guard was started.
    waiting_since: Option<Moment>,
    /// When it was last asked.
    asked_at: Moment,
    /// It has answered once.
    answered: bool,
}

impl PresentGuard {
    fn frozen_at(&self) -> Option<Moment> {
        let within = if self.answered { ANSWER_WITHIN } else { FIRST_ANSWER_WITHIN };
        self.waiting_since.map(|since| since + within)
    }
}

/// Which socket has the name of an armed guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SocketName {
    /// A socket of a former guard may have it.
    Unknown,
    /// The present one.
    Armed,
    /// None.
    Idle,
}

/// The supervisor's side of the guard's protocol, as the module's head describes it.
#[derive(Clone, Debug)]
pub struct KeepGuard<T> {
    armed: Option<ArmedDeadlines<T>>,
    /// The number of the newest order. It grows from one; zero stands for an unrequested answer.
    sequence: u32,
    /// The newest order that the present guard has acknowledged.
    held: Option<u32>,
    /// The newest order for which [`GuardEffect::Held`] was returned.
    held_said: Option<u32>,
    /// An order was given: the guard of a former supervisor may end once it is acknowledged.
    decided: bool,
    present: Option<PresentGuard>,
    /// The present guard's connection is closed.
    closed: bool,
    predecessor: bool,
    name: SocketName,
    /// The socket is not renamed before.
    rename_at: Moment,
    /// No guard is started before.
    start_at: Moment,
    /// Since when armed deadlines have no guard.
    lost_at: Option<Moment>,
    /// A guard was lost while it was armed.
    replacing: bool,
    /// The order whose target is known to be dead.
    killed: Option<u32>,
    /// The driver does not kill again before.
    kill_again_at: Moment,
}

impl<T: Copy + PartialEq> KeepGuard<T> {
    /// Without a guard and an order. `predecessor`: a former supervisor's guard may still exist.
    pub fn new(predecessor: bool) -> KeepGuard<T> {
        KeepGuard {
            armed: None,
            sequence: 1,
            held: None,
            held_said: None,
            decided: false,
            present: None,
            closed: false,
            predecessor,
            name: SocketName::Unknown,
            rename_at: Moment::default(),
            start_at: Moment::default(),
            lost_at: None,
            replacing: false,
            killed: None,
            kill_again_at: Moment::default(),
        }
    }

    /// Replaces the armed deadlines; `None`: no process is to be killed. True when that is a change, and the driver has
    /// to be woken.
    pub fn order(&mut self, armed: Option<ArmedDeadlines<T>>) -> bool {
        let news = self.armed != armed || !self.decided;
        if news {
            self.armed = armed;
            self.sequence += 1;
            self.decided = true;
        }
        news
    }

    /// The armed deadlines.
    pub fn armed(&self) -> Option<&ArmedDeadlines<T>> {
        self.armed.as_ref()
    }

    /// The number of the newest order.
    pub fn sequence(&self) -> u32 {
        self.sequence
    }

    /// Whether the present guard has acknowledged this order or a newer one.
    pub fn holds(&self, sequence: u32) -> bool {
        self.held.is_some_and(|held| sequence <= held)
    }

    /// Records an event.
    pub fn handle(&mut self, event: GuardEvent, now: Moment) {
        match event {
            GuardEvent::Started => {
                let waiting_since = Some(now);
                self.present =
                    Some(PresentGuard { sent: None, waiting_since, asked_at: now, answered: false });
                self.closed = false;
            }
            GuardEvent::Answered(answer) => self.answered(answer),
            GuardEvent::Closed => self.closed = true,
            GuardEvent::Renamed { armed } => {
                self.name = if armed { SocketName::Armed } else { SocketName::Idle };
                self.rename_at = Moment::default();
            }
            GuardEvent::NoneLeft { sequence } => self.killed = Some(sequence),
        }
    }

    fn answered(&mut self, answer: GuardAnswer) {
        let Some(present) = &mut self.present else { return };
        present.answered = true;
        // Zero: the answer was not requested.
        if answer.sequence != 0 {
            present.waiting_since = None;
        }
        let agrees = match &self.armed {
            Some(armed) => answer.phase == GuardPhase::Armed && answer.deadlines == armed.deadlines,
            None => answer.phase == GuardPhase::Idle,
        };
        if agrees && answer.sequence == self.sequence && present.sent == Some(self.sequence) {
            self.held = Some(self.sequence);
            self.lost_at = None;
        }
    }

    /// The next effect; `None`: none before [`KeepGuard::wake_at`], unless an event comes.
    pub fn poll(&mut self, now: Moment) -> Option<GuardEffect<T>> {
        let effect = self.stop_or_kill(now);
        let effect = effect.or_else(|| self.end_lost_guard(now)).or_else(|| self.start(now));
        effect
            .or_else(|| self.name_armed(now))
            .or_else(|| self.send(now))
            .or_else(|| self.after_acknowledgement(now))
    }

    /// The armed deadlines, unless their target is known to be dead.
    fn to_fence(&self) -> Option<&ArmedDeadlines<T>> {
        self.armed.as_ref().filter(|_| self.killed != Some(self.sequence))
    }

    fn stop_or_kill(&mut self, now: Moment) -> Option<GuardEffect<T>> {
        let Some(armed) = self.to_fence() else {
            self.lost_at = None;
            return None;
        };
        let (deadlines, target) = (armed.deadlines, armed.target);
        if self.held.is_none() {
            self.lost_at = self.lost_at.or(Some(now));
        }
        if now < self.kill_again_at {
            return None;
        }
        let without_guard = self.lost_at.is_some_and(|at| at + REPLACE_WITHIN <= now);
        let effect = if without_guard || deadlines.kill_at <= now {
            GuardEffect::KillPostgres { target, sequence: self.sequence, without_guard }
        } else if deadlines.stop_at <= now && self.held.is_none() {
            GuardEffect::StopPostgres(target)
        } else {
            return None;
        };
        self.kill_again_at = now + KILL_AGAIN_AFTER;
        Some(effect)
    }

    /// Ends a guard that does not count any more.
    fn end_lost_guard(&mut self, now: Moment) -> Option<GuardEffect<T>> {
        let present = self.present.as_ref()?;
        let frozen = present.frozen_at().is_some_and(|at| at <= now);
        let lost = match (self.closed, frozen) {
            (true, _) => GuardLoss::Died,
            (false, true) => GuardLoss::Frozen,
            (false, false) => return None,
        };
        // The first restart is immediate. A guard that died before its first answer is not restarted in a tight loop.
        self.start_at = if present.answered { now } else { now + TRY_AGAIN_AFTER };
        (self.present, self.held, self.held_said) = (None, None, None);
        let armed = self.armed.is_some();
        if armed {
            self.replacing = true;
            self.lost_at = self.lost_at.or(Some(now));
        }
        Some(GuardEffect::EndGuard { lost, armed })
    }

    fn start(&mut self, now: Moment) -> Option<GuardEffect<T>> {
        if self.present.is_some() || now < self.start_at {
            return None;
        }
        self.start_at = now + TRY_AGAIN_AFTER;
        Some(GuardEffect::StartGuard)
    }

    fn name_armed(&mut self, now: Moment) -> Option<GuardEffect<T>> {
        let wanted = self.armed.is_some() && self.name != SocketName::Armed;
        wanted.then(|| self.rename(GuardEffect::NameArmed, now))?
    }

    fn rename(&mut self, effect: GuardEffect<T>, now: Moment) -> Option<GuardEffect<T>> {
        if now < self.rename_at {
            return None;
        }
        self.rename_at = now + TRY_AGAIN_AFTER;
        Some(effect)
    }

    /// Sends the guard an order that it does not have yet, or asks for its state.
    fn send(&mut self, now: Moment) -> Option<GuardEffect<T>> {
        let every = self.ask_every();
        let order = match self.armed {
            Some(_) if self.name != SocketName::Armed => None,
            Some(armed) => Some(GuardOrder::Arm(armed)),
            None if self.decided => Some(GuardOrder::Disarm),
            None => Some(GuardOrder::Ask),
        };
        let sequence = self.sequence;
        let present = self.present.as_mut()?;
        let order = match order.filter(|_| present.sent != Some(sequence)) {
            Some(order) => {
                present.sent = Some(sequence);
                order
            }
            None if present.asked_at + every <= now => GuardOrder::Ask,
            None => return None,
        };
        present.asked_at = now;
        present.waiting_since = present.waiting_since.or(Some(now));
        Some(GuardEffect::Send { sequence, order })
    }

    /// The effects that follow an acknowledged order.
    fn after_acknowledgement(&mut self, now: Moment) -> Option<GuardEffect<T>> {
        if self.held_said != self.held {
            // Also when another order came meanwhile: a thread may wait for this one.
            self.held_said = self.held;
            return Some(GuardEffect::Held { replaced: std::mem::take(&mut self.replacing) });
        }
        if self.held != Some(self.sequence) || !self.decided {
            return None;
        }
        if std::mem::take(&mut self.predecessor) {
            // The predecessor's watchdog becomes free only now. The order is sent again, so that the present guard
            // opens it.
            if let Some(present) = &mut self.present {
                present.sent = None;
            }
            return Some(GuardEffect::DismissPredecessor);
        }
        let stale = self.armed.is_none() && self.name != SocketName::Idle;
        let ours = self.name == SocketName::Armed;
        stale.then(|| self.rename(GuardEffect::NameIdle { ours }, now))?
    }

    fn ask_every(&self) -> Duration {
        if self.armed.is_some() { ASK_EVERY } else { ASK_IDLE_EVERY }
    }

    /// When to ask for effects again without any event.
    pub fn wake_at(&self) -> Moment {
        let mut next = match &self.present {
            None => self.start_at,
            Some(present) => {
                let ask_at = present.asked_at + self.ask_every();
                present.frozen_at().map_or(ask_at, |at| at.min(ask_at))
            }
        };
        if let Some(armed) = self.to_fence() {
            let lost = self.lost_at.map(|at| at + REPLACE_WITHIN);
            let stop = Some(armed.deadlines.stop_at).filter(|_| self.held.is_none());
            let fence = [lost, stop].into_iter().flatten().fold(armed.deadlines.kill_at, Moment::min);
            next = next.min(fence.max(self.kill_again_at));
        }
        let unnamed = if self.armed.is_some() {
            self.name != SocketName::Armed
        } else {
            self.name != SocketName::Idle && self.decided && self.held == Some(self.sequence)
        };
        if unnamed { next.min(self.rename_at) } else { next }
    }
}

#[cfg(test)]
mod tests;
