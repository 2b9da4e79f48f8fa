//! Slots that nobody wants.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::tick::Tick;
use super::wanted;
use crate::model::{Moment, SlotFacts, SqlFacts, WaitingOn};

/// Slots to drop: for `patience`, and for one `loop_wait` at least, no connection has used them, no member has wanted
/// them, and no setting has kept them. A permanent slot that was taken out of the settings is dropped at once.
pub(super) fn due(
    tick: &mut Tick<'_>,
    sql: &SqlFacts,
    asked: &BTreeSet<String>,
    patience: Duration,
) -> Vec<String> {
    remember_permanent(tick, sql);
    let settings = &tick.seen.settings;
    let patience = patience.max(settings.loop_wait);
    let is_nobodys =
        |name: &String, facts: &SlotFacts| !asked.contains(name) && is_nobodys(tick, sql, name, facts);
    let nobodys = sql.slots.iter().filter(|(name, facts)| !settings.pause && is_nobodys(name, facts));
    let (removed, nobodys): (Vec<&String>, Vec<&String>) =
        nobodys.map(|(name, _)| name).partition(|name| tick.memory.slots.permanent.contains(*name));
    let since = |name: &String| tick.memory.slots.idle.get(name).copied().unwrap_or(tick.now);
    let idle: BTreeMap<String, Moment> =
        nobodys.into_iter().map(|name| (name.clone(), since(name))).collect();
    let next = idle.values().map(|since| *since + patience).filter(|at| tick.now < *at).min();
    if let Some(at) = next {
        tick.wake_at(at, WaitingOn::Retry);
    }
    let due = idle.iter().filter(|(_, since)| **since + patience <= tick.now).map(|(name, _)| name);
    let due = removed.into_iter().chain(due).cloned().collect();
    tick.memory.slots.idle = idle;
    due
}

/// The permanent slots are known until they are gone.
fn remember_permanent(tick: &mut Tick<'_>, sql: &SqlFacts) {
    let now = &tick.seen.settings.slots.permanent;
    let ledger = &mut tick.memory.slots.permanent;
    ledger.extend(now.keys().cloned());
    ledger.retain(|name| now.contains_key(name) || sql.slots.contains_key(name));
}

/// Whether no connection uses it, no setting keeps it, and PostgreSQL itself does not manage it (copied from the
/// primary, or to be synchronized to standbys).
fn is_nobodys(tick: &Tick<'_>, sql: &SqlFacts, name: &str, facts: &SlotFacts) -> bool {
    let by_postgres = facts.synced || (facts.failover && sql.is_primary());
    let kept = tick.seen.settings.slots.ignores(name, facts) || wanted::is_permanent(tick, name);
    !facts.active && !by_postgres && !kept
}
