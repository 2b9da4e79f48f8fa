//! The leader key is not given to nobody: while etcd takes no writes nobody can take it, and a store that did not go
//! back in time is not voided.

use crate::sim::world::Sim;

/// A leader has deleted its key. Who ends may do so in any case.
pub(crate) fn released(sim: &Sim, member: usize, ends: bool) {
    let full = sim.world().etcd.no_space;
    if full && !ends {
        let text = format!("member {member} gave the leader key away, and etcd takes no writes");
        sim.world().ledger.break_promise("kept", text);
    }
}

/// A generation has begun: leader key and sync record are deleted.
pub(crate) fn voided(sim: &Sim, member: usize) {
    let mut world = sim.world();
    if !world.ledger.memory.store_lost {
        let text = format!("member {member} voided a store that did not go back in time");
        world.ledger.break_promise("kept", text);
    }
}
