//! Simulated faults at very high rates until a fixed end: one file for each family.
//!
//! What the product does not claim to survive is not done to it: a guard and its supervisor are not killed at one time
//! (the machine's watchdog is for that), and after a suspend of the whole machine, in which the kernel does nothing for
//! a frozen guard either, the guard, which runs with real-time priority, is the first to run.

use std::time::Duration;

use super::clock::At;
use super::network::Host;
use super::world::Sim;

mod config;
mod disk;
mod etcd;
mod failsafe;
mod network;
mod operator;
mod process;
pub(crate) mod recruit;
pub(crate) mod secrets;
mod stall;
mod store;

/// Which family, with how many of a hundred.
type Weights = [u64; 5];

/// How long an operator waits before removing data.
const PATIENCE: Duration = Duration::from_secs(30);

/// Storms of different kinds: processes, network, etcd, disks, operators.
const STORMS: [Weights; 6] = [
    [40, 25, 15, 10, 10],
    [100, 0, 0, 0, 0],
    [30, 70, 0, 0, 0],
    [30, 10, 60, 0, 0],
    [40, 0, 0, 50, 10],
    [40, 10, 10, 0, 40],
];

/// What faults have to know of each other, by member.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FaultState {
    /// The guard is not what it should be until then.
    guard_until: At,
    /// The supervisor, or the whole machine.
    supervisor_until: At,
    /// Suspended by so many faults.
    pub(crate) suspended: u32,
}

impl Sim {
    /// Faults until then; after it everything is mended. `alone`: first etcd is away from the leader, and nothing else
    /// happens meanwhile.
    pub(crate) fn begin_faults(&self, end: At, alone: bool) {
        let sim = self.clone();
        self.world().faults_end = end;
        self.spawn_environment(async move {
            let (weights, pace_ms, begins, slow_work) = sim.exec.rng(|rng| {
                let weights = rng.pick(&STORMS).unwrap_or(STORMS[0]);
                let pace = rng.pick(&[300, 1000, 3000, 8000]).unwrap_or(3000);
                // Some clusters do not even come up in peace.
                let begins = if rng.permille(150) { 0 } else { 12 };
                // On some machines PostgreSQL or the disk is slow now and then.
                let slow_work = rng.pick(&[0, 0, 5, 30, 150]).unwrap_or(0);
                (weights, pace, begins, slow_work)
            });
            sim.world().slow_work = slow_work;
            sim.exec.sleep(Duration::from_secs(begins)).await;
            if alone {
                sim.leader_is_alone_in_peace(end).await;
            }
            while sim.now() + Duration::from_millis(100) < end {
                let pause = sim.exec.rng(|rng| rng.millis(1, 2 * pace_ms));
                sim.exec.sleep_until((sim.now() + pause).min(end)).await;
                sim.begin_one(&weights, end);
            }
            sim.exec.sleep_until(end).await;
            sim.heal();
        });
    }

    fn begin_one(&self, weights: &Weights, end: At) {
        if end <= self.now() {
            return;
        }
        let mut left = self.exec.rng(|rng| rng.below(weights.iter().sum()));
        let mut family = 0;
        while weights[family] <= left {
            left -= weights[family];
            family += 1;
        }
        match family {
            0 => self.process_fault(),
            1 => self.network_fault(),
            2 => self.etcd_fault(),
            3 => self.disk_fault(),
            _ => self.operator_fault(),
        }
    }

    /// How long a fault lasts: mostly short, some longer than any lease.
    fn lasts(&self) -> Duration {
        self.exec.rng(|rng| match rng.below(10) {
            0..=4 => rng.millis(10, 2_000),
            5..=8 => rng.millis(1_000, 12_000),
            _ => rng.millis(8_000, 45_000),
        })
    }

    fn any_member(&self) -> usize {
        let members = self.world().options.members as u64;
        // The leader is where it hurts.
        match self.leader().filter(|_| self.exec.rng(|rng| rng.permille(400))) {
            Some(leader) => leader,
            None => self.exec.rng(|rng| rng.below(members)) as usize,
        }
    }

    /// Everything is mended, and what died is started again.
    fn heal(&self) {
        self.note(|| "all faults end".to_owned());
        {
            let mut world = self.world();
            world.slow_work = 0;
            world.network.heal();
            (world.etcd.slow_ms, world.etcd.deaf_watches, world.etcd.no_space) = (0, false, false);
            for machine in &mut world.machines {
                (machine.disk.full, machine.disk.slow_ms, machine.replay_lag_ms) = (false, 0, 0);
                (machine.fault_state, machine.untold, machine.pod_end) = (FaultState::default(), 0, None);
                machine.disk_hangs = 0;
            }
        }
        self.exec.set_stalls(0);
        // After a suspend the guard is the first.
        self.exec.thaw_all(true);
        for server in 0..super::etcd::SERVERS {
            self.restart_etcd_server(server);
        }
        let members = self.world().options.members;
        for member in 0..members {
            self.start_supervisor(member);
        }
        let (sim, ended) = (self.clone(), self.now());
        self.spawn_environment(async move {
            sim.exec.sleep(Duration::from_millis(2)).await;
            sim.exec.thaw_all(false);
            loop {
                // An orderly service manager starts again what ends, and the operator ends a pause.
                sim.exec.sleep(Duration::from_secs(1)).await;
                if ended + PATIENCE <= sim.now() {
                    sim.remove_foreign_data();
                    sim.fail_over_past_a_copy();
                }
                (0..members).for_each(|member| sim.start_supervisor(member));
                let pause = sim.world().stays_paused;
                sim.set_pause(pause);
            }
        });
    }

    fn hosts(&self) -> Vec<Host> {
        self.world().network.hosts().collect()
    }
}
