//! No data is thrown away while it is the last copy.

use crate::sim::postgres::disk::{Data, Disk};
use crate::sim::world::Sim;

/// Somebody else, or for what lies aside its own new directory, holds a whole copy of the same cluster.
pub(crate) fn check(sim: &Sim, member: usize, aside: bool) {
    let mut world = sim.world();
    let whole = |disk: &Disk| disk.data == Data::Ready;
    let others = world.machines.iter().enumerate();
    let copies = others.filter(|(index, machine)| (aside || *index != member) && whole(&machine.disk)).count();
    if copies == 0 {
        let text = format!("{member} throws its data away, and nobody else has any");
        world.ledger.break_promise("last_copy", text);
    }
}
