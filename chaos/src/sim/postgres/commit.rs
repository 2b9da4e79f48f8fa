//! A client's transaction: written, flushed, confirmed by as many standbys as are waited for, acknowledged.

use matriarch::model::SyncMode;

use super::Server;
use crate::invariant::{deposed, false_alarm};
use crate::sim::clients::Promise;
use crate::sim::world::Sim;

/// What a client hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Committed {
    /// Promised.
    Yes,
    /// Not tried: no primary here.
    Refused,
}

impl Sim {
    /// Runs in the server; gives no answer if the server ends before.
    pub(crate) async fn commit(&self, member: usize, server_number: i32) -> Committed {
        let began = self.now();
        let written = {
            let mut world = self.world();
            let world = &mut *world;
            let machine = &mut world.machines[member];
            let writable = machine.server.as_ref().is_some_and(Server::is_writable);
            if !writable
                || machine.disk.clients_locked_out
                || machine.server.as_ref().is_none_or(|server| server.number != server_number)
            {
                return Committed::Refused;
            }
            if machine.disk.full {
                None
            } else {
                world.next_record += 1;
                let bytes = self.exec.rng(|rng| rng.between(60, 900));
                let lsn = machine.disk.wal.append(world.next_record, bytes * world.options.bytes_factor);
                Some((world.next_record, lsn, machine.disk.slow_ms))
            }
        };
        let Some((number, lsn, slow_ms)) = written else {
            // PANIC: could not write to file.
            self.end_server(member, server_number, "signal: 6, no space left on device");
            return Committed::Refused;
        };
        let takes = self.exec.rng(|rng| rng.micros(150, 1500 + slow_ms * 1000));
        self.exec.sleep(takes).await;
        self.until_disk_answers(member).await;
        let changed = {
            let mut world = self.world();
            let machine = &mut world.machines[member];
            machine.disk.flushed = machine.disk.flushed.max(machine.disk.wal.end().min(lsn));
            let Some(server) = machine.server.as_ref() else { return Committed::Refused };
            server.changed.give(&self.exec);
            server.changed.clone()
        };
        loop {
            {
                let mut world = self.world();
                let machine = &mut world.machines[member];
                let confirmed = machine.is_confirmed(lsn);
                let parent = machine.disk.wal.switches.last().map(|(parent, _)| *parent);
                let Some(server) = machine.server.as_mut() else { return Committed::Refused };
                if confirmed {
                    server.sync.waiting.remove(&(number as i32));
                    let on = world.options.settings.sync.mode != SyncMode::Off;
                    let bound = on && world.etcd.store.keys.contains_key(&world.keys.path("sync"));
                    let promise = Promise { number, lsn, parent, bound, released: !on, written_off: false };
                    world.ledger.promises.push(promise);
                    drop(world);
                    false_alarm::acknowledged(self, began);
                    deposed::acknowledged(self, member, lsn);
                    return Committed::Yes;
                }
                server.sync.waiting.insert(number as i32);
            }
            changed.wait(&self.exec).await;
        }
    }
}
