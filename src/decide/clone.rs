//! Cloning: the source, and whether existing data is discarded for a clone.

use std::time::Duration;

use super::removed_wal;
use super::tick::Tick;
use crate::model::{
    CloneMethods, ControlFile, FollowTarget, Job, LeaderKey, MemberName, MemberState, Reason, Role, SyncMode,
    WaitingOn,
};

/// The interval between checks whether the leader can be copied.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// An operator asked for a clone, or this member lacks WAL that the leader has removed.
pub(super) fn is_to_be_cloned(tick: &Tick<'_>, leader: &LeaderKey) -> bool {
    tick.memory.reinitialize.is_some() || removed_wal::calls_for_a_clone(tick, leader)
}

/// The reason for the clone.
pub(super) fn why_cloned_anew(tick: &Tick<'_>, leader: &LeaderKey) -> Reason {
    match tick.memory.reinitialize {
        Some(_) => Reason::Reinitializing,
        None => Reason::Recloning { leader: leader.name.clone() },
    }
}

/// Another member leads, and I have no data.
pub(super) fn without_data(tick: &mut Tick<'_>, leader: &LeaderKey) -> Reason {
    match clone_source(tick, leader) {
        Some(from) => {
            let name = from.name.clone();
            clone_from(tick, from);
            Reason::Cloning { from: name }
        }
        None => {
            tick.wake_in(LOOK_AGAIN, WaitingOn::Leader);
            Reason::LeaderNotReady { leader: leader.name.clone() }
        }
    }
}

/// Makes a replica of this member.
pub(super) fn clone_from(tick: &mut Tick<'_>, from: FollowTarget) {
    let methods = match tick.remote_source().filter(|_| tick.is_remote(&from.name)) {
        Some((_, methods)) => methods,
        None => methods(tick),
    };
    let system_id = tick.cluster().and_then(|cluster| cluster.system_id());
    tick.start(Job::Clone { from: Some(from), methods, system_id });
}

/// Only pg_basebackup where another method could bring data that is too old: it takes what the leader has now.
fn methods(tick: &Tick<'_>) -> CloneMethods {
    let asked = tick.memory.reinitialize;
    // A method that has made a useless copy may make the same one again.
    let is_useless = tick.seen.postgres.control().is_some_and(ControlFile::is_unfinished_copy);
    let basebackup_only = asked.unwrap_or(is_useless) || is_vouched_for(tick);
    if basebackup_only { CloneMethods::BasebackupOnly } else { CloneMethods::Configured }
}

/// Whether the key `sync` counts on the commits that this member has confirmed.
pub(super) fn is_vouched_for(tick: &Tick<'_>) -> bool {
    let me = &tick.seen.me.name;
    tick.sync_record().is_some_and(|record| record.is_voter(me) || record.is_leader(me))
}

/// A running member with the tag `clonefrom`, else the leader once it runs as a primary. A base backup uses no slot of
/// its member.
pub(super) fn clone_source(tick: &Tick<'_>, leader: &LeaderKey) -> Option<FollowTarget> {
    // A synchronous standby must have all commits acknowledged before it started. Only a copy of the leader has them
    // for certain.
    let synchronous = tick.seen.settings.sync.mode != SyncMode::Off;
    let from_leader_only = synchronous || tick.memory.reinitialize == Some(true);
    let from_leader_only = from_leader_only || tick.is_remote(&leader.name);
    let preferred = if from_leader_only { None } else { preferred_source(tick, leader) };
    let source = preferred.or_else(|| leader_serves(tick, &leader.name).then_some(&leader.name))?;
    tick.target(source)
}

fn preferred_source<'a>(tick: &Tick<'a>, leader: &LeaderKey) -> Option<&'a MemberName> {
    let mut running = tick.others().filter(|(_, key)| key.record.state == MemberState::Running);
    let preferred = running.find(|(name, key)| **name != leader.name && key.record.tags.clonefrom());
    preferred.map(|(name, _)| name)
}

/// Whether the leader's own record says that it runs in its role. A remote primary has no record here.
pub(super) fn leader_serves(tick: &Tick<'_>, leader: &MemberName) -> bool {
    let record = tick.cluster().and_then(|cluster| cluster.members.get(leader)).map(|key| &key.record);
    let leads = |role| match role {
        Role::Primary => true,
        Role::StandbyLeader => tick.in_standby_cluster(),
        Role::Promoted | Role::Replica | Role::Demoted | Role::Uninitialized => false,
    };
    let runs = record.is_some_and(|record| record.state == MemberState::Running && leads(record.role));
    runs || tick.is_remote(leader)
}
