//! Disks: full, slow, and hanging; and replay that lags.

use std::time::Duration;

use crate::sim::world::Sim;

impl Sim {
    pub(super) fn disk_fault(&self) {
        let (member, lasts, sim) = (self.any_member(), self.lasts(), self.clone());
        match self.exec.rng(|rng| rng.below(7)) {
            0..=1 => {
                self.note(|| format!("fault: {member}: the disk is full for {lasts:?}"));
                self.world().machines[member].disk.full = true;
                self.spawn_environment(async move {
                    sim.exec.sleep(lasts).await;
                    sim.world().machines[member].disk.full = false;
                });
            }
            2..=3 => {
                let slow_ms = self.exec.rng(|rng| rng.between(5, 3_000));
                self.note(|| format!("fault: {member}: flushes take up to {slow_ms} ms for {lasts:?}"));
                self.world().machines[member].disk.slow_ms = slow_ms;
                self.lose_its_leader(member, slow_ms);
                self.spawn_environment(async move {
                    sim.exec.sleep(lasts).await;
                    sim.world().machines[member].disk.slow_ms = 0;
                });
            }
            4 => self.hang_disk(member),
            _ => {
                let lag_ms = self.exec.rng(|rng| rng.between(50, 5_000));
                self.note(|| format!("fault: {member}: replay lags up to {lag_ms} ms for {lasts:?}"));
                self.world().machines[member].replay_lag_ms = lag_ms;
                self.spawn_environment(async move {
                    sim.exec.sleep(lasts).await;
                    sim.world().machines[member].replay_lag_ms = 0;
                });
            }
        }
    }

    /// In one case of two for longer than any work of a supervisor may take.
    fn hang_disk(&self, member: usize) {
        let long = self.exec.rng(|rng| rng.permille(500).then(|| rng.millis(15_000, 60_000)));
        let lasts = long.unwrap_or_else(|| self.lasts());
        self.hang_disk_for(member, lasts);
    }

    pub(super) fn hang_disk_for(&self, member: usize, lasts: Duration) {
        self.note(|| format!("fault: {member}: the disk hangs for {lasts:?}"));
        self.world().machines[member].disk_hangs += 1;
        let sim = self.clone();
        self.spawn_environment(async move {
            sim.exec.sleep(lasts).await;
            let hangs = &mut sim.world().machines[member].disk_hangs;
            *hangs = hangs.saturating_sub(1);
        });
    }

    /// What a standby has written and not flushed, it holds when the leader's PostgreSQL is gone, and has not said so.
    fn lose_its_leader(&self, standby: usize, slow_ms: u64) {
        let Some(leader) = self.leader().filter(|leader| *leader != standby) else { return };
        let (lost, after) = self.exec.rng(|rng| (rng.permille(400), rng.millis(1, 2 * slow_ms)));
        let sim = self.clone();
        if lost {
            self.spawn_environment(async move {
                sim.exec.sleep(after).await;
                sim.note(|| format!("fault: {leader}: postgres is killed"));
                sim.kill_server(leader);
            });
        }
    }
}
