//! The life cycle of a simulated server: recovery, replay, promotion, shutdown, crash.

use std::time::Duration;

use matriarch::model::ControlState;

use super::{Phase, Server};
use crate::sim::executor::{Executor, Pid};
use crate::sim::postgres::disk::Data;
use crate::sim::world::{Machine, Sim};

/// WAL bytes of a checkpoint, or of the end of a recovery.
pub(crate) const CHECKPOINT_BYTES: u64 = 120;

impl Machine {
    /// Writes the end of a recovery, and lets clients write.
    pub(super) fn open_for_writes(&mut self, record: u64, exec: &Executor) {
        let Some(server) = self.server.as_mut() else { return };
        self.disk.flushed = self.disk.wal.append(record, CHECKPOINT_BYTES);
        self.disk.control = ControlState::InProduction;
        (server.phase, server.replayed) = (Phase::Primary, self.disk.flushed);
        // It asks nobody any more: what comes later is another refusal.
        self.refused = None;
        server.changed.give(exec);
        self.changed.give(exec);
    }

    /// Replay has come to where the directory may be read; true from then on.
    fn become_consistent(&mut self) -> bool {
        let Some(server) = self.server.as_mut() else { return false };
        if server.phase == Phase::Starting && self.disk.min_recovery <= server.replayed {
            server.phase = Phase::Standby;
            self.disk.unfinished = false;
        }
        server.phase != Phase::Starting
    }
}

impl Sim {
    /// Starts a server as a standby; gives its number.
    pub(crate) fn launch(
        &self,
        member: usize,
        follow: Option<(usize, Option<String>)>,
    ) -> Result<i32, String> {
        let (pid, number) = self.place_server(member, follow)?;
        let sim = self.clone();
        self.exec.spawn(pid, async move { sim.recover(member, number).await });
        Ok(number)
    }

    /// A server that does nothing yet.
    pub(super) fn place_server(
        &self,
        member: usize,
        follow: Option<(usize, Option<String>)>,
    ) -> Result<(Pid, i32), String> {
        let pid = self.exec.fork();
        let mut world = self.world();
        world.next_number += 1;
        let number = world.next_number;
        let machine = &mut world.machines[member];
        if machine.server.is_some() {
            return Err("start: another postmaster runs".to_owned());
        }
        if machine.disk.data != Data::Ready {
            return Err(format!("start: the data directory is {:?}", machine.disk.data));
        }
        let disk = &mut machine.disk;
        let newest = disk.histories.last().copied().unwrap_or(0).max(disk.wal.timeline);
        disk.reserved.retain(|number| *number <= newest);
        disk.promote_file = false;
        let mut server = Server::new(pid, number, follow);
        self.begin_sync(&mut server, &disk.sync_names);
        machine.server = Some(server);
        machine.changed.give(&self.exec);
        Ok((pid, number))
    }

    /// The startup process: local WAL first, then what is received, until it is promoted.
    async fn recover(&self, member: usize, number: i32) {
        let begin = self.exec.rng(|rng| rng.millis(15, 120));
        self.exec.sleep(begin).await;
        self.until_disk_answers(member).await;
        if self.world().machines[member].disk.full && self.exec.rng(|rng| rng.permille(700)) {
            return self.end_server(member, number, "no space left on device");
        }
        let mut left = {
            let mut world = self.world();
            let machine = &mut world.machines[member];
            let disk = &mut machine.disk;
            // After a primary's end all local WAL is replayed before anybody may look.
            if disk.was_primary() {
                disk.min_recovery = disk.flushed;
            }
            disk.backup_label = false;
            disk.control = ControlState::InArchiveRecovery;
            let Some(server) = machine.server.as_mut() else { return };
            server.replayed = disk.checkpoint.min(disk.flushed);
            5_u64
        };
        let chunk = self.recovery_takes();
        loop {
            self.exec.sleep(chunk).await;
            let mut world = self.world();
            let machine = &mut world.machines[member];
            let flushed = machine.disk.flushed;
            let Some(server) = machine.server.as_mut() else { return };
            server.replayed += flushed.saturating_sub(server.replayed) / left.max(1);
            left = left.saturating_sub(1);
            if left == 0 {
                server.replayed = flushed;
                server.read_all = true;
            }
            machine.become_consistent();
            let Some(server) = machine.server.as_mut() else { return };
            server.changed.give(&self.exec);
            if left == 0 {
                break;
            }
        }
        let (sim, pid) = (self.clone(), self.server_pid(member));
        if let Some(pid) = pid {
            self.exec.spawn(pid, async move { sim.receive_for_ever(member, number).await });
        }
        self.replay(member).await;
        self.become_primary(member).await;
    }

    /// The time of a fifth of the recovery from local WAL.
    pub(super) fn recovery_takes(&self) -> Duration {
        self.exec.rng(|rng| match rng.below(1000) {
            0..=29 => rng.millis(1000, 6000),
            30..=149 => rng.millis(50, 900),
            _ => rng.millis(1, 15),
        })
    }

    /// Replays what arrives until the promotion is asked for.
    async fn replay(&self, member: usize) {
        loop {
            let (behind, promote, changed, lag_ms) = {
                let world = self.world();
                let machine = &world.machines[member];
                let Some(server) = machine.server.as_ref() else { return };
                let behind = server.replayed < machine.disk.flushed;
                (behind, server.promote_signalled, server.changed.clone(), machine.replay_lag_ms)
            };
            if promote && !behind {
                return;
            }
            if !behind {
                changed.wait(&self.exec).await;
                continue;
            }
            let takes = self.exec.rng(|rng| match lag_ms {
                0 => rng.micros(50, 600),
                lag_ms => rng.millis(1, lag_ms),
            });
            self.exec.sleep(takes).await;
            let restartpoint = self.exec.rng(|rng| rng.permille(30));
            let mut world = self.world();
            let machine = &mut world.machines[member];
            let Some(server) = machine.server.as_mut() else { return };
            server.replayed = machine.disk.flushed;
            server.changed.give(&self.exec);
            let (replayed, consistent) = (server.replayed, machine.become_consistent());
            if restartpoint && consistent {
                machine.disk.restartpoint(replayed);
            }
        }
    }

    /// The end of recovery: another timeline, and clients may write.
    async fn become_primary(&self, member: usize) {
        let takes = self.exec.rng(|rng| rng.millis(2, 60));
        self.exec.sleep(takes).await;
        {
            let mut world = self.world();
            let world = &mut *world;
            world.next_record += 1;
            let record = world.next_record;
            let machine = &mut world.machines[member];
            let Some(server) = machine.server.as_mut().filter(|server| !server.stopping) else { return };
            let disk = &mut machine.disk;
            disk.wal.cut(disk.flushed);
            let (old, end, new) = (disk.wal.timeline, disk.wal.end(), disk.next_timeline());
            disk.wal.switches.push((old, end));
            disk.wal.timeline = new;
            disk.histories.insert(new);
            disk.promote_file = false;
            server.streams_from = None;
            machine.open_for_writes(record, &self.exec);
            world.trace.note(self.now(), || format!("{member}: primary on timeline {new} from {end}"));
        }
        crate::invariant::promoted(self, member);
    }

    pub(crate) fn server_pid(&self, member: usize) -> Option<Pid> {
        self.world().machines[member].server.as_ref().map(|server| server.pid)
    }

    /// From here on any signal that the postmaster gets makes it look.
    pub(crate) fn write_promote_file(&self, member: usize, number: i32) {
        let runs = self.runs(member, number);
        let early = self.exec.rng(|rng| rng.permille(30));
        self.world().machines[member].disk.promote_file = runs;
        if early {
            self.signal_promote(member, number);
        }
    }

    /// SIGUSR1: if the file is there, recovery ends.
    pub(crate) fn signal_promote(&self, member: usize, number: i32) {
        let Some(pid) = self.server_pid(member).filter(|_| self.runs(member, number)) else { return };
        let sim = self.clone();
        self.exec.spawn(pid, async move {
            let mut world = sim.world();
            let machine = &mut world.machines[member];
            if machine.disk.promote_file
                && let Some(server) = machine.server.as_mut()
            {
                server.promote_signalled = true;
                server.changed.give(&sim.exec);
            }
        });
    }

    /// A clean shutdown, as after SIGINT. Runs in the server.
    pub(crate) fn ask_fast_stop(&self, member: usize, number: i32) {
        let Some(pid) = self.server_pid(member).filter(|_| self.runs(member, number)) else { return };
        let sim = self.clone();
        self.exec.spawn(pid, async move {
            {
                let mut world = sim.world();
                let Some(server) = world.machines[member].server.as_mut() else { return };
                server.stopping = true;
                server.changed.give(&sim.exec);
            }
            let slow_ms = sim.world().machines[member].disk.slow_ms;
            let takes = sim.exec.rng(|rng| rng.millis(5, 200 + 4 * slow_ms));
            sim.exec.sleep(takes).await;
            sim.until_disk_answers(member).await;
            sim.write_shutdown_checkpoint(member).await;
            sim.leave_cleanly(member, number);
        });
    }

    /// Nothing is written after it, and standbys that are connected get it.
    async fn write_shutdown_checkpoint(&self, member: usize) {
        let end = {
            let mut world = self.world();
            let world = &mut *world;
            world.next_record += 1;
            let record = world.next_record;
            let machine = &mut world.machines[member];
            let Some(server) = machine.server.as_ref() else { return };
            if server.phase != Phase::Primary {
                return;
            }
            let disk = &mut machine.disk;
            disk.checkpoint = disk.wal.end();
            disk.checkpoint_timeline = disk.wal.timeline;
            disk.flushed = disk.wal.append(record, CHECKPOINT_BYTES);
            server.changed.give(&self.exec);
            disk.flushed
        };
        let give_up_at = self.now() + Duration::from_secs(10);
        loop {
            let waiting = {
                let world = self.world();
                let server = world.machines[member].server.as_ref();
                server.is_some_and(|server| server.senders.values().any(|sender| sender.flushed < end))
            };
            if !waiting || give_up_at <= self.now() {
                return;
            }
            self.exec.sleep(Duration::from_millis(5)).await;
        }
    }

    fn leave_cleanly(&self, member: usize, number: i32) {
        {
            let mut world = self.world();
            let machine = &mut world.machines[member];
            let Some(server) = machine.server.as_ref() else { return };
            let disk = &mut machine.disk;
            match server.phase {
                Phase::Primary => {
                    disk.control = ControlState::ShutDown;
                    disk.wal.cut(disk.flushed);
                }
                Phase::Standby => {
                    disk.control = ControlState::ShutDownInRecovery;
                    disk.restartpoint(server.replayed);
                }
                Phase::Starting => {}
            }
        }
        self.end_server(member, number, "exit status: 0");
    }

    /// SIGQUIT: it ends itself at once, if it runs at all.
    pub(crate) fn ask_immediate_stop(&self, member: usize, number: i32) {
        let Some(pid) = self.server_pid(member).filter(|_| self.runs(member, number)) else { return };
        let sim = self.clone();
        self.exec.spawn(pid, async move {
            let takes = sim.exec.rng(|rng| rng.micros(200, 30_000));
            sim.exec.sleep(takes).await;
            sim.end_server(member, number, "exit status: 2");
        });
    }

    /// The last of its processes is gone.
    pub(crate) fn end_server(&self, member: usize, number: i32, exit: &str) {
        let pid = {
            let mut world = self.world();
            let machine = &mut world.machines[member];
            let Some(server) = machine.server.take_if(|server| server.number == number) else { return };
            let (flushed, end) = (machine.disk.flushed, machine.disk.wal.end());
            let kept = self.exec.rng(|rng| rng.between(flushed, end));
            machine.disk.crash(kept);
            let standby =
                server.phase != Phase::Primary && machine.disk.control == ControlState::InArchiveRecovery;
            if standby && !machine.disk.unfinished {
                // Some of what was replayed has reached the data files.
                let low = machine.disk.min_recovery.min(server.replayed);
                machine.disk.min_recovery = self.exec.rng(|rng| rng.between(low, server.replayed));
            }
            machine.last_exit = Some(exit.to_owned());
            machine.changed.give(&self.exec);
            server.changed.give(&self.exec);
            world.trace.note(self.now(), || format!("{member}: postmaster {number} ended: {exit}"));
            server.pid
        };
        self.exec.kill(pid);
    }

    /// SIGKILL of every process, frozen or not.
    pub(crate) fn kill_server(&self, member: usize) {
        let number = self.world().machines[member].server.as_ref().map(|server| server.number);
        if let Some(number) = number {
            self.end_server(member, number, "signal: 9");
        }
    }
}
