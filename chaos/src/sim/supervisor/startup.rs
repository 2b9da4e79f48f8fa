//! Before the loop, and its end: `src/agent/startup.rs` and `src/agent/app.rs`.

use std::time::Duration;

use matriarch::core::guard::{Deadlines, LeftBehind};
use matriarch::model::{ExitBecause, LeaseId, Process, Proof, StopMode, View};

use super::Agent;
use super::cycle::Cycle;
use super::lease::Keeping;
use crate::sim::mutation::Mutation;
use crate::sim::postgres::Phase;

const ADOPTED_PRIMARY_WITHIN: Duration = Duration::from_secs(5);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);
const UNGUARDED_STOP_WITHIN: Duration = Duration::from_millis(300);

impl Agent {
    pub(crate) async fn run(self) {
        let starts = self.sim.exec.chance(|chance| chance.millis(2, 80));
        self.sleep(starts).await;
        let (found, predecessors) = self.find_guard().await;
        let (watcher, keeper) = (self.clone(), self.clone());
        self.spawn(async move { watcher.watch_process().await });
        self.spawn(async move { keeper.keep_guard(predecessors).await });
        if !self.can_tell_what_runs().await {
            // All is left as it was found.
            return self.sim.exec.kill(self.shared.pid);
        }
        self.adopt(found).await;
        let follower = self.clone();
        self.spawn(async move { follower.follow_for_ever().await });
        let first = loop {
            let seen = self.shared.view.borrow().clone();
            match seen {
                Some(seen) => break seen,
                None => self.shared.bell.wait(&self.sim.exec).await,
            }
            if self.shared.shutting_down.get() {
                let _ = self.stop(StopMode::Fast, Duration::from_secs(60)).await;
                self.begin_unarmed();
                return self.end(&ExitBecause::Asked).await;
            }
        };
        let running = matches!(*self.shared.process.borrow(), Process::Up { standby_start: false, .. });
        let resumed = if running { self.former_lease(&first) } else { None };
        let keeping = Keeping::new(&self, resumed);
        self.spawn(async move { keeping.run().await });
        let (judge, connect, write) = (self.clone(), self.clone(), self.clone());
        self.spawn(async move { judge.judge().await });
        self.spawn(async move { connect.prove_again_and_again(Proof::Connection).await });
        self.spawn(async move { write.prove_again_and_again(Proof::Write).await });
        let publisher = self.clone();
        self.spawn(async move { publisher.publish_member().await });
        let because = Cycle::new(&self).run().await;
        self.end(&because).await;
    }

    async fn end(&self, because: &ExitBecause) {
        self.note(|| format!("supervisor ends: {because:?}"));
        if self.guard_leaves(*because == ExitBecause::Asked) {
            let mut world = self.sim.world();
            let place = &mut world.machines[self.member()].guard;
            let guards = std::mem::take(&mut place.guards);
            place.named_armed = None;
            drop(world);
            for guard in guards {
                self.sim.exec.kill(guard.pid);
            }
        }
        self.sim.exec.kill(self.shared.pid);
    }

    /// The end of the postmaster is known at once, where this supervisor runs.
    async fn watch_process(self) {
        loop {
            let changed = self.sim.world().machines[self.member()].changed.clone();
            let known = match *self.shared.process.borrow() {
                Process::Up { pid, .. } => Some(pid),
                Process::Down { .. } => None,
            };
            let heard = self.mutation() != Some(Mutation::ExitIgnored);
            if heard && known.is_some_and(|number| !self.sim.runs(self.member(), number)) {
                let exit = self.sim.world().machines[self.member()].last_exit.clone();
                *self.shared.process.borrow_mut() = Process::Down { exit };
                self.shared.process_bell.give(&self.sim.exec);
                self.shared.bell.give(&self.sim.exec);
            }
            changed.wait(&self.sim.exec).await;
        }
    }

    /// Looks until it is certain; false if it is asked to end before.
    async fn can_tell_what_runs(&self) -> bool {
        let doubts = self.sim.world().options.mutation != Some(Mutation::DisarmOnDoubt);
        while doubts && 0 < self.sim.world().machines[self.member()].untold {
            if self.shared.shutting_down.get() {
                return false;
            }
            self.sleep(LOOK_AGAIN_AFTER).await;
        }
        true
    }

    async fn adopt(&self, found: LeftBehind) {
        let running = {
            let world = self.sim.world();
            let machine = &world.machines[self.member()];
            let server = machine.server.as_ref().filter(|_| machine.untold == 0);
            server.map(|server| (server.number, server.phase))
        };
        let Some((number, phase)) = running else { return self.begin_unarmed() };
        let standby_start = phase != Phase::Primary;
        *self.shared.process.borrow_mut() = Process::Up { pid: number, since: self.now(), standby_start };
        self.step().await;
        match found {
            LeftBehind::Armed(deadlines) => {
                if let Process::Up { standby_start, .. } = &mut *self.shared.process.borrow_mut() {
                    *standby_start = false;
                }
                self.want_until(deadlines);
            }
            LeftBehind::Nothing if phase == Phase::Primary => {
                let by = self.now() + ADOPTED_PRIMARY_WITHIN;
                self.want_until(Deadlines { stop_at: by, kill_at: by });
            }
            LeftBehind::Nothing => self.begin_unarmed(),
            LeftBehind::Unguarded => {
                let _ = self.stop(StopMode::Immediate, UNGUARDED_STOP_WITHIN).await;
                self.begin_unarmed();
            }
        }
    }

    /// The lease on the leader key, if the key and the member record beside it are this member's own.
    fn former_lease(&self, first: &View) -> Option<LeaseId> {
        let name = self.sim.world().machines[self.member()].name.clone();
        let leader = first.cluster.leader.as_ref().filter(|leader| leader.name == name)?;
        let member = first.cluster.members.get(&name)?;
        leader.lease.filter(|lease| member.lease == Some(*lease))
    }
}
