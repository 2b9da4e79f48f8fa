//! No data yet: create the cluster, or clone from it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::turn::Turn;
use crate::model::{
    ClusterView, FollowTarget, Job, LeaderKey, MemberName, MemberState, Moment, NoDataReason, Reason, Role,
    SyncMode, WaitingOn,
};

/// How often to look whether a leader that cannot be copied yet can be.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Who has registered while etcd knows no cluster and I have no data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Registered {
    /// All that were seen: one that comes again is not new.
    pub names: BTreeSet<MemberName>,
    /// When the last of them was first seen, once I am one of them myself.
    pub last_at: Option<Moment>,
    /// One that had data, even if it has gone since.
    pub with_data: Option<MemberName>,
}

/// Nobody leads and I have no data.
pub(super) fn create(turn: &mut Turn<'_>) -> Reason {
    let Some(cluster) = turn.cluster() else { return Reason::ClusterUnknown };
    if let Some(end) = turn.pod_end() {
        return Reason::PodEnds(end);
    }
    look_who_registers(turn, cluster);
    let has_lease = turn.has_lease();
    let registered = &turn.memory.registered;
    let wait = turn.seen.me.wait_for_members;
    let due = match wait.is_zero() {
        true => Some(turn.now),
        false => registered.last_at.map(|at| at + wait),
    };
    Reason::NoData(match (cluster.initialize.as_deref(), &registered.with_data) {
        // The answer to an earlier try was lost: the key is mine, and nobody else can go on.
        (Some(""), _) if cluster.initialize_lease.is_some_and(|lease| turn.seen.lease.owns(lease)) => {
            turn.start(Job::Bootstrap { seen: cluster.revision });
            NoDataReason::NewCluster
        }
        (Some(""), _) => NoDataReason::BootstrapElsewhere,
        (Some(_), _) => NoDataReason::NobodyToClone,
        (None, Some(member)) => NoDataReason::DataElsewhere { member: member.clone() },
        (None, None) if turn.seen.me.tags.nofailover() || !turn.seen.me.may_bootstrap => {
            NoDataReason::MayNotBootstrap
        }
        (None, None) if !has_lease => return Reason::NoLeaseYet,
        (None, None) if due.is_none_or(|due| turn.now < due) => {
            turn.wake_at(due.unwrap_or(turn.now + LOOK_AGAIN), WaitingOn::Members);
            NoDataReason::AwaitingMembers { seconds: wait.as_secs() }
        }
        (None, None) => {
            turn.start(Job::Bootstrap { seen: cluster.revision });
            NoDataReason::NewCluster
        }
    })
}

/// The time begins when etcd shows me, and anew with each member that was never seen before.
fn look_who_registers(turn: &mut Turn<'_>, cluster: &ClusterView) {
    let me = &turn.seen.me;
    let registered = &mut turn.memory.registered;
    let mine = cluster.members.get(&me.name).is_some_and(|key| key.record.session == Some(me.session));
    for (name, key) in cluster.members.iter().filter(|(name, _)| **name != me.name || mine) {
        if registered.names.insert(name.clone()) {
            registered.last_at = Some(turn.now);
        }
        if *name != me.name && key.record.holds_data() {
            registered.with_data = Some(name.clone());
        }
    }
    let emptied = |name: &MemberName| cluster.members.get(name).is_some_and(|key| !key.record.holds_data());
    registered.with_data = registered.with_data.take().filter(|name| !emptied(name));
    if !registered.names.contains(&me.name) {
        registered.last_at = None;
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
