//! Replication slots: those of the members, permanent ones, and unused ones.
//!
//! ```text
//! members, retained, permanent ──► wanted ──┐
//!                                           ├──► one set of changes: drop, create, advance
//! slots that no one wants ───────► unused ──┘
//! ```
//!
//! A slot that nobody uses and nobody moves retains WAL until the disk is full. So a standby has a slot only while the
//! leader publishes where that slot is, and moves its own to that place. A slot that no member wants and no setting
//! keeps is dropped, but only after its owner had time to come back. A slot in use stays. A slot also lets a member in:
//! a standby makes one only for a member that shows the present timeline.

mod logical;
mod published;
mod unused;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub(super) use self::published::{published, retained};
use self::wanted::WantedSlot;
use super::tick::Tick;
use crate::model::{
    Action, ClusterView, LeaderKey, Lsn, Me, Settings, SlotChanges, SlotFacts, SlotKind, SqlFacts, Standby,
    WaitingOn, slot_name,
};

/// The pause before failed statements are repeated.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// On the leader: the permanent slots, and one for every member, kept for `member_slots_ttl` after the member went
/// away.
pub(super) fn on_leader(tick: &mut Tick<'_>, sql: &SqlFacts) {
    if !tick.seen.settings.use_slots {
        return;
    }
    remember_members(tick);
    let horizon = tick.now - tick.seen.settings.member_slots_ttl;
    let (kept, expired): (BTreeMap<_, _>, BTreeMap<_, _>) =
        tick.memory.slots.wanted.clone().into_iter().partition(|(_, last)| horizon <= *last);
    let wanted = wanted::on_leader(tick, sql, kept.into_keys());
    let mut changes = changes(tick, sql, &wanted);
    let is_over = |slot: &&String| !wanted.contains_key(*slot) && is_idle(tick, sql, slot);
    changes.drop.extend(expired.keys().filter(is_over).cloned());
    let asked = wanted.keys().chain(expired.keys()).cloned().collect();
    changes.drop.extend(unused::due(tick, sql, &asked, tick.seen.settings.member_slots_ttl));
    tick.memory.slots.wanted.retain(|slot, _| !expired.contains_key(slot) || sql.slots.contains_key(slot));
    set(tick, changes);
    logical::on_leader(tick, sql, &wanted);
    tick.memory.slots.logical.doubtful.clear();
}

/// Whose slots are to be kept: those of the present members, and those that the former leader retained.
fn remember_members(tick: &mut Tick<'_>) {
    let me = slot_name(&tick.seen.me.name);
    let inherited = tick.cluster().and_then(|cluster| cluster.status.as_ref()?.retain_slots.clone());
    for slot in inherited.filter(|_| !tick.memory.slots.inherited).unwrap_or_default() {
        if slot != me {
            tick.memory.slots.wanted.insert(slot, tick.now);
        }
    }
    tick.memory.slots.inherited = true;
    for slot in wanted::of_members(tick) {
        tick.memory.slots.wanted.insert(slot, tick.now);
    }
}

/// While I am promoted: the slots that members need as soon as they connect. A refused member tries again only after
/// `wal_retrieve_retry_interval`, and in synchronous modes every commit waits for it.
pub(super) fn while_promoting(tick: &mut Tick<'_>) {
    let sql = tick.seen.postgres.answering();
    tick.memory.slots.logical.doubtful = sql.map_or_else(Vec::new, |sql| logical::unsafe_slots(tick, sql));
    let known = |slot: &String| sql.is_some_and(|sql| sql.slots.contains_key(slot));
    let create: Vec<String> =
        wanted::streaming_from_me(tick).into_iter().filter(|slot| !known(slot)).collect();
    if tick.seen.settings.use_slots && !create.is_empty() {
        tick.act(Action::SetSlots(SlotChanges { create, ..SlotChanges::default() }));
    }
}

/// On a standby: the slots that the leader publishes, so that WAL is there if this standby takes over, and those of the
/// members that cascade from it.
pub(super) fn on_standby(tick: &mut Tick<'_>, leader: &LeaderKey, sql: &SqlFacts) {
    if !tick.seen.settings.use_slots {
        return leave_members(tick, sql);
    }
    let wanted = wanted::on_standby(tick);
    let mut changes = changes(tick, sql, &wanted);
    let in_the_way = in_the_way(tick, sql, &wanted);
    let asked = wanted.keys().chain(&in_the_way).cloned().collect();
    changes.drop.extend(unused::due(tick, sql, &asked, Duration::ZERO));
    changes.drop.extend(in_the_way);
    set(tick, changes);
    logical::on_standby(tick, leader, sql, &wanted);
}

/// Nothing moves the members' slots here any more, so they would retain WAL for ever.
fn leave_members(tick: &mut Tick<'_>, sql: &SqlFacts) {
    let members = tick.cluster().into_iter().flat_map(|cluster| cluster.members.keys());
    let drop = members.map(slot_name).filter(|slot| is_idle(tick, sql, slot)).collect();
    set(tick, SlotChanges { drop, ..SlotChanges::default() });
}

/// Whether a member needs `hot_standby_feedback`: only that keeps the catalogs for the logical slots here, or on a
/// member that cascades from it.
pub fn needs_feedback(settings: &Settings, me: &Me, cluster: Option<&ClusterView>) -> bool {
    let is_logical = |kind: &SlotKind| *kind != SlotKind::Physical;
    let members = cluster.into_iter().flat_map(|cluster| cluster.members.values());
    let supplies =
        || members.into_iter().any(|key| key.record.tags.replicatefrom().as_ref() == Some(&me.name));
    let is_wanted = settings.use_slots && settings.slots.permanent.values().any(is_logical);
    is_wanted && !me.tags.nostream() && (!me.tags.nofailover() || supplies())
}

/// What makes the present slots the wanted ones.
fn changes(tick: &Tick<'_>, sql: &SqlFacts, wanted: &BTreeMap<String, WantedSlot>) -> SlotChanges {
    let drops = |(name, slot): &(&String, &WantedSlot)| {
        let facts = sql.slots.get(*name);
        facts.is_some_and(|facts| is_unusable(sql, slot, facts) && may_drop(tick, name, facts))
    };
    let (unusable, others): (Vec<_>, Vec<_>) = wanted.iter().partition(drops);
    let missing = others.iter().filter(|(name, slot)| slot.creates && !sql.slots.contains_key(*name));
    let create = missing.chain(&unusable).filter(|(_, slot)| slot.kind == SlotKind::Physical);
    let mut create: Vec<String> = create.map(|(name, _)| (*name).clone()).collect();
    create.sort_unstable();
    let advance = |(name, slot): (&String, &WantedSlot)| {
        Some((name.clone(), advanced_to(sql, slot, sql.slots.get(name)?)?))
    };
    SlotChanges {
        drop: unusable.into_iter().map(|(name, _)| name.clone()).collect(),
        create,
        advance: others.into_iter().filter_map(advance).collect(),
    }
}

/// Where a physical slot that nobody uses here is to be moved.
fn advanced_to(sql: &SqlFacts, slot: &WantedSlot, facts: &SlotFacts) -> Option<Lsn> {
    let to = slot.user.position()?.min(reached(sql));
    let is_behind = facts.restart.is_some_and(|restart| restart < to);
    (is_behind && !facts.active && slot.kind == SlotKind::Physical && slot.kind.fits(facts)).then_some(to)
}

/// The WAL up to which a slot here can be moved.
fn reached(sql: &SqlFacts) -> Lsn {
    match &sql.standby {
        Standby::No => sql.flushed,
        Standby::Yes { replayed, .. } => *replayed,
    }
}

/// Whether nothing can use it as it is. Not even the clone that a member makes for lack of WAL streams through a lost
/// slot.
fn is_unusable(sql: &SqlFacts, slot: &WantedSlot, facts: &SlotFacts) -> bool {
    !slot.kind.fits(facts)
        || facts.lost
        || facts.restart.is_none()
        || is_in_the_way(sql, facts)
        || holds_back(slot, facts)
}

/// The slots of the time when this member led that PostgreSQL 17 is to synchronize from the leader now. The leader does
/// not publish those, so they are not among the wanted ones, whatever the settings name.
fn in_the_way(tick: &Tick<'_>, sql: &SqlFacts, wanted: &BTreeMap<String, WantedSlot>) -> Vec<String> {
    let is_left = |(name, facts): &(&String, &SlotFacts)| {
        !wanted.contains_key(*name) && is_in_the_way(sql, facts) && may_drop(tick, name, facts)
    };
    let left = sql.slots.iter().filter(|_| !tick.seen.settings.pause).filter(is_left);
    left.map(|(name, _)| name.clone()).collect()
}

/// PostgreSQL 17 does not synchronize a slot over one of the same name that it did not make itself.
fn is_in_the_way(sql: &SqlFacts, facts: &SlotFacts) -> bool {
    facts.failover && !facts.synced && !sql.is_primary()
}

/// A slot whose user is elsewhere must not hold back vacuum for that user.
fn holds_back(slot: &WantedSlot, facts: &SlotFacts) -> bool {
    facts.has_xmin && facts.kind == "physical" && slot.user.position().is_some()
}

/// Whether it may be dropped now. What PostgreSQL itself has copied from the primary, it drops itself.
fn may_drop(tick: &Tick<'_>, name: &str, facts: &SlotFacts) -> bool {
    !facts.active && !facts.synced && !tick.seen.settings.slots.ignores(name, facts)
}

fn is_idle(tick: &Tick<'_>, sql: &SqlFacts, slot: &str) -> bool {
    let is_idle = |facts: &SlotFacts| facts.kind == "physical" && may_drop(tick, slot, facts);
    sql.slots.get(slot).is_some_and(is_idle)
}

fn set(tick: &mut Tick<'_>, changes: SlotChanges) {
    let mut changes = changes;
    if tick.seen.settings.pause {
        // A slot to drop is not created either: it is there.
        let dropped: BTreeSet<String> = std::mem::take(&mut changes.drop).into_iter().collect();
        changes.create.retain(|slot| !dropped.contains(slot));
    }
    if changes.is_empty() {
        return;
    }
    let lately = tick.memory.slots.asked.as_ref();
    let lately = lately.filter(|(asked, at)| asked.is_like(&changes) && tick.now < *at + AGAIN_AFTER);
    if let Some((_, at)) = lately {
        tick.wake_at(*at + AGAIN_AFTER, WaitingOn::Retry);
        return;
    }
    tick.memory.slots.asked = Some((changes.clone(), tick.now));
    tick.act(Action::SetSlots(changes));
}
