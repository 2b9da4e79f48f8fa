//! Replication slots: those of the members, and unused ones.
//!
//! A slot that no member uses and no setting keeps retains WAL until the disk is full. Like Patroni, this module drops
//! it, but only after its owner had time to come back. A slot in use stays.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::tick::Tick;
use crate::model::{Action, MemberKey, MemberName, Moment, SlotFacts, SqlFacts, WaitingOn, slot_name};

/// The pause before failed statements are repeated.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// On the leader: a slot for every member that streams from it, kept for `member_slots_ttl` after the member went away.
pub(super) fn on_leader(tick: &mut Tick<'_>, sql: &SqlFacts) {
    if !tick.seen.settings.use_slots {
        return;
    }
    let me = tick.seen.me.name.clone();
    let wanted = streaming_from_me(tick);
    let inherited = tick.cluster().and_then(|cluster| cluster.status.as_ref()?.retain_slots.clone());
    for slot in inherited.filter(|_| !tick.memory.slots.inherited).unwrap_or_default() {
        if slot != slot_name(&me) {
            tick.memory.slots.wanted.entry(slot).or_insert(tick.now);
        }
    }
    tick.memory.slots.inherited = true;
    for slot in &wanted {
        tick.memory.slots.wanted.insert(slot.clone(), tick.now);
    }
    let horizon = tick.now - tick.seen.settings.member_slots_ttl;
    let known = &tick.memory.slots.wanted;
    let keep: Vec<String> =
        known.iter().filter(|(_, last)| horizon <= **last).map(|(slot, _)| slot.clone()).collect();
    // No WAL can be streamed through a lost slot, not even by the clone that its member makes for lack of WAL.
    let lost: Vec<String> = keep.iter().filter(|slot| is_lost(sql, slot)).cloned().collect();
    let create =
        keep.into_iter().filter(|slot| !sql.slots.contains_key(slot) || lost.contains(slot)).collect();
    let expired =
        known.iter().filter(|(_, last)| **last < horizon).map(|(slot, _)| slot.clone()).collect::<Vec<_>>();
    let mut drop: Vec<String> =
        expired.iter().filter(|slot| is_idle(sql, slot)).cloned().chain(lost).collect();
    let asked = known.keys().cloned().collect();
    drop.extend(unused(tick, sql, &asked, tick.seen.settings.member_slots_ttl));
    tick.memory.slots.wanted.retain(|slot, _| !expired.contains(slot) || sql.slots.contains_key(slot));
    set(tick, create, drop);
}

/// While I am promoted: the slots that members need as soon as they connect. A refused member tries again only after
/// `wal_retrieve_retry_interval`, and in synchronous modes every commit waits for it.
pub(super) fn while_promoting(tick: &mut Tick<'_>) {
    let known = |slot: &String| {
        tick.seen.postgres.answering().is_some_and(|sql: &SqlFacts| sql.slots.contains_key(slot))
    };
    let create: Vec<String> = streaming_from_me(tick).into_iter().filter(|slot| !known(slot)).collect();
    if tick.seen.settings.use_slots && !create.is_empty() {
        tick.act(Action::SetSlots { create, drop: Vec::new() });
    }
}

/// The slots of all members except those that cascade from another.
fn streaming_from_me(tick: &Tick<'_>) -> BTreeSet<String> {
    let me = &tick.seen.me.name;
    let cascades = |key: &MemberKey| key.record.tags.replicatefrom().filter(|source| source != me);
    let elsewhere: BTreeSet<&MemberName> = tick.others().map(|(name, _)| name).collect();
    let streaming = tick.others().filter(|(_, key)| !key.record.tags.nostream());
    streaming
        .filter(|(_, key)| cascades(key).is_none_or(|source| !elsewhere.contains(&source)))
        .map(|(name, _)| slot_name(name))
        .collect()
}

/// On a standby: slots only for the members that cascade from it. Other slots would retain WAL for ever.
pub(super) fn on_standby(tick: &mut Tick<'_>, sql: &SqlFacts) {
    let me = tick.seen.me.name.clone();
    let from_me = |key: &MemberKey| key.record.tags.replicatefrom().as_ref() == Some(&me);
    let split = |wanted: bool| -> Vec<String> {
        tick.others().filter(|(_, key)| from_me(key) == wanted).map(|(name, _)| slot_name(name)).collect()
    };
    let wanted = split(true);
    let unwanted = split(false).into_iter().filter(|slot| !wanted.contains(slot));
    let mut drop: Vec<String> = unwanted.filter(|slot| is_idle(sql, slot)).collect();
    let create = wanted.iter().filter(|slot| !sql.slots.contains_key(*slot)).cloned().collect();
    if tick.seen.settings.use_slots {
        let asked = wanted.into_iter().chain(drop.iter().cloned()).collect();
        drop.extend(unused(tick, sql, &asked, Duration::ZERO));
        set(tick, create, drop);
    }
}

/// Slots to drop: for `patience`, and for one `loop_wait` at least, no connection has used them, no member has wanted
/// them, and no setting has kept them.
fn unused(tick: &mut Tick<'_>, sql: &SqlFacts, asked: &BTreeSet<String>, patience: Duration) -> Vec<String> {
    let settings = &tick.seen.settings;
    let patience = patience.max(settings.loop_wait);
    let is_nobodys =
        |name: &String, facts: &SlotFacts| !asked.contains(name) && is_nobodys(tick, sql, name, facts);
    let nobodys = sql.slots.iter().filter(|(name, facts)| !settings.pause && is_nobodys(name, facts));
    let since = |name: &String| tick.memory.slots.idle.get(name).copied().unwrap_or(tick.now);
    let idle: BTreeMap<String, Moment> = nobodys.map(|(name, _)| (name.clone(), since(name))).collect();
    let next = idle.values().map(|since| *since + patience).filter(|at| tick.now < *at).min();
    if let Some(at) = next {
        tick.wake_at(at, WaitingOn::Retry);
    }
    let due = idle.iter().filter(|(_, since)| **since + patience <= tick.now);
    let due = due.map(|(name, _)| name.clone()).collect();
    tick.memory.slots.idle = idle;
    due
}

/// Whether no connection uses it, no setting keeps it, and PostgreSQL itself does not manage it (copied from the
/// primary, or to be synchronized to standbys).
fn is_nobodys(tick: &Tick<'_>, sql: &SqlFacts, name: &str, facts: &SlotFacts) -> bool {
    let by_postgres = facts.synced || (facts.failover && sql.is_primary());
    !facts.active && !by_postgres && !tick.seen.settings.slots.keep(name, facts)
}

fn is_lost(sql: &SqlFacts, slot: &str) -> bool {
    sql.slots.get(slot).is_some_and(|facts| facts.lost && !facts.active)
}

fn is_idle(sql: &SqlFacts, slot: &str) -> bool {
    sql.slots.get(slot).is_some_and(|facts| facts.kind == "physical" && !facts.active)
}

fn set(tick: &mut Tick<'_>, create: Vec<String>, drop: Vec<String>) {
    if (create.is_empty() && drop.is_empty()) || tick.seen.settings.pause {
        return;
    }
    let lately = tick.memory.slots.asked.as_ref().filter(|(created, dropped, at)| {
        (created, dropped) == (&create, &drop) && tick.now < *at + AGAIN_AFTER
    });
    if let Some((_, _, at)) = lately {
        tick.wake_at(*at + AGAIN_AFTER, WaitingOn::Retry);
        return;
    }
    tick.memory.slots.asked = Some((create.clone(), drop.clone(), tick.now));
    tick.act(Action::SetSlots { create, drop });
}
