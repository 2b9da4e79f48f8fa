//! No promotion outside the sync record: where the key `sync` is in force it names whoever is promoted, before that.

use crate::sim::world::Sim;

pub(crate) fn promoted(sim: &Sim, member: usize) {
    judge(sim, member, 0);
}

/// A leader goes on until its lease ends by what it knows, whatever a restored store says of the time before it led.
pub(crate) fn continued(sim: &Sim, member: usize) {
    let restored = sim.world().ledger.memory.restored;
    judge(sim, member, restored);
}

/// By the key, if it was written after this revision.
fn judge(sim: &Sim, member: usize, after: i64) {
    let mut world = sim.world();
    let key = world.etcd.store.keys.get(&world.keys.path("sync"));
    let Some(key) = key.filter(|key| after < key.mod_revision) else { return };
    let record: serde_json::Value = serde_json::from_slice(&key.value).unwrap_or_default();
    let named = record.get("leader").and_then(serde_json::Value::as_str);
    if named != Some(world.machines[member].name.as_str()) {
        let text = format!("{member} becomes primary, and the key sync says {record}");
        world.ledger.break_promise("sync_record", text);
    }
}
