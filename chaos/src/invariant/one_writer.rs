//! One writer at any instant, besides leaders that were replaced and can acknowledge nothing.

use crate::sim::postgres::Server;
use crate::sim::world::Sim;

/// A frozen server writes nothing; the moment it goes on it counts again.
pub(crate) fn check(sim: &Sim) {
    let writers: Vec<usize> = {
        let world = sim.world();
        let writes = |server: &Server| server.is_writable() && !sim.exec.is_frozen(server.pid);
        let deposals = &world.ledger.memory.deposals;
        let machines = world.machines.iter().enumerate();
        machines
            .filter(|(at, machine)| {
                machine.server.as_ref().is_some_and(writes) && !deposals.holds(*at, sim.now())
            })
            .map(|(at, _)| at)
            .collect()
    };
    if 1 < writers.len() {
        sim.world().ledger.break_promise("one_writer", format!("{writers:?} accept writes at once"));
    }
}
