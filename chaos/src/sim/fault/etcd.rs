//! etcd: servers lost and frozen, leaders that change, slow answers, watches that lie, compaction, a store that goes
//! back in time; and clocks.

use std::time::Duration;

use crate::sim::clock::DRIFT_MAX_PPM;
use crate::sim::etcd::SERVERS;
use crate::sim::world::Sim;

impl Sim {
    pub(super) fn etcd_fault(&self) {
        let server = self.exec.rng(|rng| rng.below(SERVERS as u64)) as usize;
        let (sim, lasts) = (self.clone(), self.lasts());
        let pid = self.world().etcd.servers[server].pid;
        match self.exec.rng(|rng| rng.below(100)) {
            0..=18 => {
                self.note(|| format!("fault: etcd {server} is killed for {lasts:?}"));
                self.exec.kill(pid);
                self.spawn_environment(async move {
                    sim.exec.sleep(lasts).await;
                    sim.restart_etcd_server(server);
                });
            }
            19..=36 => {
                self.note(|| format!("fault: etcd {server} is frozen for {lasts:?}"));
                self.exec.freeze(pid);
                self.spawn_environment(async move {
                    sim.exec.sleep(lasts).await;
                    sim.exec.thaw(pid, Duration::ZERO);
                });
            }
            37..=54 => self.move_raft_leader(),
            55..=69 => {
                let slow_ms = self.exec.rng(|rng| rng.between(20, 4_000));
                self.note(|| format!("fault: etcd answers up to {slow_ms} ms late for {lasts:?}"));
                self.world().etcd.slow_ms = slow_ms;
                self.spawn_environment(async move {
                    sim.exec.sleep(lasts).await;
                    sim.world().etcd.slow_ms = 0;
                });
            }
            70..=79 => {
                self.note(|| format!("fault: watches break, and those opened within {lasts:?} are deaf"));
                {
                    let mut world = self.world();
                    world.etcd.deaf_watches = true;
                    world.etcd.broken_watches += 1;
                    world.etcd.changed.give(&self.exec);
                }
                self.spawn_environment(async move {
                    sim.exec.sleep(lasts).await;
                    sim.world().etcd.deaf_watches = false;
                });
            }
            80..=89 => self.fill_etcd(lasts),
            90..=92 => {
                let mut world = self.world();
                world.etcd.store.compacted = world.etcd.store.revision;
            }
            93..=99 => self.store_fault(),
            _ => {
                let now = self.now();
                let mut world = self.world();
                let count = world.clocks.len() as u64;
                let (clock, ppm) = self.exec.rng(|rng| {
                    let drift = DRIFT_MAX_PPM as u64;
                    (rng.below(count) as usize, rng.between(0, 2 * drift) as i64 - DRIFT_MAX_PPM)
                });
                world.clocks[clock].drift(now, ppm);
            }
        }
    }

    /// It takes no writes, and the leader may have something to write.
    fn fill_etcd(&self, lasts: Duration) {
        let sim = self.clone();
        self.note(|| format!("fault: etcd is full for {lasts:?}"));
        self.world().etcd.no_space = true;
        let fails = self.exec.rng(|rng| rng.permille(500));
        if let Some(leader) = self.leader().filter(|_| fails) {
            // It would give the key away, if anybody could take it.
            self.note(|| format!("fault: {leader}: postgres is killed"));
            self.kill_server(leader);
        }
        self.spawn_environment(async move {
            sim.exec.sleep(lasts).await;
            sim.world().etcd.no_space = false;
        });
    }
}
