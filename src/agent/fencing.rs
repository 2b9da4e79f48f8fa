//! Keeps the guard armed exactly while Postgres may accept writes.
//!
//! The lease's own thread arms it with every confirmed renewal; the loop says whether it is wanted at all. Both go
//! through one lock, so that a renewal cannot arm it behind the back of a demotion. None of them waits for the guard,
//! but a promotion, which goes on only when the guard has acknowledged.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::fence::{Deadlines, FenceError, Found, Link, LinkSetup};
use crate::model::{Leading, LeaseFacts, LeaseTiming, Moment};
use crate::postgres::Postgres;

/// A guard acknowledges within a millisecond; one that takes this long cannot be counted on.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_millis(500);
/// At the end of the supervisor.
const LEAVES_WITHIN: Duration = Duration::from_millis(500);

/// The guard with its switch.
pub(super) struct Fencing {
    link: Link,
    postgres: Postgres,
    wanted: Mutex<bool>,
}

impl Fencing {
    /// Starts a guard; also says what a former supervisor left behind.
    pub(super) fn start(postgres: &Postgres, setup: LinkSetup) -> Result<(Fencing, Found), FenceError> {
        let (link, found) = Link::start(setup)?;
        Ok((Fencing { link, postgres: postgres.clone(), wanted: Mutex::new(false) }, found))
    }

    fn wanted(&self) -> MutexGuard<'_, bool> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While Postgres may be writable: arms with the deadline of `lease` and with every later renewal. False when the
    /// lease does not allow it.
    pub(super) fn want(&self, lease: &LeaseFacts) -> bool {
        let mut wanted = self.wanted();
        *wanted = true;
        self.arm(lease)
    }

    /// Before Postgres may become writable: as [`Fencing::want`], and true only when the guard has acknowledged. Waits
    /// for that, so a runtime has to be told.
    pub(super) fn promise(&self, lease: &LeaseFacts) -> bool {
        let held = self.want(lease) && self.link.holds(ACKNOWLEDGED_WITHIN);
        if !held {
            tracing::warn!("the guard has not confirmed that it is armed: PostgreSQL stays a standby");
        }
        held
    }

    /// A Postgres that runs as a primary was found: it must prove its lease until these deadlines.
    pub(super) fn want_until(&self, deadlines: Deadlines) {
        let mut wanted = self.wanted();
        *wanted = true;
        if let Some(prey) = self.postgres.prey() {
            self.link.arm(deadlines, prey, 0);
        }
    }

    /// A renewal was confirmed (called in the lease's thread).
    pub(super) fn renewed(&self, lease: &LeaseFacts) {
        let wanted = self.wanted();
        if *wanted {
            self.arm(lease);
        }
    }

    /// Postgres is proved to be no primary.
    pub(super) fn unwant(&self) {
        let mut wanted = self.wanted();
        if *wanted {
            *wanted = false;
            self.link.disarm();
        }
    }

    /// At the start: nothing that runs here may be a primary, whatever a former supervisor armed.
    pub(super) fn begin_unarmed(&self) {
        let mut wanted = self.wanted();
        *wanted = false;
        self.link.disarm();
    }

    /// The supervisor ends on purpose. In pause it leaves even a primary alone, without a fence, as asked; otherwise a
    /// guard that is armed stays behind and does what it is there for.
    pub(super) fn leave(&self, on_purpose: bool) {
        let wanted = *self.wanted();
        if wanted && on_purpose {
            tracing::warn!("PostgreSQL goes on as a primary, and nothing fences it while no supervisor runs");
        }
        if on_purpose || !wanted {
            self.link.leave(LEAVES_WITHIN);
        }
    }

    fn arm(&self, lease: &LeaseFacts) -> bool {
        let Some(prey) = self.postgres.prey() else { return false };
        match (lease.leading, lease.deadline) {
            (Leading::Yes(_), Some(deadline)) => {
                self.link.arm(deadlines(lease.ttl, deadline), prey, 0);
                true
            }
            (Leading::Yes(_) | Leading::No | Leading::Unknown, _) => false,
        }
    }
}

fn deadlines(ttl: Duration, deadline: Moment) -> Deadlines {
    let timing = LeaseTiming { ttl };
    Deadlines { stop_at: deadline - timing.demote_before(), kill_at: deadline - timing.kill_before() }
}
