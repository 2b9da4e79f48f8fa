//! A standby that needs WAL which the leader has removed: it was away for longer than the leader keeps WAL for it
//! (`max_slot_wal_keep_size`). The missing WAL comes from the archive; otherwise the standby must be cloned anew.

use std::time::Duration;

use super::tick::Tick;
use crate::model::{LeaderKey, Lsn, Reason, Standby};

/// Attempts to clone in a row.
pub(super) const CLONES_MAX: u32 = 10;
/// How long `restore_command` may take to bring a segment. Without one there is no wait.
const ARCHIVE_WITHIN: Duration = Duration::from_secs(30);

/// This standby does not stream, and `leader` has reported its history. `None` while the missing WAL may still come;
/// otherwise the reason.
pub(super) fn examine(tick: &mut Tick<'_>, leader: &LeaderKey) -> Option<Reason> {
    let Some(reached) = without(tick, leader) else {
        (tick.memory.rejoin.unfed, tick.memory.rejoin.wal_removed_by) = (None, None);
        return None;
    };
    let before = tick.memory.rejoin.unfed.filter(|(at, _)| *at == reached);
    let (_, since) = *tick.memory.rejoin.unfed.insert(before.unwrap_or((reached, tick.now)));
    let patience = if restores(tick) { ARCHIVE_WITHIN } else { Duration::ZERO };
    if tick.now < since + patience {
        tick.memory.rejoin.wal_removed_by = None;
        return None;
    }
    tick.memory.rejoin.wal_removed_by = Some(leader.name.clone());
    known(tick, leader)
}

/// Whether to clone anew behind this leader: only if that is allowed and clones do not fail again and again, since the
/// local data still serves readers.
pub(super) fn calls_for_a_clone(tick: &Tick<'_>, leader: &LeaderKey) -> bool {
    let settings = &tick.seen.settings;
    let allowed = settings.remove_data_directory_on_diverged_timelines && !settings.pause;
    allowed && tick.memory.rejoin.clone_failures < CLONES_MAX && known(tick, leader).is_some()
}

/// The earlier finding, while the leader is asked again.
pub(super) fn known(tick: &Tick<'_>, leader: &LeaderKey) -> Option<Reason> {
    let by = tick.memory.rejoin.wal_removed_by.as_ref().filter(|by| **by == leader.name)?;
    Some(Reason::WalRemoved { leader: by.clone(), me: tick.seen.me.name.clone() })
}

/// By the last answer, this leader has removed WAL that I still lack.
pub(super) fn still_lacks(tick: &Tick<'_>, leader: &LeaderKey) -> bool {
    known(tick, leader).is_some() && without(tick, leader).is_some()
}

/// My position, if the leader's WAL begins later. WAL that comes from another member is not for the leader to remove.
fn without(tick: &Tick<'_>, leader: &LeaderKey) -> Option<Lsn> {
    let told = tick.seen.leader_branch.as_ref().filter(|told| told.name == leader.name)?;
    let from_leader = tick.follow_target(&leader.name).is_some_and(|target| target.name == leader.name);
    let reached = tick.seen.postgres.branch_at_most()?.end?;
    (from_leader && reached < told.oldest).then_some(reached)
}

fn restores(tick: &Tick<'_>) -> bool {
    let standby = tick.seen.postgres.answering().map(|sql| &sql.standby);
    matches!(standby, Some(Standby::Yes { restores: true, .. }))
}
