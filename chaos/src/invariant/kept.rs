//! The leader key is not given to nobody: while etcd takes no writes nobody can take it.

use crate::sim::world::Sim;

/// A leader has deleted its key. Who ends may do so in any case.
pub(crate) fn released(sim: &Sim, member: usize, ends: bool) {
    let full = sim.world().etcd.no_space;
    if full && !ends {
        let text = format!("member {member} gave the leader key away, and etcd takes no writes");
        sim.world().ledger.break_promise("kept", text);
    }
}
