//! Permanent logical slots: created on the leader, copied to the standbys and moved there.
//!
//! ```text
//!  on a standby:  ask the leader ──► copies its slot's state ──► restart ──► the slot is here ──► move it
//! ```
//!
//! A copied slot can be used once nothing has been vacuumed that it needs: the leader's slot holds that back until the
//! physical slot of this standby does, by `hot_standby_feedback`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::clone::leader_serves;
use super::super::requests;
use super::super::tick::Tick;
use super::wanted::{self, WantedSlot};
use super::{is_in_the_way, reached};
use crate::model::{
    Action, LeaderKey, LeaderSlots, LeaderSlotsQuestion, LogicalAdvance, LogicalSlotChanges, MemberName,
    SlotFacts, SlotKind, SqlFacts, WaitingOn, slot_name,
};

/// A slot that is not here after a restart for it, or not usable again, is copied again only after this.
const COPY_AGAIN_AFTER: Duration = Duration::from_secs(300);

/// On the leader: creates those that are missing.
pub(super) fn on_leader(tick: &mut Tick<'_>, sql: &SqlFacts, wanted: &BTreeMap<String, WantedSlot>) {
    let missing = wanted
        .iter()
        .filter(|(name, slot)| slot.kind != SlotKind::Physical && !sql.slots.contains_key(name.as_str()));
    let create = missing.map(|(name, slot)| (name.clone(), slot.kind.clone())).collect();
    order(tick, LogicalSlotChanges { create, ..LogicalSlotChanges::default() });
}

/// On a standby: moves those that are here to where the leader's are, and has those copied that are not.
pub(super) fn on_standby(
    tick: &mut Tick<'_>,
    leader: &LeaderKey,
    sql: &SqlFacts,
    wanted: &BTreeMap<String, WantedSlot>,
) {
    take_told(tick, leader, sql);
    let is_dropped = |name: &str| sql.slots.get(name).is_some_and(|facts| is_in_the_way(sql, facts));
    let logical = wanted.iter().filter(|(name, slot)| slot.kind != SlotKind::Physical && !is_dropped(name));
    let (lacking, here): (Vec<_>, Vec<_>) = logical.partition(|(name, slot)| lacks(tick, sql, name, slot));
    let moved = |(name, slot): &(&String, &WantedSlot)| {
        Some(((*name).clone(), advance(sql, slot, sql.slots.get(*name)?)?))
    };
    let advance = here.iter().filter_map(moved).collect();
    order(tick, LogicalSlotChanges { advance, ..LogicalSlotChanges::default() });
    let lacked = lacking.iter().map(|(name, _)| (*name).clone());
    let copy: Vec<String> = lacked.filter(|name| may_copy(tick, name)).collect();
    let copy = if is_my_turn(tick, !copy.is_empty()) { copy } else { Vec::new() };
    let slots = here.into_iter().chain(lacking).map(|(name, _)| name.clone()).collect();
    ask(tick, leader, sql, slots, copy);
}

/// Whether there is no usable slot: none, or one that cannot be moved, or one that is ahead of the leader's, which
/// would leave out changes that its reader has not seen. That one is of a former leader, whose reader had read more
/// than the present leader knows.
fn lacks(tick: &Tick<'_>, sql: &SqlFacts, name: &String, slot: &WantedSlot) -> bool {
    let Some(facts) = sql.slots.get(name) else { return true };
    let is_ahead = slot.user.position() < facts.position;
    !facts.active && !facts.synced && (is_ahead || tick.memory.slots.logical.broken.contains(name))
}

/// Whether it is to be copied now: a copy needs a restart.
fn may_copy(tick: &Tick<'_>, name: &String) -> bool {
    let last = tick.memory.slots.logical.copied.get(name);
    let is_due = last.is_none_or(|last| *last + COPY_AGAIN_AFTER <= tick.now);
    is_due && !tick.seen.settings.pause && tick.memory.restart.is_none()
}

/// Whether it is my turn: a new slot is missing on all standbys at once, and they are not to restart at one time.
fn is_my_turn(tick: &mut Tick<'_>, lacks: bool) -> bool {
    let since = &mut tick.memory.slots.logical.lacking_since;
    if !lacks {
        *since = None;
        return false;
    }
    let since = *since.get_or_insert(tick.now);
    let before_me = tick.others().filter(|(name, _)| **name < tick.seen.me.name).count();
    let at = since + tick.seen.settings.loop_wait * u32::try_from(before_me).unwrap_or(u32::MAX);
    if tick.now < at {
        tick.wake_at(at, WaitingOn::Members);
    }
    at <= tick.now
}

/// Where a slot that nobody uses here is to be moved.
fn advance(sql: &SqlFacts, slot: &WantedSlot, facts: &SlotFacts) -> Option<LogicalAdvance> {
    let SlotKind::Logical { database, .. } = &slot.kind else { return None };
    let to = slot.user.position()?.min(reached(sql));
    let is_behind = facts.position.is_some_and(|position| position < to);
    (is_behind && !facts.active && !facts.synced).then(|| LogicalAdvance { database: database.clone(), to })
}

/// The same order again only after `loop_wait`: what takes long is under way.
fn order(tick: &mut Tick<'_>, changes: LogicalSlotChanges) {
    if changes.is_empty() {
        return;
    }
    let again_after = tick.seen.settings.loop_wait;
    let lately = tick.memory.slots.logical.ordered.as_ref();
    let lately = lately.filter(|(ordered, at)| ordered.is_like(&changes) && tick.now < *at + again_after);
    if let Some((_, at)) = lately {
        tick.wake_at(*at + again_after, WaitingOn::Retry);
        return;
    }
    tick.memory.slots.logical.ordered = Some((changes.clone(), tick.now));
    tick.act(Action::SetLogicalSlots(changes));
}

/// Asks the leader, once in every `loop_wait`, while a slot is to be copied or not known to be safe.
fn ask(tick: &mut Tick<'_>, leader: &LeaderKey, sql: &SqlFacts, slots: Vec<String>, copy: Vec<String>) {
    let ledger = &tick.memory.slots.logical;
    let has_doubt = slots.iter().any(|name| sql.slots.contains_key(name) && !ledger.safe.contains(name));
    let can_answer = sql.streams() && leader_serves(tick, &leader.name);
    if !can_answer || (copy.is_empty() && !has_doubt) {
        return;
    }
    let due_at = ledger.asked_at.unwrap_or_default() + tick.seen.settings.loop_wait;
    if tick.now < due_at {
        return tick.wake_at(due_at, WaitingOn::Leader);
    }
    let Some(source) = tick.target(&leader.name) else { return };
    tick.memory.slots.logical.asked_at = Some(tick.now);
    let through = slot_name(&supplied_through(tick, leader));
    tick.act(Action::AskLeaderSlots(LeaderSlotsQuestion { leader: source, through, slots, copy }));
}

/// The member through whose slot the leader supplies me: I, or the first of those between us.
fn supplied_through(tick: &Tick<'_>, leader: &LeaderKey) -> MemberName {
    let mut through = tick.seen.me.name.clone();
    let members = tick.cluster().map(|cluster| &cluster.members);
    // A circle of members supplies nobody.
    for _ in 0..members.map_or(0, BTreeMap::len) {
        let source = members.and_then(|members| members.get(&through)?.record.tags.replicatefrom());
        match source.filter(|source| *source != leader.name) {
            Some(source) if members.is_some_and(|members| members.contains_key(&source)) => through = source,
            Some(_) | None => break,
        }
    }
    through
}

/// The leader's answer: with copies, they are put in place by a restart; without, it may show that slots are safe now.
fn take_told(tick: &mut Tick<'_>, leader: &LeaderKey, sql: &SqlFacts) {
    let life = (leader.term, tick.started_at());
    let ledger = &mut tick.memory.slots.logical;
    if ledger.safe_in != Some(life) {
        (ledger.safe_in, ledger.safe) = (Some(life), BTreeSet::new());
    }
    let Some(told) = tick.seen.leader_slots.as_ref().filter(|told| told.leader == leader.name) else {
        return;
    };
    let is_safe = |(name, facts): (&String, &SlotFacts)| holds(told, name, facts).then(|| name.clone());
    ledger.safe.extend(sql.slots.iter().filter_map(is_safe));
    let is_new = ledger.told_at.is_none_or(|at| at < told.asked_at);
    ledger.told_at = Some(told.asked_at);
    if is_new && !told.copied.is_empty() && !tick.seen.settings.pause {
        let now = tick.now;
        ledger.copied.extend(told.copied.iter().map(|name| (name.clone(), now)));
        ledger.broken.retain(|name| !told.copied.contains(name));
        requests::restart(tick);
    }
}

/// Whether nothing can be vacuumed that the slot needs: the leader's slot needs as much, or more, and what this standby
/// needs is held back on the leader already.
fn holds(told: &LeaderSlots, name: &str, facts: &SlotFacts) -> bool {
    let (theirs, held) = (told.catalog_xmin.get(name), told.held);
    let facts = (theirs, held, facts.catalog_xmin);
    matches!(facts, (Some(theirs), Some(held), Some(mine)) if theirs.is_not_after(held) && held.is_not_after(mine))
}

/// At a promotion: permanent slots that are not here, or whose readers may find rows missing in the catalogs.
pub(super) fn unsafe_slots(tick: &Tick<'_>, sql: &SqlFacts) -> Vec<String> {
    let is_ready = |name: &String| {
        let is_synced = sql.slots.get(name).is_some_and(|facts| facts.synced);
        is_synced || (sql.slots.contains_key(name) && tick.memory.slots.logical.safe.contains(name))
    };
    let wanted = wanted::published_logical(tick);
    wanted.into_iter().filter(|name| !is_ready(name)).collect()
}
