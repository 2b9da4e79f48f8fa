//! A standby whose WAL is gone: it was away for longer than the leader keeps WAL for it (`max_slot_wal_keep_size`).
//! What it lacks comes from the archive, or nothing here goes on before it is cloned anew.

use std::time::Duration;

use super::turn::Turn;
use crate::model::{LeaderKey, Lsn, Reason, Standby};

/// Clones are tried this often in a row.
pub(super) const CLONES_MAX: u32 = 10;
/// `restore_command` may take so long for a segment; without one, nobody is waited for.
const ARCHIVE_WITHIN: Duration = Duration::from_secs(30);

/// It does not stream, and `leader` has told its history. `None` while what is missing may still come; otherwise what
/// is said.
pub(super) fn examine(turn: &mut Turn<'_>, leader: &LeaderKey) -> Option<Reason> {
    let Some(reached) = without(turn, leader) else {
        (turn.memory.rejoin.unfed, turn.memory.rejoin.wal_removed_by) = (None, None);
        return None;
    };
    let before = turn.memory.rejoin.unfed.filter(|(at, _)| *at == reached);
    let (_, since) = *turn.memory.rejoin.unfed.insert(before.unwrap_or((reached, turn.now)));
    let patience = if restores(turn) { ARCHIVE_WITHIN } else { Duration::ZERO };
    if turn.now < since + patience {
        turn.memory.rejoin.wal_removed_by = None;
        return None;
    }
    turn.memory.rejoin.wal_removed_by = Some(leader.name.clone());
    known(turn, leader)
}

/// Whether it is to be cloned anew behind this leader: that is allowed, and does not fail again and again, as what lies
/// here still serves readers.
pub(super) fn calls_for_a_clone(turn: &Turn<'_>, leader: &LeaderKey) -> bool {
    let settings = &turn.seen.settings;
    let allowed = settings.remove_data_directory_on_diverged_timelines && !settings.pause;
    allowed && turn.memory.rejoin.clone_failures < CLONES_MAX && known(turn, leader).is_some()
}

/// What was found before, while the leader is asked again.
pub(super) fn known(turn: &Turn<'_>, leader: &LeaderKey) -> Option<Reason> {
    let by = turn.memory.rejoin.wal_removed_by.as_ref().filter(|by| **by == leader.name)?;
    Some(Reason::WalRemoved { leader: by.clone(), me: turn.seen.me.name.clone() })
}

/// How far I have come, if the leader's WAL begins later. What comes from another member is not the leader's to remove.
fn without(turn: &Turn<'_>, leader: &LeaderKey) -> Option<Lsn> {
    let told = turn.seen.leader_branch.as_ref().filter(|told| told.name == leader.name)?;
    let from_leader = turn.follow_target(&leader.name).is_some_and(|target| target.name == leader.name);
    let reached = turn.seen.postgres.branch_at_most()?.end?;
    (from_leader && reached < told.oldest).then_some(reached)
}

fn restores(turn: &Turn<'_>) -> bool {
    let standby = turn.seen.postgres.answering().map(|sql| &sql.standby);
    matches!(standby, Some(Standby::Yes { restores: true, .. }))
}
