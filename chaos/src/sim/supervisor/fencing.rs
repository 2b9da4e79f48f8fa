//! Keeps the guard armed exactly while Postgres may accept writes: the door to the product's own rules, as
//! `src/agent/fencing.rs` is.

use std::time::Duration;

use matriarch::core::guard::{ArmedDeadlines, Deadlines, LeaseMoveArming};
use matriarch::model::{LeaseFacts, Process};

use super::Agent;
use crate::sim::mutation::Mutation;

const ACKNOWLEDGED_WITHIN: Duration = Duration::from_millis(500);

impl Agent {
    /// What would be killed, if something runs.
    fn target(&self) -> Option<()> {
        matches!(*self.shared.process.borrow(), Process::Up { .. }).then_some(())
    }

    fn arm(&self, armed: Option<ArmedDeadlines<()>>) -> bool {
        if armed.is_some() {
            self.order(armed);
        }
        armed.is_some()
    }

    pub(crate) fn want(&self, lease: &LeaseFacts) -> bool {
        let armed = self.shared.arming.borrow_mut().want(lease, self.target());
        self.arm(armed)
    }

    /// As [`Agent::want`], and true only when the guard has acknowledged.
    pub(crate) async fn promise(&self, lease: &LeaseFacts) -> bool {
        if self.sim.world().options.mutation == Some(Mutation::NoGuard) {
            return true;
        }
        self.want(lease) && self.holds(ACKNOWLEDGED_WITHIN).await
    }

    pub(crate) fn want_until(&self, deadlines: Deadlines) {
        let armed = self.shared.arming.borrow_mut().want_until(deadlines, self.target());
        self.arm(armed);
    }

    /// A renewal was confirmed.
    pub(crate) fn renewed(&self, lease: &LeaseFacts) {
        let armed = self.shared.arming.borrow().renewed(lease, self.target());
        self.arm(armed);
    }

    /// Leadership is about to move to another lease: whether the guard, if one is wanted, has acknowledged the deadline
    /// of `lease`.
    pub(crate) async fn holds_deadline(&self, lease: &LeaseFacts) -> bool {
        let needed = self.shared.arming.borrow().moving(lease, self.target());
        match needed {
            LeaseMoveArming::Free => true,
            LeaseMoveArming::Refused => false,
            LeaseMoveArming::Acknowledged(armed) => {
                self.order(Some(armed));
                self.holds(ACKNOWLEDGED_WITHIN).await
            }
        }
    }

    pub(crate) fn unwant(&self) {
        if self.shared.arming.borrow_mut().unwant() {
            self.order(None);
        }
    }

    pub(crate) fn begin_unarmed(&self) {
        self.shared.arming.borrow_mut().unwant();
        self.order(None);
    }

    /// The supervisor ends: whether its guard goes, too.
    pub(crate) fn guard_leaves(&self, on_purpose: bool) -> bool {
        self.shared.arming.borrow().leaves(on_purpose)
    }
}
