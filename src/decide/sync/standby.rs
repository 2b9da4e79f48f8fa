//! A standby is ready to be promoted: with the names that the promise asks of whoever is promoted next.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::turn::Turn;
use super::leader::{is_writing, name, write};
use super::state::members;
use crate::model::{
    MemberName, Reason, SqlFacts, SyncMode, SyncNames, SyncOwner, SyncReason, SyncRecord, SyncSettings, Term,
    WaitingOn,
};

/// How soon to look whether the leader has let me go.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Before a promotion this is how soon to look again.
const LOOK_SOON: Duration = Duration::from_millis(5);

/// Keeps the names in force that a promotion needs, so that none of its commits can slip through before they are.
pub(in crate::decide) fn keep_names(turn: &mut Turn<'_>) {
    let wanted = match (turn.seen.settings.sync.mode, turn.sync_record()) {
        (SyncMode::Off, _) => SyncOwner::Operator,
        (_, None) => return,
        (_, Some(record)) => {
            let names = names_of_next(record, &turn.seen.me.name, &turn.seen.settings.sync);
            SyncOwner::Supervisor(names.to_string())
        }
    };
    if turn.seen.postgres.sync_owner != wanted {
        name(turn, wanted.says());
    }
}

/// Before my standby stops on purpose: the leader takes it out of the promise first, so that no commit waits for it.
/// True while that has to be waited for.
pub(in crate::decide) fn leave(turn: &mut Turn<'_>) -> bool {
    let me = &turn.seen.me.name;
    let promised = turn.sync_record().is_some_and(|record| record.is_voter(me));
    let led =
        turn.cluster().and_then(|cluster| cluster.leader.as_ref()).is_some_and(|leader| leader.name != *me);
    let since = *turn.memory.sync.leaving_since.get_or_insert(turn.now);
    turn.wake_in(LOOK_AGAIN, WaitingOn::Leader);
    promised && led && turn.now < since + turn.seen.settings.loop_wait * 2
}

/// Before I am promoted: the names are in force, then the key names me. From then on I hold whatever is acknowledged,
/// as the key says. `None`: go on.
pub(in crate::decide) fn prepare_promotion(
    turn: &mut Turn<'_>,
    term: Term,
    sql: &SqlFacts,
) -> Option<Reason> {
    if turn.cluster().is_none_or(|cluster| cluster.revision < term.0) {
        // The former leader may have written the key until I took its place, and others the mode.
        turn.wake_in(LOOK_SOON, WaitingOn::Postgres);
        return Some(Reason::Sync(SyncReason::Preparing));
    }
    (!is_prepared(turn, term, sql)).then_some(Reason::Sync(SyncReason::Preparing))
}

fn is_prepared(turn: &mut Turn<'_>, term: Term, sql: &SqlFacts) -> bool {
    let off = turn.seen.settings.sync.mode == SyncMode::Off;
    if off && turn.cluster().is_some_and(|cluster| cluster.sync.is_none()) {
        return true;
    }
    turn.wake_in(LOOK_SOON, WaitingOn::Postgres);
    if is_writing(turn, term) {
        return false;
    }
    if off {
        // Whatever comes, it does not vouch for what I am about to acknowledge.
        write(turn, term, None);
        return false;
    }
    let record = turn.sync_record().cloned().unwrap_or_default();
    are_names_in_force(turn, sql, &record) && is_promised(turn, term, &record)
}

fn are_names_in_force(turn: &mut Turn<'_>, sql: &SqlFacts, record: &SyncRecord) -> bool {
    let names = names_of_next(record, &turn.seen.me.name, &turn.seen.settings.sync);
    let said = names.to_string();
    if sql.sync.names != said || turn.seen.postgres.sync_owner != SyncOwner::Supervisor(said.clone()) {
        name(turn, Some(said));
        return false;
    }
    let in_effect = turn.memory.sync.in_effect.as_ref();
    in_effect.is_some_and(|seen| names.count == 0 || seen.from.is_some())
}

/// Also where the key says so already it is written: what was judged by it before must not come true now.
fn is_promised(turn: &mut Turn<'_>, term: Term, record: &SyncRecord) -> bool {
    let next = next(record, &turn.seen.me.name, &turn.seen.settings.sync);
    let promised = *record == next && turn.memory.sync.owned == Some(turn.sync_revision());
    if !promised {
        write(turn, term, Some(next));
    }
    promised
}

/// What the key has to say when I am promoted.
pub(super) fn next(record: &SyncRecord, me: &MemberName, settings: &SyncSettings) -> SyncRecord {
    let others = others(record, me);
    let (quorum, voters) = match settings.mode {
        // What was promised of a quorum is true of none of them alone.
        SyncMode::On | SyncMode::Off if settings.strict && record.quorum == 0 => (0, others),
        SyncMode::On | SyncMode::Off => (0, BTreeSet::new()),
        SyncMode::Quorum => (record.quorum.min(others.len().saturating_sub(1)), others),
    };
    SyncRecord { leader: Some(me.clone()), quorum, voters }
}

/// The names under which every commit of mine keeps what `record` promises, should I be promoted.
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
