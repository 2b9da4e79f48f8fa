//! One writer at any instant.

use crate::sim::postgres::Server;
use crate::sim::world::Sim;

/// A frozen server writes nothing; the moment it goes on it counts again.
pub(crate) fn check(sim: &Sim) {
    let writers: Vec<usize> = {
        let world = sim.world();
        let writes = |server: &Server| server.is_writable() && !sim.exec.is_frozen(server.pid);
        let machines = world.machines.iter().enumerate();
        machines
            .filter(|(_, machine)| machine.server.as_ref().is_some_and(writes))
            .map(|(at, _)| at)
            .collect()
    };
    if 1 < writers.len() {
        sim.world().ledger.break_promise("one_writer", format!("{writers:?} accept writes at once"));
    }
}
