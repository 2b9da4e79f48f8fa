//! What the leader publishes about its slots, in the key `status`.

use std::collections::BTreeMap;

use super::super::tick::Tick;
use crate::model::{Lsn, SlotFacts, SlotKind, SqlFacts, slot_name};

/// Where each slot is, and under my own name where I am. Not what PostgreSQL synchronizes by itself. Where slots of
/// absent members are not kept, only permanent slots: the others are not to be on standbys.
pub(in super::super) fn published(tick: &Tick<'_>, sql: &SqlFacts) -> BTreeMap<String, Lsn> {
    let settings = &tick.seen.settings;
    let all = !settings.member_slots_ttl.is_zero();
    let conflicts = tick.cluster().map(|cluster| settings.slots.conflicts(cluster)).unwrap_or_default();
    let is_permanent =
        |name: &str| settings.slots.permanent.contains_key(name) && !conflicts.contains_key(name);
    let is_shown = |name: &String, facts: &SlotFacts| {
        let by_postgres = facts.failover && facts.synced;
        !by_postgres && (all || is_permanent(name))
    };
    let shown = sql.slots.iter().filter(|(name, facts)| is_shown(name, facts));
    let mut slots: BTreeMap<String, Lsn> =
        shown.filter_map(|(name, facts)| Some((name.clone(), facts.position?))).collect();
    let mine = slot_name(&tick.seen.me.name);
    if all || is_permanent(&mine) {
        slots.insert(mine, sql.lsn());
    }
    slots
}

/// The slots of members that are kept although their member may be away. A permanent one is kept in any case.
pub(in super::super) fn retained(tick: &Tick<'_>) -> Vec<String> {
    let settings = &tick.seen.settings;
    if settings.member_slots_ttl.is_zero() {
        return Vec::new();
    }
    let is_permanent = |slot: &String| settings.slots.permanent.get(slot) == Some(&SlotKind::Physical);
    tick.memory.slots.wanted.keys().filter(|slot| !is_permanent(slot)).cloned().collect()
}
