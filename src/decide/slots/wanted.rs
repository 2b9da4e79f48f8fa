//! The slots that are to be on this member.

use std::collections::{BTreeMap, BTreeSet};

use super::super::clone::leader_serves;
use super::super::failsafe;
use super::super::tick::Tick;
use crate::model::{Lsn, MemberKey, MemberName, SlotKind, SqlFacts, slot_name};

/// A slot that is to be here.
pub(super) struct WantedSlot {
    pub(super) kind: SlotKind,
    pub(super) user: SlotUser,
    /// Whether it is made where it is missing.
    pub(super) creates: bool,
}

/// Who moves it forward.
#[derive(Clone, Copy)]
pub(super) enum SlotUser {
    /// Its user connects here.
    Here,
    /// Its user connects to another member.
    Elsewhere {
        /// What its user has.
        position: Lsn,
    },
}

impl SlotUser {
    pub(super) fn position(self) -> Option<Lsn> {
        match self {
            SlotUser::Here => None,
            SlotUser::Elsewhere { position } => Some(position),
        }
    }
}

fn physical(user: SlotUser) -> WantedSlot {
    WantedSlot { kind: SlotKind::Physical, user, creates: true }
}

/// The slots of the members that are to be kept while I lead: of all, since each may have to stream from me; only of
/// those that do so now where slots are not kept, or I am never to lead for long.
pub(super) fn of_members(tick: &Tick<'_>) -> BTreeSet<String> {
    match keeps_all(tick) {
        true => streaming(tick).map(|(name, _)| slot_name(name)).collect(),
        false => streaming_from_me(tick),
    }
}

fn keeps_all(tick: &Tick<'_>) -> bool {
    !tick.seen.settings.member_slots_ttl.is_zero() && !tick.seen.me.tags.nofailover()
}

/// The other members that stream, from any member.
fn streaming<'a>(tick: &Tick<'a>) -> impl Iterator<Item = (&'a MemberName, &'a MemberKey)> {
    tick.others().filter(|(_, key)| !key.record.tags.nostream())
}

/// The source of a member that does not stream from the leader.
fn cascades_from(tick: &Tick<'_>, name: &MemberName, key: &MemberKey) -> Option<MemberName> {
    let source = key.record.tags.replicatefrom().filter(|source| source != name)?;
    tick.cluster()?.members.contains_key(&source).then_some(source)
}

/// The slots of all members except those that cascade from another.
pub(super) fn streaming_from_me(tick: &Tick<'_>) -> BTreeSet<String> {
    let me = &tick.seen.me.name;
    let from_me = |name: &MemberName, key: &MemberKey| {
        cascades_from(tick, name, key).is_none_or(|source| source == *me)
    };
    streaming(tick).filter(|(name, key)| from_me(name, key)).map(|(name, _)| slot_name(name)).collect()
}

/// While I lead: the `members`' slots, and permanent ones. The slot of a member that cascades from another is not used
/// here, and follows that member.
pub(super) fn on_leader(
    tick: &Tick<'_>,
    sql: &SqlFacts,
    members: impl Iterator<Item = String>,
) -> BTreeMap<String, WantedSlot> {
    let from_me = streaming_from_me(tick);
    let positions: BTreeMap<String, Lsn> = streaming(tick)
        .map(|(name, key)| (slot_name(name), key.record.xlog_location.unwrap_or_default().min(sql.lsn())))
        .filter(|(slot, _)| !from_me.contains(slot))
        .collect();
    let user = |slot: &String| match positions.get(slot) {
        Some(position) => SlotUser::Elsewhere { position: *position },
        None => SlotUser::Here,
    };
    let mut wanted: BTreeMap<String, WantedSlot> =
        members.map(|slot| (slot.clone(), physical(user(&slot)))).collect();
    for (name, kind) in permanent(tick) {
        wanted.entry(name.clone()).or_insert(WantedSlot {
            kind: kind.clone(),
            user: SlotUser::Here,
            creates: true,
        });
    }
    wanted
}

/// While another member leads: every slot that may be needed here one day and that the leader publishes; and those of
/// the members that stream from me.
pub(super) fn on_standby(tick: &Tick<'_>) -> BTreeMap<String, WantedSlot> {
    let published = published(tick);
    let user = |slot: &str| Some(SlotUser::Elsewhere { position: *published?.get(slot)? });
    let of_members = names_to_keep(tick);
    let creates = |slot: &str| !of_members.contains(slot) || is_of_present_history(tick, slot);
    let here = |name: &String, kind: &SlotKind| {
        let slot = WantedSlot { kind: kind.clone(), user: user(name)?, creates: creates(name) };
        Some((name.clone(), slot))
    };
    let of_members = of_members.iter().filter_map(|name| here(name, &SlotKind::Physical));
    let permanent = permanent(tick).filter_map(|(name, kind)| here(name, kind));
    let mut wanted: BTreeMap<String, WantedSlot> = of_members.chain(permanent).collect();
    wanted.extend(cascading(tick).map(|(name, _)| (slot_name(name), physical(SlotUser::Here))));
    wanted
}

/// The members' slots that a standby keeps: of all, and those of absent members that the leader retains.
fn names_to_keep(tick: &Tick<'_>) -> BTreeSet<String> {
    if !keeps_all(tick) {
        return BTreeSet::new();
    }
    let retained = tick.cluster().and_then(|cluster| cluster.status.as_ref()?.retain_slots.clone());
    let members = streaming(tick).map(|(name, _)| slot_name(name));
    let me = slot_name(&tick.seen.me.name);
    members.chain(retained.unwrap_or_default()).filter(|slot| *slot != me).collect()
}

/// Whether the member of this slot shows that it has the present leader's timeline. Another one may still be pointed
/// here from the time when I led, and have WAL that was rewound here: a walsender would accept it, where the histories
/// parted within a segment, and only the missing slot keeps it away.
fn is_of_present_history(tick: &Tick<'_>, slot: &str) -> bool {
    let leader = tick.cluster().and_then(|cluster| cluster.leader_member());
    let primary = leader.filter(|(name, _)| leader_serves(tick, name));
    let timeline = primary.and_then(|(_, leader)| leader.record.timeline);
    let member = streaming(tick).find(|(name, _)| slot_name(name) == slot);
    timeline.is_some() && member.is_some_and(|(_, key)| key.record.timeline == timeline)
}

/// While another member leads: the members that stream from me.
fn cascading<'a>(tick: &Tick<'a>) -> impl Iterator<Item = (&'a MemberName, &'a MemberKey)> {
    let leader = tick.cluster().and_then(|cluster| cluster.leader.as_ref()).map(|leader| &leader.name);
    let me = &tick.seen.me.name;
    let from_me = move |(name, key): &(&MemberName, &MemberKey)| {
        Some(*name) != leader && cascades_from(tick, name, key).as_ref() == Some(me)
    };
    streaming(tick).filter(from_me)
}

/// Where the leader's slots are; `None` where that is not known, or was known too long ago: nothing moves the slots
/// here then, and they retain WAL for members that may be long gone.
fn published<'t>(tick: &'t Tick<'_>) -> Option<&'t BTreeMap<String, Lsn>> {
    if let Some(promise) = failsafe::standing(tick).filter(|promise| !promise.slots.is_empty()) {
        return Some(&promise.slots);
    }
    let patience = tick.seen.settings.member_slots_ttl.max(tick.seen.settings.loop_wait);
    let view = tick.seen.view.as_ref().filter(|view| tick.now < view.seen_at + patience)?;
    view.cluster.status.as_ref()?.slots.as_ref()
}

/// The permanent slots that can be here: none on a member that is never to lead, none with my own name, no logical one
/// with the name of a member, and none without streaming where catalogs are to be kept for it.
fn permanent<'a>(tick: &Tick<'a>) -> impl Iterator<Item = (&'a String, &'a SlotKind)> {
    let me = &tick.seen.me;
    let (own, leads) = (slot_name(&me.name), !me.tags.nofailover());
    let streams = !me.tags.nostream();
    let settings = &tick.seen.settings.slots;
    let conflicts = tick.cluster().map(|cluster| settings.conflicts(cluster)).unwrap_or_default();
    settings.permanent.iter().filter(move |(name, kind)| match kind {
        SlotKind::Physical => leads && **name != own,
        SlotKind::Logical { .. } => leads && streams && !conflicts.contains_key(name.as_str()),
    })
}

/// Whether it is a permanent slot that can be here.
pub(super) fn is_permanent(tick: &Tick<'_>, slot: &str) -> bool {
    permanent(tick).any(|(name, _)| name == slot)
}

/// The permanent logical slots that the leader had when it last published its slots.
pub(super) fn published_logical(tick: &Tick<'_>) -> Vec<String> {
    let published = published(tick);
    let is_there = |name: &String| published.is_some_and(|published| published.contains_key(name));
    let logical = permanent(tick).filter(|(name, kind)| **kind != SlotKind::Physical && is_there(name));
    logical.map(|(name, _)| name.clone()).collect()
}
