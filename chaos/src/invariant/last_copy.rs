//! No data is thrown away while it is the last copy, and no second cluster is made beside one.

use crate::sim::postgres::disk::{Data, Disk};
use crate::sim::world::Sim;

fn is_whole(disk: &Disk) -> bool {
    disk.data == Data::Ready
}

/// A clone deletes what it replaces only when it is whole itself.
pub(crate) fn replaced(sim: &Sim, member: usize) {
    let mut world = sim.world();
    if !is_whole(&world.machines[member].disk) {
        let text = format!("{member} deletes its data before it has other");
        world.ledger.break_promise("last_copy", text);
    }
}

/// A rewind overwrites in place: somebody else has a whole copy.
pub(crate) fn overwritten(sim: &Sim, member: usize) {
    let mut world = sim.world();
    let others = world.machines.iter().enumerate().filter(|(index, _)| *index != member);
    if others.filter(|(_, machine)| is_whole(&machine.disk)).count() == 0 {
        let text = format!("{member} overwrites its data, and nobody else has any");
        world.ledger.break_promise("last_copy", text);
    }
}

/// A cluster is created: nobody may have been promised anything before.
pub(crate) fn created(sim: &Sim, member: usize) {
    let mut world = sim.world();
    let promised = world.ledger.promises.len();
    let mut others = world.machines.iter().enumerate().filter(|(index, _)| *index != member);
    if 0 < promised && others.any(|(_, machine)| is_whole(&machine.disk)) {
        let text = format!("{member} creates a cluster beside one in which {promised} commits were promised");
        world.ledger.break_promise("last_copy", text);
    }
}
