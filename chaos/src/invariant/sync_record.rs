//! No promotion outside the sync record: where the key `sync` is in force it names whoever becomes primary before that.

use crate::sim::world::Sim;

pub(crate) fn promoted(sim: &Sim, member: usize) {
    let now = sim.now();
    let mut world = sim.world();
    let memory = &world.ledger.memory;
    // A leader goes on until its lease ends by what it knows, whatever a restored store says of the time before it led.
    let goes_on = memory.go_on.get(&member).is_some_and(|until| now <= *until);
    let restored = if goes_on { memory.restored } else { 0 };
    let key = world.etcd.store.keys.get(&world.keys.path("sync"));
    let Some(key) = key.filter(|key| restored < key.mod_revision) else { return };
    let record: serde_json::Value = serde_json::from_slice(&key.value).unwrap_or_default();
    let named = record.get("leader").and_then(serde_json::Value::as_str);
    if named != Some(world.machines[member].name.as_str()) {
        let text = format!("{member} becomes primary, and the key sync says {record}");
        world.ledger.break_promise("sync_record", text);
    }
}
