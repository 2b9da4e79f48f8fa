//! Proofs that Postgres works, for the real `Liveness`: `src/postgres/probe.rs`.

use std::time::Duration;

use matriarch::model::{Process, Proof};

use super::Agent;

const TICK: Duration = Duration::from_millis(200);
const RETRY_AFTER: Duration = Duration::from_millis(200);

impl Agent {
    /// Keeps the record of who is watched and when the probe ran.
    pub(crate) async fn judge(self) {
        loop {
            let postmaster = match *self.shared.process.borrow() {
                Process::Up { pid, standby_start: false, .. } => Some(pid),
                Process::Up { .. } | Process::Down { .. } => None,
            };
            let now = self.now();
            let verdict = {
                let settings = self.settings();
                let mut liveness = self.shared.liveness.borrow_mut();
                liveness.configure(settings.ttl, settings.pause);
                liveness.ran(now);
                liveness.watch(postmaster, now);
                liveness.verdict(now)
            };
            if *self.shared.verdict.borrow() != verdict {
                *self.shared.verdict.borrow_mut() = verdict;
                self.shared.bell.give(&self.sim.exec);
            }
            let wait = self.shared.process_bell.wait(&self.sim.exec);
            self.sim.exec.within(TICK, wait).await;
        }
    }

    pub(crate) async fn prove_again_and_again(self, proof: Proof) {
        loop {
            let watched = self.shared.liveness.borrow().watched();
            let Some(pid) = watched else {
                self.sleep(TICK).await;
                continue;
            };
            let began_at = self.now();
            let (within, every) = {
                let timing = self.shared.liveness.borrow().timing();
                (timing.try_within(), timing.probe_every())
            };
            let proved = self.sim.exec.within(within, self.prove(pid, proof)).await;
            let now = self.now();
            let next_at = {
                let mut liveness = self.shared.liveness.borrow_mut();
                liveness.ran(now);
                match proved {
                    Some(Ok(())) => {
                        liveness.proved(pid, proof, now);
                        began_at + every
                    }
                    Some(Err(())) | None => {
                        liveness.failed(pid, proof, "no answer".to_owned());
                        now + RETRY_AFTER
                    }
                }
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
        match proof {
            Proof::Write if self.sim.world().machines[self.member()].disk.full => Err(()),
            Proof::Write | Proof::Connection => Ok(()),
        }
    }
}
