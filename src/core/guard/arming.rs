//! The arming of the guard by the lease: PostgreSQL may accept writes only while a guard is armed.
//!
//! The lease's thread and the loop go through one [`Arming`], so that a renewal cannot arm a guard behind the back of a
//! demotion.

use std::time::Duration;

use super::{ArmedDeadlines, Deadlines};
use crate::model::{Leading, LeaseFacts, LeaseTiming, Moment, Settings};

/// A required watchdog may fail for this long: its device is busy while one guard replaces another.
const WATCHDOG_FAILS_FOR: Duration = Duration::from_secs(3);
/// The longest time from a renewal until the watchdog is pinged. A watchdog counts whole seconds, so a later ping costs
/// one second.
const PINGED_WITHIN: Duration = Duration::from_millis(250);

/// How the watchdog is used, where there is a device for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchdogRule {
    /// Whether this member must not lead without it.
    pub required: bool,
    /// It resets the machine this long before the lease ends; `None`: after half of the TTL.
    pub safety_margin: Option<Duration>,
}

impl WatchdogRule {
    /// The timeout for a lease of `ttl`; `None` when it would fire between two renewals that are in time.
    pub fn timeout(self, ttl: Duration) -> Option<Duration> {
        let timing = LeaseTiming { ttl };
        let timeout = self.safety_margin.map_or(ttl / 2, |margin| ttl.saturating_sub(margin));
        let timeout = Duration::from_secs(timeout.as_secs());
        (timing.renew_every() + timing.try_timeout() <= timeout).then_some(timeout)
    }

    /// When it resets the machine if no renewal follows the one behind this deadline. It counts from the time at which
    /// that renewal was sent, like the deadline itself, and is never after the deadline.
    fn resets_at(self, ttl: Duration, deadline: Moment) -> Option<Moment> {
        let counted = LeaseTiming { ttl }.deadline(Moment::default()).since(Moment::default());
        self.timeout(ttl).map(|timeout| (deadline - counted + timeout + PINGED_WITHIN).min(deadline))
    }
}

/// The state of the watchdog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WatchdogState {
    /// It is not used, or not needed now.
    #[default]
    Off,
    /// It resets the machine unless it is pinged.
    Active,
    /// It is wanted and cannot be used.
    Failed,
}

/// The condition that a change to another lease requires of the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseMoveArming<T> {
    /// None: the guard is not armed.
    Free,
    /// The guard has to acknowledge these deadlines.
    Acknowledged(ArmedDeadlines<T>),
    /// The guard is needed and cannot be armed with the new deadline (for example, no renewal shows the leader key as
    /// this member's). It may have a later deadline of the former lease.
    Refused,
}

/// Whether a guard is needed, and by which rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arming {
    wanted: bool,
    /// In pause the watchdog is not used.
    paused: bool,
    rule: WatchdogRule,
    watchdog_failed_since: Option<Moment>,
}

impl Arming {
    /// No guard is needed yet.
    pub fn new(rule: WatchdogRule) -> Arming {
        Arming { rule, ..Arming::default() }
    }

    /// Whether PostgreSQL may be a primary, by the last report.
    pub fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Records that PostgreSQL may accept writes from now on. The result arms the guard, and every later renewal arms
    /// it again. `None` when the lease does not allow it, or no process runs.
    pub fn want<T>(&mut self, lease: &LeaseFacts, target: Option<T>) -> Option<ArmedDeadlines<T>> {
        self.wanted = true;
        self.renewed(lease, target)
    }

    /// Records a PostgreSQL that was found running as a primary: its lease has to be confirmed before these deadlines.
    pub fn want_until<T>(&mut self, deadlines: Deadlines, target: Option<T>) -> Option<ArmedDeadlines<T>> {
        self.wanted = true;
        target.map(|target| ArmedDeadlines { deadlines, target, watchdog_at: None })
    }

    /// The deadlines to arm after a confirmed renewal.
    pub fn renewed<T>(&self, lease: &LeaseFacts, target: Option<T>) -> Option<ArmedDeadlines<T>> {
        match (lease.leading, lease.covered_until(), target) {
            (Leading::Yes(_), Some(deadline), Some(target)) if self.wanted => Some(ArmedDeadlines {
                deadlines: Deadlines::of_lease(LeaseTiming { ttl: lease.ttl }, deadline),
                target,
                watchdog_at: if self.paused { None } else { self.rule.resets_at(lease.ttl, deadline) },
            }),
            (Leading::Yes(_) | Leading::No | Leading::Unknown, _, _) => None,
        }
    }

    /// Leadership is about to move to another lease, with the deadline of `lease`.
    pub fn moving<T>(&self, lease: &LeaseFacts, target: Option<T>) -> LeaseMoveArming<T> {
        match (self.wanted, self.renewed(lease, target)) {
            (false, _) => LeaseMoveArming::Free,
            (true, Some(armed)) => LeaseMoveArming::Acknowledged(armed),
            (true, None) => LeaseMoveArming::Refused,
        }
    }

    /// Records that PostgreSQL is certainly no primary; true when the guard has to be disarmed for that.
    pub fn unwant(&mut self) -> bool {
        std::mem::take(&mut self.wanted)
    }

    /// Whether an acknowledged guard suffices for a promotion.
    pub fn may_promote(&self, watchdog: WatchdogState) -> bool {
        watchdog == WatchdogState::Active || !self.rule.required || self.paused
    }

    /// Whether this member must not lead because it cannot use a required watchdog. Takes over the settings.
    /// `may_open`: the device can be opened.
    pub fn watchdog_failed(
        &mut self,
        watchdog: WatchdogState,
        may_open: bool,
        settings: &Settings,
        now: Moment,
    ) -> bool {
        self.paused = settings.pause;
        let fails = watchdog == WatchdogState::Failed;
        self.watchdog_failed_since = self.watchdog_failed_since.or(Some(now)).filter(|_| fails);
        if !self.rule.required || settings.pause {
            return false;
        }
        let fails_on = self.watchdog_failed_since.is_some_and(|since| since + WATCHDOG_FAILS_FOR <= now);
        fails_on || self.rule.timeout(settings.ttl).is_none() || !may_open
    }

    /// Whether the guard ends with the supervisor. An armed guard stays, unless a primary is left running on purpose.
    pub fn leaves(&self, on_purpose: bool) -> bool {
        on_purpose || !self.wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Term;

    fn leading(deadline: Option<Moment>) -> LeaseFacts {
        let ttl = Duration::from_secs(10);
        LeaseFacts { leading: Leading::Yes(Term(3)), deadline, ttl, ..LeaseFacts::default() }
    }

    #[test]
    fn a_renewal_arms_only_while_a_primary_is_wanted() {
        let lease = leading(Some(Moment::from_millis(50_000)));
        let mut arming = Arming::default();
        assert_eq!(arming.renewed(&lease, Some(())), None);
        assert_eq!(arming.moving(&lease, Some(())), LeaseMoveArming::Free);
        let armed = arming.want(&lease, Some(())).expect("the lease allows it");
        assert_eq!(arming.renewed(&lease, Some(())), Some(armed));
        assert!(arming.unwant() && !arming.unwant());
        assert_eq!(arming.renewed(&lease, Some(())), None, "a renewal that comes after the demotion");
    }

    #[test]
    fn a_lease_moves_only_when_the_guard_can_be_armed_with_its_deadline() {
        let mut arming = Arming::default();
        assert!(arming.want(&leading(None), Some(())).is_none() && arming.is_wanted());
        assert_eq!(arming.moving(&leading(None), Some(())), LeaseMoveArming::Refused);
        let proved = leading(Some(Moment::from_millis(50_000)));
        assert!(matches!(arming.moving(&proved, Some(())), LeaseMoveArming::Acknowledged(_)));
        assert_eq!(
            arming.moving(&proved, None::<()>),
            LeaseMoveArming::Refused,
            "nothing runs that could be killed"
        );
        let not_mine = LeaseFacts { leading: Leading::No, ..proved };
        assert_eq!(arming.moving(&not_mine, Some(())), LeaseMoveArming::Refused);
    }

    #[test]
    fn the_watchdog_fires_before_the_lease_ends_and_not_between_two_renewals() {
        let timeout = |margin: Option<u64>, ttl| {
            let rule = WatchdogRule { required: true, safety_margin: margin.map(Duration::from_secs) };
            rule.timeout(Duration::from_secs(ttl)).map(|timeout| timeout.as_secs())
        };
        assert_eq!(timeout(Some(5), 20), Some(15));
        assert_eq!(timeout(Some(5), 10), Some(5));
        assert_eq!(timeout(None, 30), Some(15));
        assert_eq!(timeout(Some(5), 5), None);
        assert_eq!(timeout(Some(100), 30), None);
    }

    #[test]
    fn the_watchdog_counts_from_when_the_renewal_was_sent() {
        let sent_at = Moment::from_millis(100_000);
        let resets_after = |margin: u64, ttl| {
            let rule = WatchdogRule { required: true, safety_margin: Some(Duration::from_secs(margin)) };
            let ttl = Duration::from_secs(ttl);
            rule.resets_at(ttl, LeaseTiming { ttl }.deadline(sent_at)).map(|at| at.since(sent_at).as_millis())
        };
        assert_eq!(resets_after(5, 30), Some(25_250));
        assert_eq!(resets_after(0, 30), Some(29_650), "never after the deadline");
        assert_eq!(resets_after(5, 5), None);
    }
}
