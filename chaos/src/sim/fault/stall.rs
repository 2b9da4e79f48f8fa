//! What is no fault yet: on a busy machine and a lossy network something stands still for less than half a second. Now
//! and then an operator switches over.

use std::time::Duration;

use super::network::Link;
use crate::sim::clock::At;
use crate::sim::etcd::SERVERS;
use crate::sim::executor::Pid;
use crate::sim::network::{Host, NetworkConditions};
use crate::sim::world::Sim;

/// Looks and statements take no longer, either.
const SLOWEST_WORK_MS: u64 = 450;
/// In most stories one packet in a hundred. A link that loses nothing shows no gaps, and is waited for less long.
const LOST_PERMILLE: [u64; 3] = [0, 10, 10];
/// The longest pause, in milliseconds: what a link has shown is forgotten after a minute.
const PAUSE_MAX_MS: [u64; 3] = [6_000, 20_000, 150_000];

impl Sim {
    /// Load, loss and stalls until then. Stalls that begin together are over within `below`.
    pub(crate) fn begin_stalls(&self, below: Duration, end: At) {
        self.load();
        let sim = self.clone();
        let (switches_over, pause_max) =
            self.exec.rng(|rng| (rng.permille(200), rng.pick(&PAUSE_MAX_MS).unwrap_or(PAUSE_MAX_MS[0])));
        self.spawn_environment(async move {
            while sim.now() < end {
                let pause = sim.exec.rng(|rng| match rng.permille(300) {
                    true => rng.millis(600, 2_000),
                    false => rng.millis(1_000, pause_max),
                });
                sim.exec.sleep(pause).await;
                if switches_over && sim.exec.rng(|rng| rng.permille(20)) {
                    sim.ask_switchover(sim.any_member());
                }
                let stalls = sim.exec.rng(|rng| rng.between(1, 3));
                (0..stalls).for_each(|_| sim.stall_one(below));
                sim.exec.sleep(below).await;
            }
            sim.heal();
        });
    }

    fn load(&self) {
        let (conditions, stalls, slow_work, etcd_ms, disk_ms) = self.exec.rng(|rng| {
            let conditions = NetworkConditions {
                slowest_us: rng.pick(&[900, 5_000, 30_000]).unwrap_or(900),
                lost_permille: rng.pick(&LOST_PERMILLE).unwrap_or(0),
                late_permille: rng.pick(&[0, 5, 20]).unwrap_or(0),
                straggler_ms: 300,
                ..NetworkConditions::FAIR
            };
            let stalls = rng.pick(&[0, 5, 30, 100]).unwrap_or(0);
            let slow_work = rng.pick(&[0, 5, 30]).unwrap_or(0);
            let slow_ms = [0, 0, 20, 200];
            let (etcd_ms, disk_ms) = (rng.pick(&slow_ms).unwrap_or(0), rng.pick(&slow_ms).unwrap_or(0));
            (conditions, stalls, slow_work, etcd_ms, disk_ms)
        });
        self.note(|| {
            format!("load: {conditions:?}, {stalls} of ten thousand waits are long, {slow_work} of a thousand looks; etcd \
                     answers up to {etcd_ms} ms late, flushes take up to {disk_ms} ms")
        });
        self.exec.set_stalls(stalls);
        let mut world = self.world();
        world.network.conditions = conditions;
        (world.slow_work, world.slowest_work_ms) = (slow_work, SLOWEST_WORK_MS);
        world.etcd.slow_ms = etcd_ms;
        world.machines.iter_mut().for_each(|machine| machine.disk.slow_ms = disk_ms);
    }

    /// Begins at once or a little later, so that stalls overlap in any way.
    fn stall_one(&self, below: Duration) {
        let below_ms = below.as_millis() as u64;
        let (member, sim) = (self.any_member(), self.clone());
        let (kind, after, lasts) = self.exec.rng(|rng| {
            let after = if rng.permille(500) { 0 } else { rng.between(0, below_ms / 2) };
            (rng.below(7), Duration::from_millis(after), rng.millis(10, below_ms - after))
        });
        self.spawn_environment(async move {
            sim.exec.sleep(after).await;
            match kind {
                0 => sim.stall_processes(&format!("supervisor {member}"), sim.supervisor_pid(member), lasts),
                1 => sim.stall_processes(&format!("postgres {member}"), sim.server_pid(member), lasts),
                2 => sim.stall_processes(&format!("machine {member}"), sim.processes_of(member), lasts),
                3 => sim.hang_disk_for(member, lasts),
                4 => {
                    let server = sim.exec.rng(|rng| rng.below(SERVERS as u64)) as usize;
                    let pid = sim.world().etcd.servers[server].pid;
                    sim.stall_processes(&format!("etcd {server}"), Some(pid), lasts);
                }
                _ => sim.stall_links(member, lasts),
            }
        });
    }

    fn stall_processes(&self, what: &str, pids: impl IntoIterator<Item = Pid>, lasts: Duration) {
        self.note(|| format!("stall: {what} for {lasts:?}"));
        pids.into_iter().for_each(|pid| self.freeze_for(pid, lasts));
    }

    /// Its guard, too.
    fn processes_of(&self, member: usize) -> Vec<Pid> {
        let guards: Vec<Pid> =
            self.world().machines[member].guard.guards.iter().map(|guard| guard.pid).collect();
        guards.into_iter().chain(self.supervisor_pid(member)).chain(self.server_pid(member)).collect()
    }

    /// All links of a member or one of them, in one direction or both.
    fn stall_links(&self, member: usize, lasts: Duration) {
        let here = Host::Member(member);
        let mut others = self.hosts();
        others.retain(|host| *host != here);
        let (direction, only) =
            self.exec.rng(|rng| (rng.below(4), rng.pick(&others).filter(|_| rng.permille(400))));
        others.retain(|host| only.is_none_or(|only| only == *host));
        let out = others.iter().map(|host| (here, *host)).filter(|_| direction != 0);
        let back = others.iter().map(|host| (*host, here)).filter(|_| direction != 1);
        let links: Vec<Link> = out.chain(back).collect();
        self.note(|| format!("stall: {links:?} for {lasts:?}"));
        self.cut_links(&links);
        let sim = self.clone();
        self.spawn_environment(async move {
            sim.exec.sleep(lasts).await;
            sim.join_links(&links);
        });
    }
}
