//! No data yet: create the cluster, or clone from it.

use std::time::Duration;

use super::turn::Turn;
use crate::model::{
    FollowTarget, Job, LeaderKey, MemberName, MemberState, Reason, Role, SyncMode, WaitingOn,
};

/// How often to look whether a leader that cannot be copied yet can be.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Nobody leads and I have no data.
pub(super) fn create(turn: &mut Turn<'_>) -> Reason {
    let Some(cluster) = turn.cluster() else { return Reason::ClusterUnknown };
    let somebody_has_data = turn.others().find(|(_, key)| key.record.role != Role::Uninitialized);
    match (cluster.initialize.as_deref(), somebody_has_data) {
        (Some(""), _) => Reason::BootstrapElsewhere,
        (Some(_), _) => Reason::NobodyToClone,
        (None, Some((name, _))) => Reason::DataElsewhere { member: name.clone() },
        (None, None) if turn.seen.me.tags.nofailover() || !turn.seen.me.may_bootstrap => {
            Reason::MayNotBootstrap
        }
        (None, None) if turn.seen.lease.lease.is_none() => Reason::NoLeaseYet,
        (None, None) => {
            turn.start(Job::Bootstrap);
            Reason::NewCluster
        }
    }
}

/// Another member leads and I have no data.
pub(super) fn clone(turn: &mut Turn<'_>, leader: &LeaderKey) -> Reason {
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
    // Who is vouched for has to hold, as soon as it runs, whatever was acknowledged before: a leader's copy does.
    let synchronous = turn.seen.settings.sync.mode != SyncMode::Off;
    let from_leader_only = synchronous || turn.memory.reinitialize == Some(true);
    let mut preferred = turn.others().filter(|(name, key)| {
        **name != leader.name && key.record.state == MemberState::Running && key.record.tags.clonefrom()
    });
    let leader_runs = leader_is_primary(turn, &leader.name);
    let source = match preferred.next() {
        Some((name, _)) if !from_leader_only => name.clone(),
        Some(_) | None if leader_runs => leader.name.clone(),
        Some(_) | None => return None,
    };
    turn.target(&source)
}

/// The leader's own record says that it runs as a primary.
pub(super) fn leader_is_primary(turn: &Turn<'_>, leader: &MemberName) -> bool {
    let record = turn.cluster().and_then(|cluster| cluster.members.get(leader)).map(|key| &key.record);
    record.is_some_and(|record| record.state == MemberState::Running && record.role == Role::Primary)
}
