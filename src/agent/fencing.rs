//! Keeps the guard armed exactly while Postgres may accept writes.
//!
//! The lease's own thread arms it with every confirmed renewal; the loop says whether it is wanted at all. Both go
//! through one lock, so that a renewal cannot arm it behind the back of a demotion. None of them waits for the guard,
//! but a promotion, which goes on only when the guard has acknowledged.
//!
//! The machine's watchdog is pinged by the same orders. Where it is required and cannot be used, this member does not
//! lead; that is a rule, and rules live in `decide`: here is only what they ask for.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::fence::{Deadlines, FenceError, Found, GuardFacts, Link, LinkSetup, WatchdogFacts};
use crate::model::{Leading, LeaseFacts, LeaseTiming, Moment, Settings};
use crate::postgres::Postgres;

/// A guard acknowledges within a millisecond; one that takes this long cannot be counted on.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_millis(500);
/// At the end of the supervisor.
const LEAVES_WITHIN: Duration = Duration::from_millis(500);

/// A required watchdog may fail for this long: its device is busy while one guard relieves another.
const WATCHDOG_FAILS_FOR: Duration = Duration::from_secs(3);

/// How the watchdog is used, where there is a device for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WatchdogRule {
    /// Without it this member does not lead.
    pub(super) required: bool,
    /// It fires this long before the lease ends; `None`: after half of the TTL.
    pub(super) safety_margin: Option<Duration>,
}

impl WatchdogRule {
    /// The timeout for a lease of `ttl`; `None` when it would fire between two renewals that are in time.
    fn timeout(self, ttl: Duration) -> Option<Duration> {
        let timing = LeaseTiming { ttl };
        let timeout = self.safety_margin.map_or(ttl / 2, |margin| ttl.saturating_sub(margin));
        let timeout = Duration::from_secs(timeout.as_secs());
        (timing.renew_every() + timing.try_timeout() <= timeout).then_some(timeout)
    }

    /// When it resets the machine if no renewal comes after the one that gave the lease this deadline: counted from
    /// when that one was sent, like the deadline itself, and never after it.
    fn resets_at(self, ttl: Duration, deadline: Moment) -> Option<Moment> {
        let counted = LeaseTiming { ttl }.deadline(Moment::default()).since(Moment::default());
        self.timeout(ttl).map(|timeout| (deadline - counted + timeout + PINGED_WITHIN).min(deadline))
    }
}

/// A renewal takes this long until the watchdog is pinged, and a watchdog counts whole seconds: what is later than this
/// costs it a second.
const PINGED_WITHIN: Duration = Duration::from_millis(250);

/// The guard with its switch.
pub(super) struct Fencing {
    link: Link,
    setup: LinkSetup,
    postgres: Postgres,
    rule: WatchdogRule,
    wanted: Mutex<Wanted>,
}

#[derive(Default)]
struct Wanted {
    armed: bool,
    /// In pause nothing resets the machine.
    paused: bool,
    /// What was last said of the watchdog, to say it once.
    watchdog: WatchdogFacts,
    watchdog_failed_since: Option<Moment>,
}

impl Fencing {
    /// Starts a guard; also says what a former supervisor left behind.
    pub(super) fn start(
        postgres: &Postgres,
        setup: LinkSetup,
        rule: WatchdogRule,
    ) -> Result<(Fencing, Found), FenceError> {
        let (link, found) = Link::start(setup.clone())?;
        Ok((Fencing { link, setup, postgres: postgres.clone(), rule, wanted: Mutex::default() }, found))
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guard as last heard of.
    pub(super) fn facts(&self) -> GuardFacts {
        *self.link.facts().borrow()
    }

    /// Whether this member must not lead, because it cannot use the watchdog that it is required to use. Also takes
    /// note of what the settings say.
    pub(super) fn watchdog_failed(&self, settings: &Settings, now: Moment) -> bool {
        let seen = self.facts().watchdog;
        let mut wanted = self.wanted();
        wanted.paused = settings.pause;
        if seen != wanted.watchdog {
            match (seen, self.rule.required) {
                // A second more or less, as a renewal took longer.
                (WatchdogFacts::Active(_), _) if matches!(wanted.watchdog, WatchdogFacts::Active(_)) => {}
                (WatchdogFacts::Active(after), _) => {
                    tracing::info!(
                        after = after.as_secs(),
                        "the watchdog resets this machine if nobody renews"
                    );
                }
                (WatchdogFacts::Failed(why), true) => tracing::warn!(%why, "the watchdog cannot be used"),
                (WatchdogFacts::Failed(why), false) => tracing::info!(%why, "the watchdog is not used"),
                (WatchdogFacts::Off, _) => {}
            }
            wanted.watchdog = seen;
        }
        let fails = matches!(seen, WatchdogFacts::Failed(_));
        wanted.watchdog_failed_since = wanted.watchdog_failed_since.or(Some(now)).filter(|_| fails);
        if !self.rule.required || settings.pause {
            return false;
        }
        let fails_on = wanted.watchdog_failed_since.is_some_and(|since| since + WATCHDOG_FAILS_FOR <= now);
        fails_on || self.rule.timeout(settings.ttl).is_none() || !self.setup.may_open_watchdog()
    }

    /// While Postgres may be writable: arms with the deadline of `lease` and with every later renewal. False when the
    /// lease does not allow it. The lease is read under the lock: a deadline that was shortened is never undone by one
    /// that was read before.
    pub(super) fn want(&self, lease: impl FnOnce() -> LeaseFacts) -> bool {
        let mut wanted = self.wanted();
        wanted.armed = true;
        self.arm(&lease(), &wanted)
    }

    /// Before Postgres may become writable: as [`Fencing::want`], and true only when the guard has acknowledged. Waits
    /// for that, so a runtime has to be told.
    pub(super) fn promise(&self, lease: impl FnOnce() -> LeaseFacts) -> bool {
        let held = self.want(lease) && self.link.holds(ACKNOWLEDGED_WITHIN);
        if !held {
            tracing::warn!("the guard has not confirmed that it is armed: PostgreSQL stays a standby");
        }
        let watched = matches!(self.facts().watchdog, WatchdogFacts::Active(_))
            || !self.rule.required
            || self.wanted().paused;
        if held && !watched {
            tracing::warn!("the watchdog is required and does not run: PostgreSQL stays a standby");
        }
        held && watched
    }

    /// A Postgres that runs as a primary was found: it must prove its lease until these deadlines.
    pub(super) fn want_until(&self, deadlines: Deadlines) {
        let mut wanted = self.wanted();
        wanted.armed = true;
        if let Some(prey) = self.postgres.prey() {
            self.link.arm(deadlines, prey, None);
        }
    }

    /// A renewal was confirmed (called in the lease's thread).
    pub(super) fn renewed(&self, lease: &LeaseFacts) {
        let wanted = self.wanted();
        if wanted.armed {
            self.arm(lease, &wanted);
        }
    }

    /// Leadership is about to move to another lease: whether the guard, if one is wanted, has acknowledged the deadline
    /// of `lease` (called in the lease's thread). One that is wanted and cannot be armed with it (no renewal shows the
    /// key as mine, say) may hold a later deadline of the former lease.
    pub(super) fn holds(&self, lease: &LeaseFacts) -> bool {
        let armed = {
            let wanted = self.wanted();
            if !wanted.armed {
                return true;
            }
            self.arm(lease, &wanted)
        };
        armed && self.link.holds(ACKNOWLEDGED_WITHIN)
    }

    /// Postgres is proved to be no primary.
    pub(super) fn unwant(&self) {
        let mut wanted = self.wanted();
        if wanted.armed {
            wanted.armed = false;
            self.link.disarm();
        }
    }

    /// At the start: nothing that runs here may be a primary, whatever a former supervisor armed.
    pub(super) fn begin_unarmed(&self) {
        let mut wanted = self.wanted();
        wanted.armed = false;
        self.link.disarm();
    }

    /// The supervisor ends on purpose. In pause it leaves even a primary alone, without a fence, as asked; otherwise a
    /// guard that is armed stays behind and does what it is there for.
    pub(super) fn leave(&self, on_purpose: bool) {
        let wanted = self.wanted().armed;
        if wanted && on_purpose {
            tracing::warn!("PostgreSQL goes on as a primary, and nothing fences it while no supervisor runs");
        }
        if on_purpose || !wanted {
            self.link.leave(LEAVES_WITHIN);
        }
    }

    fn arm(&self, lease: &LeaseFacts, wanted: &Wanted) -> bool {
        let Some(prey) = self.postgres.prey() else { return false };
        match (lease.leading, lease.deadline) {
            (Leading::Yes(_), Some(deadline)) => {
                let watchdog_at = if wanted.paused { None } else { self.rule.resets_at(lease.ttl, deadline) };
                self.link.arm(deadlines(lease.ttl, deadline), prey, watchdog_at);
                true
            }
            (Leading::Yes(_) | Leading::No | Leading::Unknown, _) => false,
        }
    }
}

fn deadlines(ttl: Duration, deadline: Moment) -> Deadlines {
    let timing = LeaseTiming { ttl };
    Deadlines { stop_at: timing.stop_at(deadline), kill_at: timing.kill_at(deadline) }
}

#[cfg(test)]
mod tests {
    use super::*;

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
