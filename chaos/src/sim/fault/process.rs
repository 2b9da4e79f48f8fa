//! Processes and whole machines: killed, frozen, ended, suspended.

use std::time::Duration;

use matriarch::model::PodEnd;

use crate::sim::executor::Pid;
use crate::sim::world::Sim;

/// A guard that was lost is replaced well within this.
const REPLACED_WITHIN: Duration = Duration::from_secs(4);

impl Sim {
    pub(super) fn process_fault(&self) {
        let member = self.any_member();
        match self.exec.rng(|rng| rng.below(100)) {
            0..=14 => {
                self.note(|| format!("fault: {member}: postgres is killed"));
                self.kill_server(member);
            }
            15..=29 => self.freeze_postgres(member),
            30..=41 => self.kill_supervisor(member),
            42..=55 => self.freeze_supervisor(member),
            56..=61 => self.end_supervisor(member, self.lasts()),
            62..=65 => self.end_pod(member, self.lasts()),
            66..=75 => self.strike_guard(member),
            76..=81 => self.suspend(member),
            82..=86 => self.freeze_member(member),
            87..=91 => self.crash_machine(member),
            92..=94 => self.doubt(member),
            95 => {
                self.note(|| format!("fault: {member}: nobody reads its log any more"));
                self.world().machines[member].unread = true;
            }
            _ => {
                let stalls = self.exec.rng(|rng| rng.between(5, 300));
                self.note(|| format!("fault: {stalls} of ten thousand waits take long"));
                self.exec.set_stalls(stalls);
                let (sim, lasts) = (self.clone(), self.lasts());
                self.spawn_environment(async move {
                    sim.exec.sleep(lasts).await;
                    sim.exec.set_stalls(0);
                });
            }
        }
    }

    pub(super) fn supervisor_pid(&self, member: usize) -> Option<Pid> {
        let pid = self.world().machines[member].supervisor.as_ref().map(|supervisor| supervisor.pid);
        pid.filter(|pid| self.exec.is_alive(*pid))
    }

    pub(super) fn freeze_for(&self, pid: Pid, lasts: Duration) {
        self.exec.freeze(pid);
        let sim = self.clone();
        self.spawn_environment(async move {
            sim.exec.sleep(lasts).await;
            sim.exec.thaw(pid, Duration::ZERO);
        });
    }

    fn freeze_postgres(&self, member: usize) {
        let Some(pid) = self.server_pid(member) else { return };
        let lasts = self.lasts();
        self.note(|| format!("fault: {member}: postgres is frozen for {lasts:?}"));
        self.freeze_for(pid, lasts);
    }

    /// True, with the strain noted, when the supervisor may be struck for that long.
    fn may_strike_supervisor(&self, member: usize, lasts: Duration) -> bool {
        let now = self.now();
        let mut world = self.world();
        let fault_state = &mut world.machines[member].fault_state;
        let free = fault_state.guard_until <= now;
        if free {
            fault_state.supervisor_until = fault_state.supervisor_until.max(now + lasts + REPLACED_WITHIN);
        }
        free
    }

    pub(super) fn start_again(&self, member: usize, after: Duration) {
        let sim = self.clone();
        self.spawn_environment(async move {
            sim.exec.sleep(after).await;
            while 0 < sim.world().machines[member].fault_state.suspended {
                sim.exec.sleep(Duration::from_millis(200)).await;
            }
            sim.start_supervisor(member);
        });
    }

    pub(super) fn kill_supervisor(&self, member: usize) {
        self.kill_supervisor_for(member, self.lasts());
    }

    pub(super) fn kill_supervisor_for(&self, member: usize, lasts: Duration) {
        let Some(pid) = self.supervisor_pid(member) else { return };
        if self.may_strike_supervisor(member, lasts) {
            self.note(|| format!("fault: {member}: supervisor is killed for {lasts:?}"));
            self.exec.kill(pid);
            self.start_again(member, lasts);
        }
    }

    /// The supervisor dies, and the next one cannot tell at first what runs.
    fn doubt(&self, member: usize) {
        let lasts = self.lasts() + Duration::from_secs(1);
        self.note(|| format!("fault: {member}: for {lasts:?} nobody who starts there can tell what runs"));
        self.world().machines[member].untold += 1;
        self.kill_supervisor(member);
        let sim = self.clone();
        self.spawn_environment(async move {
            sim.exec.sleep(lasts).await;
            let untold = &mut sim.world().machines[member].untold;
            *untold = untold.saturating_sub(1);
        });
    }

    fn freeze_supervisor(&self, member: usize) {
        self.freeze_supervisor_for(member, self.lasts());
    }

    pub(super) fn freeze_supervisor_for(&self, member: usize, lasts: Duration) {
        let Some(pid) = self.supervisor_pid(member) else { return };
        if self.may_strike_supervisor(member, lasts) {
            self.note(|| format!("fault: {member}: supervisor is frozen for {lasts:?}"));
            self.freeze_for(pid, lasts);
        }
    }

    /// The API server says that the pod ends or is gone. The kubelet hears of it as long after as the next pod of that
    /// name takes to start.
    fn end_pod(&self, member: usize, lasts: Duration) {
        let end = self.exec.rng(|rng| rng.pick(&[PodEnd::Deleting, PodEnd::Gone, PodEnd::Replaced]));
        if self.world().machines[member].pod_end == Some(PodEnd::Replaced) {
            // Nothing makes a pod exist again whose name another one has (seed 24584).
            return;
        }
        self.note(|| format!("fault: {member}: pod ends: {end:?}"));
        self.world().machines[member].pod_end = end;
        let supervisor = self.world().machines[member].supervisor.clone();
        if let Some(supervisor) = supervisor {
            supervisor.shared.bell.give(&self.exec);
        }
        let sim = self.clone();
        self.spawn_environment(async move {
            sim.exec.sleep(lasts).await;
            let is_over = sim.world().faults_end <= sim.now();
            if !is_over {
                sim.end_supervisor(member, lasts);
                sim.exec.sleep(lasts).await;
            }
            sim.world().machines[member].pod_end = None;
        });
    }

    /// SIGTERM, and a start later on. In pause it leaves a primary behind, and says so in etcd.
    pub(super) fn end_supervisor(&self, member: usize, lasts: Duration) {
        let supervisor = self.world().machines[member].supervisor.clone();
        let Some(supervisor) = supervisor.filter(|it| self.exec.is_alive(it.pid)) else { return };
        self.note(|| format!("fault: {member}: supervisor is asked to end"));
        supervisor.shared.shutting_down.set(true);
        supervisor.shared.bell.give(&self.exec);
        let sim = self.clone();
        self.spawn_environment(async move {
            while sim.exec.is_alive(supervisor.pid) {
                sim.exec.sleep(Duration::from_millis(100)).await;
            }
            sim.start_again(member, lasts);
        });
    }

    /// The guard dies or freezes while its supervisor is well.
    fn strike_guard(&self, member: usize) {
        let now = self.now();
        let well = self.supervisor_pid(member).is_some_and(|pid| !self.exec.is_frozen(pid));
        let guard = self.world().machines[member].guard.guards.last().map(|guard| guard.pid);
        let free = {
            let fault_state = self.world().machines[member].fault_state;
            well && fault_state.supervisor_until <= now && fault_state.suspended == 0
        };
        let Some(pid) = guard.filter(|pid| free && self.exec.is_alive(*pid)) else { return };
        self.world().machines[member].fault_state.guard_until = now + REPLACED_WITHIN;
        if self.exec.rng(|rng| rng.permille(500)) {
            self.note(|| format!("fault: {member}: guard is killed"));
            self.exec.kill(pid);
            let answered = self.world().machines[member].guard.guards.last().map(|it| it.answered.clone());
            if let Some(answered) = answered {
                // Its end of the socket closes.
                answered.give(&self.exec);
            }
        } else {
            let lasts = self.lasts();
            self.note(|| format!("fault: {member}: guard is frozen for {lasts:?}"));
            self.freeze_for(pid, lasts);
            self.leave_to_kernel(member);
        }
    }

    /// Nothing runs, and the clock goes on; the guard is the first to run again.
    fn suspend(&self, member: usize) {
        let lasts = self.lasts();
        if !self.may_strike_supervisor(member, lasts) {
            return;
        }
        self.note(|| format!("fault: {member}: the machine is suspended for {lasts:?}"));
        let (guards, others) = self.freeze_all(member);
        let sim = self.clone();
        self.spawn_environment(async move {
            sim.exec.sleep(lasts).await;
            sim.end_suspension(member);
            guards.into_iter().for_each(|pid| sim.exec.thaw(pid, Duration::ZERO));
            sim.exec.sleep(Duration::from_millis(2)).await;
            others.into_iter().for_each(|pid| sim.exec.thaw(pid, Duration::ZERO));
        });
    }

    /// Only the kernel runs, and what it was left; the guard may be the last to run again.
    fn freeze_member(&self, member: usize) {
        let lasts = self.lasts();
        if !self.may_strike_supervisor(member, lasts) {
            return;
        }
        self.note(|| format!("fault: {member}: all its processes are frozen for {lasts:?}"));
        let (guards, others) = self.freeze_all(member);
        self.leave_to_kernel(member);
        let sim = self.clone();
        self.spawn_environment(async move {
            sim.exec.sleep(lasts).await;
            sim.end_suspension(member);
            others.into_iter().for_each(|pid| sim.exec.thaw(pid, Duration::ZERO));
            let late = sim.exec.rng(|rng| rng.millis(0, 40));
            sim.exec.sleep(late).await;
            guards.into_iter().for_each(|pid| sim.exec.thaw(pid, Duration::ZERO));
        });
    }

    /// Guards, and the other processes.
    fn freeze_all(&self, member: usize) -> (Vec<Pid>, Vec<Pid>) {
        let (guards, others) = {
            let mut world = self.world();
            let machine = &mut world.machines[member];
            machine.fault_state.suspended += 1;
            let guards: Vec<Pid> = machine.guard.guards.iter().map(|guard| guard.pid).collect();
            let server = machine.server.as_ref().map(|server| server.pid);
            let supervisor = machine.supervisor.as_ref().map(|supervisor| supervisor.pid);
            (guards, server.into_iter().chain(supervisor).collect::<Vec<Pid>>())
        };
        guards.iter().chain(&others).for_each(|pid| self.exec.freeze(*pid));
        (guards, others)
    }

    fn end_suspension(&self, member: usize) {
        let mut world = self.world();
        let fault_state = &mut world.machines[member].fault_state;
        fault_state.suspended = fault_state.suspended.saturating_sub(1);
    }

    /// Power is gone, and comes back.
    pub(super) fn crash_machine(&self, member: usize) {
        let lasts = self.lasts();
        if 0 < self.world().machines[member].fault_state.suspended {
            return;
        }
        self.note(|| format!("fault: {member}: the machine crashes, for {lasts:?}"));
        {
            let mut world = self.world();
            let disk = &mut world.machines[member].disk;
            let flushed = disk.flushed;
            disk.wal.cut(flushed);
        }
        self.kill_server(member);
        if let Some(pid) = self.supervisor_pid(member) {
            self.exec.kill(pid);
        }
        let guards = std::mem::take(&mut self.world().machines[member].guard.guards);
        guards.into_iter().for_each(|guard| self.exec.kill(guard.pid));
        self.start_again(member, lasts);
    }
}
