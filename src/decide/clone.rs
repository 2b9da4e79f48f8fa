//! Cloning: from whom, and whether what lies here is thrown away for it.

use std::time::Duration;

use super::removed_wal;
use super::turn::Turn;
use crate::model::{
    FollowTarget, Job, LeaderKey, MemberName, MemberState, Reason, Role, SyncMode, WaitingOn,
};

/// How often to look whether a leader that cannot be copied yet can be.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// An operator asked for it, or it lacks WAL that is gone.
pub(super) fn is_to_be_cloned(turn: &Turn<'_>, leader: &LeaderKey) -> bool {
    turn.memory.reinitialize.is_some() || removed_wal::calls_for_a_clone(turn, leader)
}

/// An operator asked for it, or the WAL that is needed here is gone.
pub(super) fn why_cloned_anew(turn: &Turn<'_>, leader: &LeaderKey) -> Reason {
    match turn.memory.reinitialize {
        Some(_) => Reason::Reinitializing,
        None => Reason::Recloning { leader: leader.name.clone() },
    }
}

/// Another member leads and I have no data.
pub(super) fn without_data(turn: &mut Turn<'_>, leader: &LeaderKey) -> Reason {
    match clone_source(turn, leader) {
        Some(from) => {
            let name = from.name.clone();
            turn.start(Job::Clone { from });
            Reason::Cloning { from: name }
        }
        None => {
            turn.wake_in(LOOK_AGAIN, WaitingOn::Leader);
            Reason::LeaderNotReady { leader: leader.name.clone() }
        }
    }
}

/// A running `clonefrom` member, else the leader once it runs as a primary. Backups use no slot of the member's.
pub(super) fn clone_source(turn: &Turn<'_>, leader: &LeaderKey) -> Option<FollowTarget> {
    // A member that is vouched for has to hold, as soon as it runs, whatever was acknowledged before: a leader's copy
    // does.
    let synchronous = turn.seen.settings.sync.mode != SyncMode::Off;
    let from_leader_only = synchronous || turn.memory.reinitialize == Some(true);
    let preferred = if from_leader_only { None } else { preferred_source(turn, leader) };
    let source = preferred.or_else(|| leader_is_primary(turn, &leader.name).then_some(&leader.name))?;
    turn.target(source)
}

fn preferred_source<'a>(turn: &Turn<'a>, leader: &LeaderKey) -> Option<&'a MemberName> {
    let mut running = turn.others().filter(|(_, key)| key.record.state == MemberState::Running);
    let preferred = running.find(|(name, key)| **name != leader.name && key.record.tags.clonefrom());
    preferred.map(|(name, _)| name)
}

/// The leader's own record says that it runs as a primary.
pub(super) fn leader_is_primary(turn: &Turn<'_>, leader: &MemberName) -> bool {
    let record = turn.cluster().and_then(|cluster| cluster.members.get(leader)).map(|key| &key.record);
    record.is_some_and(|record| record.state == MemberState::Running && record.role == Role::Primary)
}
