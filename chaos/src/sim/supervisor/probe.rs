//! Proofs that Postgres works: the driver of the product's own rounds, as `src/postgres/probe.rs` is.

use matriarch::model::{LivenessTiming, Proof, StoppedPart};

use super::Agent;
use crate::sim::postgres::Phase;

impl Agent {
    /// Keeps the record of who is watched and when the probe ran.
    pub(crate) async fn judge(self) {
        loop {
            let process = self.shared.process.borrow().clone();
            let now = self.now();
            let verdict = {
                let settings = self.settings();
                let has_voters =
                    self.shared.view.borrow().as_ref().is_some_and(|view| view.cluster.has_voters());
                let mut liveness = self.shared.liveness.borrow_mut();
                liveness.configure(&settings, has_voters);
                if let Some(postmaster) = liveness.look(&process, now) {
                    let stopped = self.sim.is_frozen_whole(self.member()).then_some(StoppedPart::Whole);
                    liveness.stopped(postmaster, stopped, now);
                }
                liveness.verdict(now)
            };
            if *self.shared.verdict.borrow() != verdict {
                *self.shared.verdict.borrow_mut() = verdict;
                self.shared.bell.give(&self.sim.exec);
            }
            let wait = self.shared.process_bell.wait(&self.sim.exec);
            self.sim.exec.within(LivenessTiming::TICK, wait).await;
        }
    }

    pub(crate) async fn prove_again_and_again(self, proof: Proof) {
        loop {
            let watched = self.shared.liveness.borrow().watched(proof);
            let Some(pid) = watched else {
                self.sleep(LivenessTiming::TICK).await;
                continue;
            };
            let began_at = self.now();
            let within = self.shared.liveness.borrow().timing().try_within();
            let proved = self.sim.exec.within(within, self.prove(pid, proof)).await;
            let ended = proved.unwrap_or(Err(())).map_err(|()| "no answer".to_owned());
            let next_at = {
                let mut liveness = self.shared.liveness.borrow_mut();
                liveness.tried((pid, proof), began_at, ended, self.now())
            };
            let at = self.sim.when(self.member(), next_at);
            self.sim.exec.sleep_until(at).await;
        }
    }

    async fn prove(&self, number: i32, proof: Proof) -> Result<(), ()> {
        self.sim.until_it_runs(self.member(), number).await.map_err(drop)?;
        let slow_ms = self.sim.world().machines[self.member()].disk.slow_ms;
        let takes = self.sim.exec.rng(|rng| match proof {
            Proof::Connection => rng.micros(400, 4000),
            Proof::Write => rng.micros(300, 3000 + slow_ms * 1000),
        });
        self.sleep(takes).await;
        if proof == Proof::Write {
            self.sim.until_disk_answers(self.member()).await;
        }
        self.sim.until_it_runs(self.member(), number).await.map_err(drop)?;
        // As long as it has never written, a server that recovers is not asked for more than its disk.
        let recovers = {
            let world = self.sim.world();
            let server = world.machines[self.member()].server.as_ref();
            server.is_some_and(|server| server.phase == Phase::Starting)
                && self.shared.liveness.borrow().has_written(number)
        };
        match proof {
            Proof::Write if recovers || self.sim.world().machines[self.member()].disk.full => Err(()),
            Proof::Write | Proof::Connection => Ok(()),
        }
    }
}
