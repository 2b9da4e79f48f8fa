//! A standby keeps `synchronous_standby_names` ready for its own promotion, as the promise requires it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::tick::Tick;
use super::leader::{is_writing, name, write};
use super::state::members;
use crate::model::{
    MemberName, Reason, SqlFacts, SyncMode, SyncNames, SyncOwner, SyncReason, SyncRecord, SyncSettings, Term,
    WaitingOn,
};

/// The interval between checks whether the leader has removed me from the promise.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The interval before a promotion.
const LOOK_SOON: Duration = Duration::from_millis(5);

/// Keeps the names set that a promotion needs, so that no commit happens before they are in force.
pub(in crate::decide) fn keep_names(tick: &mut Tick<'_>) {
    let wanted = match (tick.seen.settings.sync.mode, tick.sync_record()) {
        (SyncMode::Off, _) => SyncOwner::Operator,
        (_, None) => return,
        (_, Some(record)) => {
            let names = names_of_next(record, &tick.seen.me.name, &tick.seen.settings.sync);
            SyncOwner::Supervisor(names.to_string())
        }
    };
    if tick.seen.postgres.sync_owner != wanted {
        name(tick, wanted.says());
    }
}

/// Before my standby stops on purpose: the leader removes it from the promise first, so that no commit waits for it.
/// True while that has to be waited for.
pub(in crate::decide) fn leave(tick: &mut Tick<'_>) -> bool {
    let me = &tick.seen.me.name;
    let promised = tick.sync_record().is_some_and(|record| record.is_voter(me));
    let led =
        tick.cluster().and_then(|cluster| cluster.leader.as_ref()).is_some_and(|leader| leader.name != *me);
    let since = *tick.memory.sync.leaving_since.get_or_insert(tick.now);
    tick.wake_in(LOOK_AGAIN, WaitingOn::Leader);
    promised && led && tick.now < since + tick.seen.settings.loop_wait * 2
}

/// Before I am promoted the names are in force, and then the key names me. From then on I have all acknowledged
/// commits, as the key says. `None`: go on.
pub(in crate::decide) fn prepare_promotion(
    tick: &mut Tick<'_>,
    term: Term,
    sql: &SqlFacts,
) -> Option<Reason> {
    if tick.cluster().is_none_or(|cluster| cluster.revision < term.0) {
        // The former leader may have written the key until I took its place, and other members the mode.
        tick.wake_in(LOOK_SOON, WaitingOn::Postgres);
        return Some(Reason::Sync(SyncReason::Preparing));
    }
    (!is_prepared(tick, term, sql)).then_some(Reason::Sync(SyncReason::Preparing))
}

/// As [`prepare_promotion`], for a new cluster whose PostgreSQL is down: the names are in its files before its start.
/// Clients stay locked out until they are in force.
pub(in crate::decide) fn prepare_first_start(tick: &mut Tick<'_>, term: Term) -> Option<Reason> {
    if tick.seen.settings.sync.mode == SyncMode::Off {
        return None;
    }
    let is_prepared =
        tick.cluster().is_some_and(|cluster| term.0 <= cluster.revision) && !is_writing(tick, term) && {
            let record = tick.sync_record().cloned().unwrap_or_default();
            are_names_written(tick, &record) && is_promised(tick, term, &record)
        };
    tick.wake_in(LOOK_SOON, WaitingOn::Lease);
    (!is_prepared).then_some(Reason::Sync(SyncReason::Preparing))
}

fn are_names_written(tick: &mut Tick<'_>, record: &SyncRecord) -> bool {
    let names = names_of_next(record, &tick.seen.me.name, &tick.seen.settings.sync).to_string();
    let written = tick.seen.postgres.sync_owner == SyncOwner::Supervisor(names.clone());
    if !written {
        name(tick, Some(names));
    }
    written
}

fn is_prepared(tick: &mut Tick<'_>, term: Term, sql: &SqlFacts) -> bool {
    let off = tick.seen.settings.sync.mode == SyncMode::Off;
    if off && tick.cluster().is_some_and(|cluster| cluster.sync.is_none()) {
        return true;
    }
    tick.wake_in(LOOK_SOON, WaitingOn::Postgres);
    if is_writing(tick, term) {
        return false;
    }
    if off {
        // The mode is off, so the key must not promise anything about commits that I acknowledge from now on.
        write(tick, term, None);
        return false;
    }
    let record = tick.sync_record().cloned().unwrap_or_default();
    are_names_in_force(tick, sql, &record) && is_promised(tick, term, &record)
}

fn are_names_in_force(tick: &mut Tick<'_>, sql: &SqlFacts, record: &SyncRecord) -> bool {
    let names = names_of_next(record, &tick.seen.me.name, &tick.seen.settings.sync);
    let said = names.to_string();
    if sql.sync.names != said || tick.seen.postgres.sync_owner != SyncOwner::Supervisor(said.clone()) {
        name(tick, Some(said));
        return false;
    }
    let in_effect = tick.memory.sync.in_effect.as_ref();
    in_effect.is_some_and(|seen| names.count == 0 || seen.from.is_some())
}

/// The key is written even where it already has this value: comparisons with its earlier revision must fail from now
/// on.
fn is_promised(tick: &mut Tick<'_>, term: Term, record: &SyncRecord) -> bool {
    let next = next(record, &tick.seen.me.name, &tick.seen.settings.sync);
    let promised = *record == next && tick.memory.sync.owned == Some(tick.sync_revision());
    if !promised {
        write(tick, term, Some(next));
    }
    promised
}

/// The value that the key must have when I am promoted.
pub(super) fn next(record: &SyncRecord, me: &MemberName, settings: &SyncSettings) -> SyncRecord {
    let others = others(record, me);
    let (quorum, voters) = match settings.mode {
        // The promise of a quorum does not hold for any single voter.
        SyncMode::On | SyncMode::Off if settings.strict && record.quorum == 0 => (0, others),
        SyncMode::On | SyncMode::Off => (0, BTreeSet::new()),
        SyncMode::Quorum => (record.quorum.min(others.len().saturating_sub(1)), others),
    };
    SyncRecord { leader: Some(me.clone()), quorum, voters }
}

/// The names under which all my commits keep the promise of `record`, should I be promoted.
pub(super) fn names_of_next(record: &SyncRecord, me: &MemberName, settings: &SyncSettings) -> SyncNames {
    let others = others(record, me);
    let least = usize::from(settings.strict);
    let (any, count) = match settings.mode {
        SyncMode::On | SyncMode::Off if settings.strict => (false, others.len().max(1)),
        SyncMode::On | SyncMode::Off => return SyncNames::default(),
        SyncMode::Quorum => {
            // All members of the promise and me, less those that may lack a commit, less me.
            let all = others.len() + 1;
            (true, all.saturating_sub(record.quorum.min(others.len().saturating_sub(1)) + 1).max(least))
        }
    };
    if count == 0 {
        return SyncNames::default();
    }
    SyncNames { any, count, names: others, wildcard: false }
}

fn others(record: &SyncRecord, me: &MemberName) -> BTreeSet<MemberName> {
    members(record).into_iter().filter(|name| !name.is_same(me)).cloned().collect()
}
