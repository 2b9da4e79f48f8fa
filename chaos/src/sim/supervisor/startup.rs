//! Before the loop, and its end: `src/agent/startup.rs` and `src/agent/app.rs`.

use std::time::Duration;

use matriarch::core::guard::LeftBehind;
use matriarch::core::startup::{self, AfterLook, PostmasterFound, Takeover};
use matriarch::model::{ExitBecause, FailoverBy, Process, Proof, StopMode};

use super::Agent;
use super::cycle::Cycle;
use super::lease::Keeping;
use crate::sim::executor::TaskId;
use crate::sim::mutation::Mutation;
use crate::sim::postgres::Phase;
use crate::sim::postgres::disk::Data;

impl Agent {
    pub(crate) async fn run(self) {
        let starts = self.sim.exec.rng(|rng| rng.millis(2, 80));
        self.sleep(starts).await;
        let (found, predecessors) = self.find_guard().await;
        let (watcher, keeper) = (self.clone(), self.clone());
        self.spawn(async move { watcher.watch_process().await });
        let ready = self.sim.world().machines[self.member()].disk.data == Data::Ready;
        if ready {
            self.note_password();
        }
        if self.sim.world().options.secrets_change {
            let watcher = self.clone();
            self.spawn(async move { watcher.watch_password().await });
        }
        self.spawn(async move { keeper.keep_guard(predecessors).await });
        if !self.take_over(found).await {
            // All is left as it was found.
            return self.sim.exec.kill(self.shared.pid);
        }
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
                return self.end(&ExitBecause::Asked, None).await;
            }
        };
        let was_armed = matches!(found, LeftBehind::Armed(_));
        let resumed = startup::previous_lease(&self.me(), &first, &self.shared.process.borrow(), was_armed);
        let keeping = Keeping::new(&self, resumed);
        let keeping = self.spawn(async move { keeping.run().await });
        let (judge, connect, write) = (self.clone(), self.clone(), self.clone());
        self.spawn(async move { judge.judge().await });
        self.spawn(async move { connect.prove_again_and_again(Proof::Connection).await });
        self.spawn(async move { write.prove_again_and_again(Proof::Write).await });
        let publisher = self.clone();
        self.spawn(async move { publisher.publish_member().await });
        if self.sim.world().options.settings.failover == FailoverBy::Recruit {
            let (leader, listener) = (self.clone(), self.clone());
            self.spawn(async move { leader.beat().await });
            self.spawn(async move { listener.listen().await });
        }
        let because = Cycle::new(&self).run().await;
        self.end(&because, Some(keeping)).await;
    }

    async fn end(&self, because: &ExitBecause, keeping: Option<TaskId>) {
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
        if let Some(keeping) = keeping {
            self.end_lease(keeping).await;
        }
        self.sim.exec.kill(self.shared.pid);
    }

    /// As `end_lease` in `src/agent/build.rs`.
    async fn end_lease(&self, keeping: TaskId) {
        if !matches!(*self.shared.process.borrow(), Process::Down { .. }) {
            return;
        }
        self.sim.exec.abort(keeping);
        let leases = {
            let facts = self.shared.lease.borrow();
            [facts.moving_to, facts.lease]
        };
        for lease in leases.into_iter().flatten() {
            self.revoke_lease(lease).await;
        }
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
    async fn take_over(&self, found: LeftBehind) -> bool {
        let takeover = loop {
            match startup::after_look(found, self.look_for_postmaster().await, false) {
                AfterLook::LookAgain(_) if self.shared.shutting_down.get() => return false,
                AfterLook::LookAgain(after) => self.sleep(after).await,
                AfterLook::AskRole => break Takeover::unguarded(self.runs_as_primary(), self.now()),
                AfterLook::Take(takeover) => break takeover,
            }
        };
        match takeover {
            Takeover::GuardPrimary(deadlines) => {
                if let Process::Up { standby_start, .. } = &mut *self.shared.process.borrow_mut() {
                    *standby_start = false;
                }
                self.want_until(deadlines);
            }
            Takeover::StopThenDisarm(within) => {
                let _ = self.stop(StopMode::Immediate, within).await;
                self.begin_unarmed();
            }
            Takeover::Disarm => self.begin_unarmed(),
        }
        true
    }

    /// What runs here, and is watched from now on.
    async fn look_for_postmaster(&self) -> PostmasterFound {
        let doubts = self.sim.world().options.mutation != Some(Mutation::DisarmOnDoubt);
        let untold = 0 < self.sim.world().machines[self.member()].untold;
        let running = {
            let world = self.sim.world();
            let server = world.machines[self.member()].server.as_ref().filter(|_| !untold);
            server.map(|server| {
                (server.number, server.held, server.as_primary || server.phase == Phase::Primary)
            })
        };
        match running {
            // It works in no data directory yet, and ends by itself.
            Some((_, true, _)) => PostmasterFound::Unknown,
            Some((pid, false, as_primary)) => {
                let standby_start = !as_primary;
                *self.shared.process.borrow_mut() = Process::Up { pid, since: self.now(), standby_start };
                self.step().await;
                PostmasterFound::Running
            }
            None if untold && doubts => PostmasterFound::Unknown,
            None => PostmasterFound::Nothing,
        }
    }

    fn runs_as_primary(&self) -> bool {
        matches!(*self.shared.process.borrow(), Process::Up { standby_start: false, .. })
    }
}
