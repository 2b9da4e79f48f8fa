//! Keeps the fence armed exactly while Postgres may accept writes.
//!
//! The lease's own thread arms it with every confirmed renewal; the loop says whether it is wanted at all. Both go
//! through one lock, so that a renewal cannot arm it behind the back of a demotion.

use std::sync::{Mutex, PoisonError};

use crate::model::{Leading, LeaseFacts, LeaseTiming, Moment};
use crate::postgres::Fence;

/// The fence with its switch.
pub(super) struct Fencing {
    fence: Fence,
    wanted: Mutex<bool>,
}

impl Fencing {
    pub(super) fn new(fence: Fence) -> Fencing {
        Fencing { fence, wanted: Mutex::new(false) }
    }

    /// Before Postgres may become writable: arms with the deadline of `lease` and with every later renewal.
    /// False when the lease does not allow it.
    pub(super) fn want(&self, lease: &LeaseFacts) -> bool {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        *wanted = true;
        self.arm(lease)
    }

    /// A Postgres that runs as a primary was found: it must prove its lease until `by`.
    pub(super) fn want_until(&self, by: Moment) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        *wanted = true;
        self.fence.arm(by, by);
    }

    /// A renewal was confirmed (called in the lease's thread).
    pub(super) fn renewed(&self, lease: &LeaseFacts) {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if *wanted {
            self.arm(lease);
        }
    }

    /// Postgres is proved to be no primary.
    pub(super) fn unwant(&self) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if *wanted {
            *wanted = false;
            self.fence.disarm();
        }
    }

    fn arm(&self, lease: &LeaseFacts) -> bool {
        match (lease.leading, lease.deadline) {
            (Leading::Yes(_), Some(deadline)) => {
                let timing = LeaseTiming { ttl: lease.ttl };
                self.fence.arm(deadline - timing.demote_before(), deadline - timing.kill_before());
                true
            }
            (Leading::Yes(_) | Leading::No | Leading::Unknown, _) => false,
        }
    }
}
