//! Physical replication slots of the members. Slots that are not a member's are never touched.

use std::collections::BTreeSet;
use std::time::Duration;

use super::turn::Turn;
use crate::model::{Action, MemberKey, MemberName, SqlFacts, WaitingOn, slot_name};

/// Statements that failed are not repeated sooner than this.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// On the leader: a slot for every member that streams from it, kept for `member_slots_ttl` after it went away.
pub(super) fn on_leader(turn: &mut Turn<'_>, sql: &SqlFacts) {
    if !turn.seen.settings.use_slots {
        return;
    }
    let me = turn.seen.me.name.clone();
    let wanted = streaming_from_me(turn);
    let inherited = turn.cluster().and_then(|cluster| cluster.status.as_ref()?.retain_slots.clone());
    for slot in inherited.filter(|_| !turn.memory.slots_inherited).unwrap_or_default() {
        if slot != slot_name(&me) {
            turn.memory.slots_wanted.entry(slot).or_insert(turn.now);
        }
    }
    turn.memory.slots_inherited = true;
    for slot in &wanted {
        turn.memory.slots_wanted.insert(slot.clone(), turn.now);
    }
    let horizon = turn.now - turn.seen.settings.member_slots_ttl;
    let known = &turn.memory.slots_wanted;
    let keep: Vec<String> =
        known.iter().filter(|(_, last)| horizon <= **last).map(|(slot, _)| slot.clone()).collect();
    let create = keep.into_iter().filter(|slot| !sql.slots.contains_key(slot)).collect();
    let expired =
        known.iter().filter(|(_, last)| **last < horizon).map(|(slot, _)| slot.clone()).collect::<Vec<_>>();
    let drop = expired.iter().filter(|slot| is_idle(sql, slot)).cloned().collect();
    turn.memory.slots_wanted.retain(|slot, _| !expired.contains(slot) || sql.slots.contains_key(slot));
    set(turn, create, drop);
}

/// While I am promoted: the slots that members ask for as soon as they find me. One that is refused comes again only
/// after `wal_retrieve_retry_interval`, and in synchronous modes every commit waits for it.
pub(super) fn while_promoting(turn: &mut Turn<'_>) {
    let known = |slot: &String| {
        turn.seen.postgres.answering().is_some_and(|sql: &SqlFacts| sql.slots.contains_key(slot))
    };
    let create: Vec<String> = streaming_from_me(turn).into_iter().filter(|slot| !known(slot)).collect();
    if turn.seen.settings.use_slots && !create.is_empty() {
        turn.act(Action::SetSlots { create, drop: Vec::new() });
    }
}

/// The slots of all members but those that cascade from another.
fn streaming_from_me(turn: &Turn<'_>) -> BTreeSet<String> {
    let me = &turn.seen.me.name;
    let cascades = |key: &MemberKey| key.record.tags.replicatefrom().filter(|source| source != me);
    let elsewhere: BTreeSet<&MemberName> = turn.others().map(|(name, _)| name).collect();
    let streaming = turn.others().filter(|(_, key)| !key.record.tags.nostream());
    streaming
        .filter(|(_, key)| cascades(key).is_none_or(|source| !elsewhere.contains(&source)))
        .map(|(name, _)| slot_name(name))
        .collect()
}

/// On a standby: slots only for the members that cascade from it; others' would hold WAL back for ever.
pub(super) fn on_standby(turn: &mut Turn<'_>, sql: &SqlFacts) {
    let me = turn.seen.me.name.clone();
    let from_me = |key: &MemberKey| key.record.tags.replicatefrom().as_ref() == Some(&me);
    let split = |wanted: bool| -> Vec<String> {
        turn.others().filter(|(_, key)| from_me(key) == wanted).map(|(name, _)| slot_name(name)).collect()
    };
    let wanted = split(true);
    let unwanted = split(false).into_iter().filter(|slot| !wanted.contains(slot));
    let drop = unwanted.filter(|slot| is_idle(sql, slot)).collect();
    let create = wanted.into_iter().filter(|slot| !sql.slots.contains_key(slot)).collect();
    if turn.seen.settings.use_slots {
        set(turn, create, drop);
    }
}

fn is_idle(sql: &SqlFacts, slot: &str) -> bool {
    sql.slots.get(slot).is_some_and(|facts| facts.kind == "physical" && !facts.active)
}

fn set(turn: &mut Turn<'_>, create: Vec<String>, drop: Vec<String>) {
    if (create.is_empty() && drop.is_empty()) || turn.seen.settings.pause {
        return;
    }
    match &turn.memory.slots_set {
        Some((created, dropped, at))
            if *created == create && *dropped == drop && turn.now < *at + AGAIN_AFTER =>
        {
            let again_at = *at + AGAIN_AFTER;
            turn.wake_at(again_at, WaitingOn::Retry);
        }
        Some(_) | None => {
            turn.memory.slots_set = Some((create.clone(), drop.clone(), turn.now));
            turn.act(Action::SetSlots { create, drop });
        }
    }
}
