//! What a supervisor does to a directory: bootstrap, clone, crash recovery, pg_rewind. Each can be cut short anywhere.

use std::time::Duration;

use matriarch::model::ControlState;

use super::Phase;
use super::disk::{Data, Disk, Wal};
use super::life::CHECKPOINT_BYTES;
use super::roles::RoleChange;
use crate::invariant::last_copy;
use crate::sim::mutation::Mutation;
use crate::sim::network::Host;
use crate::sim::world::Sim;

/// WAL bytes of a new cluster.
const INITDB_BYTES: u64 = 1000;

impl Sim {
    async fn works(&self, low_ms: u64, high_ms: u64) {
        let takes = self.exec.rng(|rng| rng.millis(low_ms, high_ms));
        self.exec.sleep(takes).await;
    }

    fn must_be_down(&self, member: usize) -> Result<(), String> {
        match self.world().machines[member].server {
            Some(_) => Err("postgres runs".to_owned()),
            None => Ok(()),
        }
    }

    /// initdb; gives the system identifier.
    pub(crate) async fn initdb(&self, member: usize, password: String) -> Result<u64, String> {
        self.must_be_down(member)?;
        self.world().machines[member].disk.data = Data::HalfMade("bootstrap");
        self.works(200, 1500).await;
        let mut world = self.world();
        let world = &mut *world;
        world.next_record += 1;
        let disk = &mut world.machines[member].disk;
        if disk.full {
            disk.clear();
            return Err("no space left on device".to_owned());
        }
        disk.clear();
        disk.system_id = 7_000_000 + world.next_record;
        disk.wal = Wal { timeline: 1, ..Wal::default() };
        disk.flushed = disk.wal.append(world.next_record, INITDB_BYTES);
        disk.checkpoint = disk.flushed - CHECKPOINT_BYTES;
        disk.control = ControlState::ShutDown;
        disk.data = Data::Ready;
        world.role_changes.push((world.next_record, RoleChange::Password(password)));
        if !world.options.made_by_another {
            world.role_changes.push((world.next_record, RoleChange::OwnRole));
        }
        Ok(disk.system_id)
    }

    /// A base backup; whatever was there lies aside until it has succeeded.
    pub(crate) async fn clone_from(&self, member: usize, source: usize) -> Result<(), String> {
        self.must_be_down(member)?;
        {
            let mut world = self.world();
            let in_place = world.options.mutation == Some(Mutation::WipeBeforeClone);
            let disk = &mut world.machines[member].disk;
            if disk.data == Data::Ready && in_place {
                drop(world);
                self.world().machines[member].disk.clear();
                last_copy::replaced(self, member);
            } else if matches!(disk.data, Data::Ready | Data::HalfMade("rewind")) {
                let aside = Box::new(Disk { aside: None, ..disk.clone() });
                disk.clear();
                disk.aside = Some(aside);
            } else {
                disk.clear();
            }
        }
        self.world().machines[member].disk.data = Data::HalfMade("clone");
        self.works(20, 200).await;
        let copied = self.copy_from(member, source).await;
        let mut world = self.world();
        let disk = &mut world.machines[member].disk;
        match copied {
            Err(why) => {
                disk.put_back();
                Err(why)
            }
            Ok(copy) => {
                let aside = disk.aside.take();
                disk.clear();
                *disk = Disk { full: disk.full, slow_ms: disk.slow_ms, ..copy };
                drop(world);
                if aside.is_some() {
                    last_copy::replaced(self, member);
                }
                Ok(())
            }
        }
    }

    /// What an interrupted clone had set aside is put back.
    pub(crate) async fn undo_clone(&self, member: usize) -> Result<(), String> {
        self.must_be_down(member)?;
        self.works(1, 20).await;
        self.world().machines[member].disk.put_back();
        Ok(())
    }

    async fn copy_from(&self, member: usize, source: usize) -> Result<Disk, String> {
        let (here, there) = (Host::Member(member), Host::Member(source));
        let pid = self.server_pid(source).ok_or("the source is down")?;
        self.log_in(member, source)?;
        for _ in 0..self.exec.rng(|rng| rng.between(3, 12)) {
            self.works(30, 180).await;
            let up = self.world().network.connects(here, there);
            if !up || !self.exec.is_alive(pid) || self.exec.is_frozen(pid) {
                return Err("the connection to the source broke".to_owned());
            }
        }
        let world = self.world();
        if world.machines[member].disk.full {
            return Err("no space left on device".to_owned());
        }
        let theirs = &world.machines[source].disk;
        let server = world.machines[source].server.as_ref().filter(|server| server.phase != Phase::Starting);
        let server = server.ok_or("the source does not answer")?;
        let mut copy = Disk {
            backup_label: true,
            unfinished: true,
            min_recovery: theirs.flushed,
            checkpoint: theirs.checkpoint,
            slots: Default::default(),
            aside: None,
            promote_file: false,
            ..theirs.clone()
        };
        copy.wal.cut(theirs.flushed);
        // The last of the WAL that the source wrote meanwhile may not have come along.
        let behind = self.exec.rng(|rng| match rng.permille(400) {
            true => rng.below(4),
            false => 0,
        });
        copy.lack_last(behind as usize);
        copy.control = match server.phase {
            Phase::Primary => ControlState::InProduction,
            Phase::Starting | Phase::Standby => ControlState::InArchiveRecovery,
        };
        Ok(copy)
    }

    /// Single-user mode: all local WAL is replayed, and a shutdown checkpoint follows it.
    pub(crate) async fn crash_recovery(&self, member: usize) -> Result<(), String> {
        self.must_be_down(member)?;
        if self.world().machines[member].disk.backup_label {
            return Err("a backup_label is left".to_owned());
        }
        self.works(50, 600).await;
        let mut world = self.world();
        let world = &mut *world;
        world.next_record += 1;
        let record = world.next_record;
        let disk = &mut world.machines[member].disk;
        if disk.full {
            return Err("no space left on device".to_owned());
        }
        disk.checkpoint = disk.wal.end();
        disk.checkpoint_timeline = disk.wal.timeline;
        disk.flushed = disk.wal.append(record, CHECKPOINT_BYTES);
        disk.control = ControlState::ShutDown;
        Ok(())
    }

    /// pg_rewind: back to where both histories were one, and from there on what the source has.
    pub(crate) async fn rewind(&self, member: usize, source: usize) -> Result<(), String> {
        self.must_be_down(member)?;
        let clean = [ControlState::ShutDown, ControlState::ShutDownInRecovery];
        if !clean.contains(&self.world().machines[member].disk.control) {
            self.crash_recovery(member).await?;
        }
        self.works(20, 200).await;
        self.log_in(member, source)?;
        let fork = {
            let world = self.world();
            let (mine, theirs) = (&world.machines[member].disk, &world.machines[source].disk);
            shared_end(&mine.wal, &theirs.wal)
        };
        let Some(fork) = fork else {
            // "no rewind required": one timeline number on both sides.
            return Ok(());
        };
        last_copy::overwritten(self, member);
        self.world().machines[member].disk.data = Data::HalfMade("rewind");
        let copied = self.copy_from(member, source).await;
        let mut world = self.world();
        let disk = &mut world.machines[member].disk;
        match copied {
            Err(why) => Err(why),
            Ok(copy) => {
                let checkpoint = fork.min(copy.flushed);
                let (full, slow_ms) = (disk.full, disk.slow_ms);
                let aside = disk.aside.take();
                *disk = Disk { full, slow_ms, checkpoint, aside, ..copy };
                disk.control = ControlState::InArchiveRecovery;
                Ok(())
            }
        }
    }

    /// CHECKPOINT on a running server.
    pub(crate) async fn checkpoint(&self, member: usize, number: i32) -> Result<(), String> {
        let slow_ms = self.world().machines[member].disk.slow_ms;
        let takes = self.exec.rng(|rng| rng.millis(3, 250 + 3 * slow_ms));
        // It goes on also when nobody waits for it any more.
        self.checkpoint_for(member, takes);
        self.exec.sleep(takes).await;
        self.until_disk_answers(member).await;
        let mut world = self.world();
        world.next_record += 1;
        let record = world.next_record;
        let machine = &mut world.machines[member];
        let Some(server) = machine.server.as_ref().filter(|server| server.number == number) else {
            return Err("the connection broke".to_owned());
        };
        if server.phase == Phase::Primary {
            let disk = &mut machine.disk;
            disk.checkpoint = disk.wal.end();
            disk.checkpoint_timeline = disk.wal.timeline;
            disk.flushed = disk.wal.append(record, CHECKPOINT_BYTES);
            server.changed.give(&self.exec);
        }
        Ok(())
    }

    fn checkpoint_for(&self, member: usize, takes: Duration) {
        let Some(pid) = self.server_pid(member) else { return };
        let count = move |sim: &Sim, more: bool| {
            if let Some(server) = sim.world().machines[member].server.as_mut() {
                let busy = server.sync.checkpoints;
                server.sync.checkpoints = if more { busy + 1 } else { busy.saturating_sub(1) };
            }
        };
        count(self, true);
        let sim = self.clone();
        self.exec.spawn(pid, async move {
            sim.exec.sleep(takes).await;
            count(&sim, false);
        });
    }

    /// Waits while the disk hangs.
    pub(crate) async fn until_disk_answers(&self, member: usize) {
        while 0 < self.world().machines[member].disk_hangs {
            self.exec.sleep(Duration::from_millis(20)).await;
        }
    }

    /// A frozen server is all of it.
    pub(crate) fn is_frozen_whole(&self, member: usize) -> bool {
        self.server_pid(member).is_some_and(|pid| self.exec.is_frozen(pid))
    }

    /// Waits while a server that is asked is frozen.
    pub(crate) async fn until_it_runs(&self, member: usize, number: i32) -> Result<(), String> {
        loop {
            let Some(pid) = self.server_pid(member).filter(|_| self.runs(member, number)) else {
                return Err("the server is gone".to_owned());
            };
            if !self.exec.is_frozen(pid) {
                return Ok(());
            }
            self.exec.sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The last position that both histories have, by their timelines; `None` when one continues the other.
fn shared_end(mine: &Wal, theirs: &Wal) -> Option<u64> {
    let end_of = |wal: &Wal, timeline: u32| {
        let switch = wal.switches.iter().find(|(old, _)| *old == timeline).map(|(_, end)| *end);
        switch.or((wal.timeline == timeline).then(|| wal.end()))
    };
    if mine.timeline == theirs.timeline {
        return None;
    }
    let timelines = mine.switches.iter().map(|(timeline, _)| *timeline).chain([mine.timeline]);
    let mut common = 0;
    for timeline in timelines {
        let (Some(my_end), Some(their_end)) = (end_of(mine, timeline), end_of(theirs, timeline)) else {
            break;
        };
        common = my_end.min(their_end);
        if timeline == mine.timeline && my_end <= their_end {
            return None;
        }
        if my_end != their_end {
            break;
        }
    }
    Some(common)
}
