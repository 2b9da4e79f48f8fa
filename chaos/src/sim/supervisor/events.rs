//! What wakes the loop: `src/agent/events.rs`.

use matriarch::core::member::{Levels, MemberEvent};
use matriarch::model::{LeaderHearing, Leading, LeaseId, LivenessVerdict, Moment, PodEnd, Process};

use super::cycle::Cycle;

/// The levels whose every change wakes the loop.
#[derive(PartialEq)]
pub(super) struct WakeLevels {
    process: Process,
    verdict: LivenessVerdict,
    leading: Leading,
    lease: Option<LeaseId>,
    refused: bool,
    hearing: LeaderHearing,
    view_version: u64,
    shutting_down: bool,
    pod_end: Option<PodEnd>,
}

impl Cycle {
    pub(super) async fn wait(&mut self, wake_at: Moment) {
        let wake_at = self.agent.sim.when(self.agent.member(), wake_at);
        let shared = self.agent.shared.clone();
        loop {
            let newest = Some(self.newest());
            if newest != self.seen {
                self.seen = newest;
                return self.arrived.push(MemberEvent::LevelChanged);
            }
            let reported = !shared.events.borrow().is_empty()
                || !shared.requests.borrow().is_empty()
                || !shared.lookers.borrow().is_empty()
                || shared.password_changed.get();
            if reported {
                return;
            }
            if wake_at <= self.agent.sim.now() {
                return self.arrived.push(MemberEvent::Woke);
            }
            let bell = shared.bell.wait(&self.agent.sim.exec);
            self.agent.sim.exec.by(wake_at, bell).await;
        }
    }

    fn newest(&self) -> WakeLevels {
        let shared = &self.agent.shared;
        let lease = shared.lease.borrow();
        WakeLevels {
            process: shared.process.borrow().clone(),
            verdict: shared.verdict.borrow().clone(),
            leading: lease.leading,
            lease: lease.lease,
            refused: shared.etcd.writes().refused.is_some(),
            hearing: shared.heard.get(),
            view_version: shared.view_version.get(),
            shutting_down: shared.shutting_down.get(),
            pod_end: self.agent.sim.world().machines[self.agent.member()].pod_end,
        }
    }

    /// A decision has seen these.
    pub(super) fn saw(&mut self, levels: &Levels, view_version: u64) {
        self.seen = Some(WakeLevels {
            process: levels.process.clone(),
            verdict: levels.liveness.verdict.clone(),
            leading: levels.lease.leading,
            lease: levels.lease.lease,
            refused: levels.writes.refused.is_some(),
            hearing: levels.hearing,
            view_version,
            shutting_down: levels.shutting_down,
            pod_end: levels.pod_end,
        });
    }
}
