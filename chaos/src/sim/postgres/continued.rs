//! A primary that is started as the primary that it was: it waits until it is released, recovers, and goes on on its
//! timeline.

use matriarch::model::ControlState;

use crate::sim::world::Sim;

impl Sim {
    /// Starts the process; gives its number.
    pub(crate) fn hold(&self, member: usize) -> Result<i32, String> {
        let (_pid, number) = self.place_server(member, None)?;
        if let Some(server) = self.world().machines[member].server.as_mut() {
            (server.held, server.as_primary) = (true, true);
            server.sync.begin_unnamed();
        }
        Ok(number)
    }

    /// Lets it become the postmaster, if it still is there.
    pub(crate) fn release(&self, member: usize, number: i32) -> Result<(), String> {
        let pid = {
            let mut world = self.world();
            let server = world.machines[member].server.as_mut();
            let held = server.filter(|server| server.number == number && server.held);
            let server = held.ok_or("the process that waited is gone")?;
            server.held = false;
            server.pid
        };
        let sim = self.clone();
        self.exec.spawn(pid, async move { sim.go_on(member, number).await });
        Ok(())
    }

    /// Its supervisor is gone, or does not want it any more.
    pub(crate) fn let_go_of(&self, member: usize, number: i32) {
        let pid = {
            let world = self.world();
            let server = world.machines[member].server.as_ref();
            server.filter(|server| server.number == number && server.held).map(|server| server.pid)
        };
        let Some(pid) = pid else { return };
        let sim = self.clone();
        self.exec.spawn(pid, async move {
            let takes = sim.exec.rng(|rng| rng.micros(100, 20_000));
            sim.exec.sleep(takes).await;
            sim.end_server(member, number, "exit status: 1");
        });
    }

    async fn go_on(&self, member: usize, number: i32) {
        let begin = self.exec.rng(|rng| rng.millis(10, 80));
        self.exec.sleep(begin).await;
        self.until_disk_answers(member).await;
        if self.world().machines[member].disk.full && self.exec.rng(|rng| rng.permille(700)) {
            return self.end_server(member, number, "no space left on device");
        }
        let crashed = {
            let disk = &mut self.world().machines[member].disk;
            let crashed = disk.control != ControlState::ShutDown;
            if crashed {
                disk.control = ControlState::InCrashRecovery;
            }
            crashed
        };
        if crashed {
            let takes = self.recovery_takes() * 5;
            self.exec.sleep(takes).await;
        }
        {
            let mut world = self.world();
            let world = &mut *world;
            world.next_record += 1;
            let record = world.next_record;
            let machine = &mut world.machines[member];
            let Some(server) = machine.server.as_mut().filter(|server| !server.stopping) else { return };
            server.read_all = true;
            let disk = &mut machine.disk;
            disk.wal.cut(disk.flushed);
            (disk.checkpoint, disk.checkpoint_timeline) = (disk.wal.end(), disk.wal.timeline);
            let timeline = disk.wal.timeline;
            machine.open_for_writes(record, &self.exec);
            world.trace.note(self.now(), || format!("{member}: primary again on timeline {timeline}"));
        }
        crate::invariant::continued(self, member);
        self.name_at_last(member).await;
    }
}
