//! No data yet: create the cluster, or clone from it.

use std::time::Duration;

use super::clone;
use super::tick::Tick;
use crate::model::{
    CloneMethods, ClusterView, FailoverRequest, FollowTarget, Job, MemberName, Moment, NoDataReason, Reason,
    StandbyClusterReason, WaitingOn,
};

/// The interval between checks for new members.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// No member leads, and I have no data.
pub(super) fn create(tick: &mut Tick<'_>) -> Reason {
    let Some(cluster) = tick.cluster() else { return Reason::ClusterUnknown };
    if let Some(end) = tick.pod_end() {
        return Reason::PodEnds(end);
    }
    watch_registrations(tick, cluster);
    if tick.seen.postgres.data.is_interrupted_clone() {
        return undo_clone(tick);
    }
    let has_lease = tick.has_lease();
    match cluster.initialize.as_deref() {
        Some("") => bootstrap_begun(tick, cluster),
        Some(_) => match tick.remote_source() {
            Some(source) => copy_of_remote(tick, cluster, source),
            None => replica_of_nobody(tick, cluster),
        },
        None => create_new(tick, cluster, has_lease),
    }
}

/// The cluster exists, and no member leads. A method that needs no member may make a replica, which then compares its
/// position with the others. A leader would be a better source, so it has one TTL to appear.
fn replica_of_nobody(tick: &mut Tick<'_>, cluster: &ClusterView) -> Reason {
    // What it makes may lack commits that this member has confirmed, or that a restored etcd does not know of.
    let may = tick.seen.me.scripts.replica_without_leader && !clone::is_vouched_for(tick);
    if !may || tick.is_unsettled() {
        return Reason::NoData(NoDataReason::NobodyToClone);
    }
    let until = tick.memory.answers_since.unwrap_or(tick.now) + tick.seen.settings.ttl;
    if tick.now < until {
        tick.wake_at(until, WaitingOn::Leader);
        return Reason::NoData(NoDataReason::NobodyToClone);
    }
    let (methods, system_id) = (CloneMethods::Configured, cluster.system_id());
    tick.start(Job::Clone { from: None, methods, system_id });
    Reason::NoData(NoDataReason::ReplicaOfNobody)
}

/// The same in a standby cluster, whose remote primary has the data.
fn copy_of_remote(
    tick: &mut Tick<'_>,
    cluster: &ClusterView,
    (from, methods): (Option<FollowTarget>, CloneMethods),
) -> Reason {
    let until = tick.memory.answers_since.unwrap_or(tick.now) + tick.seen.settings.ttl;
    if tick.now < until {
        tick.wake_at(until, WaitingOn::Leader);
        return Reason::NoData(NoDataReason::NobodyToClone);
    }
    tick.start(Job::Clone { from, methods, system_id: cluster.system_id() });
    Reason::StandbyCluster(StandbyClusterReason::CopyingRemote)
}

/// There is no member to clone from, and the data that was moved aside may be the newest that is left. If a member
/// becomes leader within a TTL, the clone starts again instead.
fn undo_clone(tick: &mut Tick<'_>) -> Reason {
    let until = tick.memory.answers_since.unwrap_or(tick.now) + tick.seen.settings.ttl;
    if tick.now < until {
        tick.wake_at(until, WaitingOn::Leader);
    } else {
        tick.start(Job::UndoClone);
    }
    Reason::NoData(NoDataReason::CloneInterrupted)
}

/// A member has begun to create the cluster.
fn bootstrap_begun(tick: &mut Tick<'_>, cluster: &ClusterView) -> Reason {
    if !cluster.initialize_lease.is_some_and(|lease| tick.seen.lease.owns(lease)) {
        return Reason::NoData(NoDataReason::BootstrapElsewhere);
    }
    // The answer to an earlier attempt was lost: the key is mine, and no other member can continue.
    start(tick, cluster)
}

fn create_new(tick: &mut Tick<'_>, cluster: &ClusterView, has_lease: bool) -> Reason {
    if let Some(member) = tick.memory.registered.with_data.clone() {
        return Reason::NoData(NoDataReason::DataElsewhere { member });
    }
    if tick.seen.me.tags.nofailover() || !tick.seen.me.may_bootstrap {
        return Reason::NoData(NoDataReason::MayNotBootstrap);
    }
    if !has_lease {
        return Reason::NoLeaseYet;
    }
    let due = due(tick);
    if due.is_none_or(|due| tick.now < due) {
        tick.wake_at(due.unwrap_or(tick.now + LOOK_AGAIN), WaitingOn::Members);
        let seconds = tick.seen.me.wait_for_members.as_secs();
        return Reason::NoData(NoDataReason::AwaitingMembers { seconds });
    }
    start(tick, cluster)
}

/// When members have had time to register; `None`: the wait has not begun.
fn due(tick: &Tick<'_>) -> Option<Moment> {
    let wait = tick.seen.me.wait_for_members;
    match wait.is_zero() {
        true => Some(tick.now),
        false => tick.memory.registered.last_at.map(|at| at + wait),
    }
}

fn start(tick: &mut Tick<'_>, cluster: &ClusterView) -> Reason {
    let seen = cluster.revision;
    tick.start(match tick.remote_source() {
        Some((from, methods)) => Job::BootstrapStandby { seen, from, methods },
        None => Job::Bootstrap { seen },
    });
    Reason::NoData(NoDataReason::NewCluster)
}

/// The wait begins when etcd shows this member, and anew with each member that was never seen before.
fn watch_registrations(tick: &mut Tick<'_>, cluster: &ClusterView) {
    let me = &tick.seen.me;
    let registered = &mut tick.memory.registered;
    let mine = cluster.members.get(&me.name).is_some_and(|key| key.record.session == Some(me.session));
    for (name, key) in cluster.members.iter().filter(|(name, _)| **name != me.name || mine) {
        if registered.names.insert(name.clone()) {
            registered.last_at = Some(tick.now);
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

/// Whether this member may create the cluster's keys from its data. It may if etcd knows the cluster, or if a primary
/// ran here, an operator asked for it, or members compete by the WAL they have.
pub(super) fn may_rebuild(tick: &Tick<'_>, cluster: &ClusterView) -> bool {
    let asks = |request: &FailoverRequest| {
        request.rebuild && request.is_failover() && request.candidate.as_ref() == Some(&tick.seen.me.name)
    };
    let asked =
        cluster.initialize.is_none() && cluster.failover.as_ref().is_some_and(|key| asks(&key.request));
    cluster.system_id().is_some() || cluster.unsettled().is_some() || tick.memory.rebuilds || asked
}
