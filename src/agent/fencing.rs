//! Keeps the guard armed exactly while Postgres may accept writes.
//!
//! The lease's thread arms the guard with every confirmed renewal; the loop says whether a guard is wanted at all. Both
//! go through one lock, so a renewal cannot arm the guard again during a demotion. Only a promotion waits for the
//! guard: it goes on when the guard has acknowledged.
//!
//! The same orders ping the machine's watchdog. The rules (what arms the guard, what a promotion or a change of the
//! lease needs) are in [`Arming`]; this file only gives access to it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(super) use crate::core::guard::WatchdogRule;
use crate::core::guard::{ArmedDeadlines, Arming, LeaseMoveArming};
use crate::fence::{Deadlines, FenceError, Found, GuardFacts, Link, LinkSetup, WatchdogFacts};
use crate::model::{LeaseFacts, Moment, Settings};
use crate::os::postgres_processes::PostgresProcesses;
use crate::postgres::Postgres;

/// A guard acknowledges within a millisecond. One that takes this long is unreliable.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_millis(500);
/// How long the supervisor's end waits for the guard.
const LEAVES_WITHIN: Duration = Duration::from_millis(500);

/// The guard, and the rules for arming it.
pub(super) struct Fencing {
    link: Link,
    setup: LinkSetup,
    postgres: Postgres,
    required: bool,
    arming: Mutex<Arming>,
    /// The state of the watchdog that was logged last.
    watchdog: Mutex<WatchdogFacts>,
}

impl Fencing {
    /// Starts a guard; also returns what a former supervisor left behind.
    pub(super) fn start(
        postgres: &Postgres,
        setup: LinkSetup,
        rule: WatchdogRule,
    ) -> Result<(Fencing, Found), FenceError> {
        let (link, found) = Link::start(setup.clone())?;
        let arming = Mutex::new(Arming::new(rule));
        let (postgres, required) = (postgres.clone(), rule.required);
        Ok((Fencing { link, setup, postgres, required, arming, watchdog: Mutex::default() }, found))
    }

    fn arming(&self) -> MutexGuard<'_, Arming> {
        self.arming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guard, by its last answer.
    pub(super) fn facts(&self) -> GuardFacts {
        *self.link.facts().borrow()
    }

    /// Whether this member must not lead because it cannot use a required watchdog. Also takes over the settings.
    pub(super) fn watchdog_failed(&self, settings: &Settings, now: Moment) -> bool {
        let seen = self.facts().watchdog;
        self.say_watchdog(seen);
        let may_open = !self.required || self.setup.may_open_watchdog();
        self.arming().watchdog_failed(seen.state(), may_open, settings, now)
    }

    fn say_watchdog(&self, seen: WatchdogFacts) {
        let mut said = self.watchdog.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *said, seen);
        if seen == before {
            return;
        }
        match (seen, self.required) {
            // A change by one second, because a renewal took longer.
            (WatchdogFacts::Active(_), _) if matches!(before, WatchdogFacts::Active(_)) => {}
            (WatchdogFacts::Active(after), _) => {
                tracing::info!(
                    after = after.as_secs(),
                    "the watchdog resets this machine unless the lease is renewed"
                );
            }
            (WatchdogFacts::Failed(why), true) => tracing::warn!(%why, "the watchdog cannot be used"),
            (WatchdogFacts::Failed(why), false) => tracing::info!(%why, "the watchdog is not used"),
            (WatchdogFacts::Off, _) => {}
        }
    }

    /// Arms the guard with the deadline of `lease` and with every later renewal, because Postgres may accept writes.
    /// False when the lease does not allow it. The lease is read under the lock, so that a shortened deadline is never
    /// replaced by one that was read before.
    pub(super) fn want(&self, lease: impl FnOnce() -> LeaseFacts) -> bool {
        let mut arming = self.arming();
        self.arm(arming.want(&lease(), self.postgres.processes()))
    }

    /// To be called before Postgres may accept writes: as [`Fencing::want`], and true only when the guard has
    /// acknowledged. Blocks the thread until then.
    pub(super) fn promise(&self, lease: impl FnOnce() -> LeaseFacts) -> bool {
        let held = self.want(lease) && self.link.holds(ACKNOWLEDGED_WITHIN);
        if !held {
            tracing::warn!(
                "the guard has not confirmed that it is armed: PostgreSQL does not become a primary"
            );
        }
        let watched = self.arming().may_promote(self.facts().watchdog.state());
        if held && !watched {
            tracing::warn!("the watchdog is required and not active: PostgreSQL does not become a primary");
        }
        held && watched
    }

    /// Records a Postgres that was found running as a primary: its lease has to be confirmed before these deadlines.
    pub(super) fn want_until(&self, deadlines: Deadlines) {
        let mut arming = self.arming();
        self.arm(arming.want_until(deadlines, self.postgres.processes()));
    }

    /// Arms the guard after a confirmed renewal (called in the lease's thread).
    pub(super) fn renewed(&self, lease: &LeaseFacts) {
        let arming = self.arming();
        self.arm(arming.renewed(lease, self.postgres.processes()));
    }

    /// Whether the guard, if it is needed, has acknowledged the deadline of `lease`, to which leadership is about to
    /// move (called in the lease's thread).
    pub(super) fn holds(&self, lease: &LeaseFacts) -> bool {
        {
            let arming = self.arming();
            match arming.moving(lease, self.postgres.processes()) {
                LeaseMoveArming::Free => return true,
                LeaseMoveArming::Refused => return false,
                LeaseMoveArming::Acknowledged(armed) => self.link.arm(armed),
            }
        }
        self.link.holds(ACKNOWLEDGED_WITHIN)
    }

    /// Disarms the guard: Postgres is certainly no primary.
    pub(super) fn unwant(&self) {
        let mut arming = self.arming();
        if arming.unwant() {
            self.link.disarm();
        }
    }

    /// Disarms the guard at the start: no Postgres here may be a primary, whatever a former supervisor armed.
    pub(super) fn begin_unarmed(&self) {
        let mut arming = self.arming();
        arming.unwant();
        self.link.disarm();
    }

    /// The supervisor ends. On purpose in pause, it leaves even a primary running unfenced. Otherwise an armed guard
    /// stays behind and kills at its deadline.
    pub(super) fn leave(&self, on_purpose: bool) {
        let arming = *self.arming();
        if arming.is_wanted() && on_purpose {
            tracing::warn!(
                "PostgreSQL continues as a primary, and no guard fences it until a supervisor runs"
            );
        }
        if arming.leaves(on_purpose) {
            self.link.leave(LEAVES_WITHIN);
        }
    }

    /// To be called with the lock on `arming`, so that orders are given in the order of the decisions.
    fn arm(&self, armed: Option<ArmedDeadlines<PostgresProcesses>>) -> bool {
        if let Some(armed) = armed {
            self.link.arm(armed);
        }
        armed.is_some()
    }
}
