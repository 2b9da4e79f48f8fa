//! Acknowledged commits survive: in asynchronous mode up to the lag limit, otherwise all of them.

use std::time::Duration;

use crate::sim::world::Sim;

/// A failover that an operator asked for happens within this, or as long as the request lies in etcd, or not at all.
const FORCED_FOR: Duration = Duration::from_secs(60);

/// Whoever becomes primary has to hold every promise, or in asynchronous mode all but the newest.
pub(crate) fn promoted(sim: &Sim, member: usize) {
    let mut world = sim.world();
    let world = &mut *world;
    let wal = &world.machines[member].disk.wal;
    let limit = world.options.settings.maximum_lag_on_failover;
    let status = world.etcd.store.keys.get(&world.keys.path("status"));
    let optime = status
        .and_then(|key| serde_json::from_slice::<serde_json::Value>(&key.value).ok())
        .and_then(|value| value.get("optime").and_then(serde_json::Value::as_u64));
    // A hand-over writes both keys at once, when nothing can be promised any more.
    let leader = world.etcd.store.keys.get(&world.keys.path("leader"));
    let handed =
        leader.zip(status).is_some_and(|(leader, status)| leader.mod_revision == status.mod_revision);
    // Once the key `sync` is in force whoever is promoted holds everything; and what was promised under it, also where
    // it is gone, unless an operator wanted that. Who is promoted may have put it in force itself, for what comes.
    let since = world.etcd.store.there_since(&world.keys.path("sync"));
    let in_force = since.is_some_and(|since| leader.is_none_or(|leader| since < leader.mod_revision));
    let published_up_to = optime.unwrap_or(0).saturating_sub(limit);
    let published = world.etcd.store.keys.get(&world.keys.path("history"));
    let published: Vec<u64> = published
        .and_then(|key| serde_json::from_slice::<Vec<serde_json::Value>>(&key.value).ok())
        .map(|lines| lines.iter().filter_map(|line| line.get(0)?.as_u64()).collect())
        .unwrap_or_default();
    let now = sim.now();
    // Without a `leader` it is a failover, which takes the loss; a switchover takes none.
    let request = world.etcd.store.keys.get(&world.keys.path("failover"));
    let request = request.and_then(|key| serde_json::from_slice::<serde_json::Value>(&key.value).ok());
    let still_asked = request.is_some_and(|asked| {
        asked.get("leader").is_none() && asked["member"] == serde_json::json!(world.machines[member].name)
    });
    let asked_at = world.ledger.memory.forced.get(&member);
    let forced = asked_at.is_some_and(|at| still_asked || now < *at + FORCED_FOR);
    let mut worst = None;
    for promise in world.ledger.promises.iter_mut().filter(|promise| !promise.written_off) {
        if wal.holds(promise.number) {
            continue;
        }
        // What a leader acknowledged before etcd heard of its timeline is not before any position that etcd heard of.
        let known = promise.parent.is_none_or(|parent| published.contains(&u64::from(parent)));
        let in_force = (in_force || promise.bound) && !promise.released;
        let owed = handed || in_force || (promise.lsn <= published_up_to && known);
        if owed && (!forced || handed) {
            worst = Some(*promise);
        }
        promise.written_off = true;
    }
    if let Some(lost) = worst {
        let text = format!(
            "{member} becomes primary without the commit {} at {}, and the leader had published {optime:?}, with \
             {limit} to be lost at most, {}",
            lost.number,
            lost.lsn,
            match (handed, in_force || lost.bound) {
                (true, _) => "and nothing in a hand-over",
                (_, true) => "and nothing under the key sync",
                (false, false) => "in a failover",
            }
        );
        world.ledger.break_promise("loss", text);
    }
}
