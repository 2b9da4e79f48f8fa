//! No promotion outside the sync record: where the key `sync` is in force it names whoever is promoted, before that.

use crate::sim::world::Sim;

pub(crate) fn promoted(sim: &Sim, member: usize) {
    let mut world = sim.world();
    let Some(key) = world.etcd.store.keys.get(&world.keys.path("sync")) else { return };
    let record: serde_json::Value = serde_json::from_slice(&key.value).unwrap_or_default();
    let named = record.get("leader").and_then(serde_json::Value::as_str);
    if named != Some(world.machines[member].name.as_str()) {
        let text = format!("{member} becomes primary, and the key sync says {record}");
        world.ledger.break_promise("sync_record", text);
    }
}
