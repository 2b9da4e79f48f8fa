//! Keeps the guard armed exactly while Postgres may accept writes: `src/agent/fencing.rs`.

use std::time::Duration;

use matriarch::model::{Leading, LeaseFacts, LeaseTiming, Process};

use super::Agent;
use crate::sim::guard::Deadlines;
use crate::sim::mutation::Mutation;

const ACKNOWLEDGED_WITHIN: Duration = Duration::from_millis(500);

impl Agent {
    fn prey(&self) -> bool {
        matches!(*self.shared.process.borrow(), Process::Up { .. })
    }

    fn arm(&self, lease: &LeaseFacts) -> bool {
        if !self.prey() {
            return false;
        }
        match (lease.leading, lease.deadline) {
            (Leading::Yes(_), Some(deadline)) => {
                let timing = LeaseTiming { ttl: lease.ttl };
                self.order(Some(Deadlines {
                    stop_at: deadline - timing.demote_before(),
                    kill_at: deadline - timing.kill_before(),
                }));
                true
            }
            (Leading::Yes(_) | Leading::No | Leading::Unknown, _) => false,
        }
    }

    pub(crate) fn want(&self, lease: &LeaseFacts) -> bool {
        self.shared.wanted.set(true);
        self.arm(lease)
    }

    /// As [`Agent::want`], and true only when the guard has acknowledged.
    pub(crate) async fn promise(&self, lease: &LeaseFacts) -> bool {
        if self.sim.world().options.mutation == Some(Mutation::NoGuard) {
            return true;
        }
        self.want(lease) && self.holds(ACKNOWLEDGED_WITHIN).await
    }

    pub(crate) fn want_until(&self, deadlines: Deadlines) {
        self.shared.wanted.set(true);
        if self.prey() {
            self.order(Some(deadlines));
        }
    }

    /// A renewal was confirmed.
    pub(crate) fn renewed(&self, lease: &LeaseFacts) {
        if self.shared.wanted.get() {
            self.arm(lease);
        }
    }

    /// Leadership is about to move to another lease: whether the guard, if one is wanted, has acknowledged the deadline
    /// of `lease`.
    pub(crate) async fn holds_deadline(&self, lease: &LeaseFacts) -> bool {
        !self.shared.wanted.get() || (self.arm(lease) && self.holds(ACKNOWLEDGED_WITHIN).await)
    }

    pub(crate) fn unwant(&self) {
        if self.shared.wanted.replace(false) {
            self.order(None);
        }
    }

    pub(crate) fn begin_unarmed(&self) {
        self.shared.wanted.set(false);
        self.order(None);
    }
}
