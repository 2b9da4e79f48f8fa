//! What must hold, whatever happens: one file for each promise. A promise is checked where it could be broken; the
//! first that is broken ends the run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use matriarch::model::{FailsafeMembers, LeaseFacts, LeaseId, MemberName, PodRole};

use crate::sim::clock::At;
use crate::sim::executor::Pid;
use crate::sim::world::{Sim, index_of};

pub(crate) mod deposed;
pub(crate) mod false_alarm;
pub(crate) mod healing;
pub(crate) mod kept;
pub(crate) mod labelled;
pub(crate) mod last_copy;
pub(crate) mod leased;
pub(crate) mod loss;
pub(crate) mod one_job;
pub(crate) mod one_writer;
pub(crate) mod roles;
pub(crate) mod sync_mode;
pub(crate) mod sync_record;
pub(crate) mod timelines;

/// What has to be remembered between two looks.
#[derive(Default)]
pub(crate) struct Memory {
    /// The highest term and timeline seen.
    pub(crate) term: i64,
    pub(crate) timeline: u32,
    /// Every timeline that was begun, and by whom.
    pub(crate) timelines: BTreeMap<u32, usize>,
    /// etcd's store went back in time.
    pub(crate) store_lost: bool,
    /// To that revision.
    pub(crate) restored: i64,
    /// Whom an operator wants to lead, whatever is lost, and since when.
    pub(crate) forced: BTreeMap<usize, At>,
    /// Who led when etcd's store went back in time, and when its lease ends.
    pub(crate) go_on: BTreeMap<usize, At>,
    /// The PostgreSQL of a member that was left running in pause, of which a store that is no more knew.
    pub(crate) left: BTreeSet<(usize, Pid)>,
    /// When leases end that were given by a store that is no more.
    pub(crate) void: BTreeMap<i64, At>,
    /// By leader: whom it last asked to let it lead on without etcd, and until when each has promised.
    pub(crate) promises: BTreeMap<usize, BTreeMap<MemberName, Option<At>>>,
    /// Leaders that were replaced before their leases ended.
    pub(crate) deposals: deposed::Deposals,
    /// Who leads while nothing is wrong.
    pub(crate) calm: false_alarm::LeaderWatch,
    /// What each pod says of its role.
    pub(crate) labels: BTreeMap<usize, PodRole>,
}

/// After every step.
pub(crate) fn step(sim: &Sim) {
    deposed::observe(sim);
    false_alarm::check(sim);
    one_writer::check(sim);
    leased::check(sim);
}

/// Somebody has just become primary.
pub(crate) fn promoted(sim: &Sim, member: usize) {
    sim.world().ledger.promotions += 1;
    timelines::promoted(sim, member);
    sync_record::promoted(sim, member);
    loss::promoted(sim, member);
}

/// A primary has just gone on as the one that it was.
pub(crate) fn continued(sim: &Sim, member: usize) {
    // One that was replaced may come back as it was, and acknowledges nothing.
    if sim.world().ledger.memory.deposals.holds(member, sim.now()) {
        return;
    }
    timelines::continued(sim, member);
    sync_record::promoted(sim, member);
    loss::promoted(sim, member);
}

/// etcd's store goes back in time, or is emptied, now. The leader goes on until its lease ends by what it knows, also
/// one whose key a generation has deleted that is not settled yet; terms begin anew.
pub(crate) fn store_lost(sim: &Sim, revision: i64) {
    let mut world = sim.world();
    let world = &mut *world;
    let ends = |lease: i64| Some(world.etcd.store.leases.get(&lease)?.expires);
    let leader = world.etcd.store.keys.get(&world.keys.path("leader"));
    let leader =
        leader.and_then(|key| Some((index_of(&String::from_utf8_lossy(&key.value))?, ends(key.lease)?)));
    let former = world.ledger.memory.go_on.keys().filter(|_| leased::unsettled(world));
    let former = former.filter_map(|member| {
        let name = &world.machines[*member].name;
        Some((*member, ends(world.etcd.store.keys.get(&world.keys.member(name))?.lease)?))
    });
    let go_on: Vec<(usize, At)> = former.chain(leader).collect();
    let left = world.unfenced().into_iter().filter_map(|name| index_of(name.as_str()));
    let left = left.filter_map(|index| Some((index, world.machines[index].server.as_ref()?.pid)));
    let left: Vec<(usize, Pid)> = left.collect();
    let memory = &mut world.ledger.memory;
    memory.left.extend(left);
    for (member, until) in go_on {
        let known = memory.go_on.entry(member).or_insert(until);
        *known = until.max(*known);
    }
    memory.void.extend(world.etcd.store.leases.iter().map(|(lease, held)| (*lease, held.expires)));
    (memory.term, memory.store_lost, memory.restored) = (0, true, revision);
}

/// A leader has deleted its key.
pub(crate) fn released(sim: &Sim, member: usize, ends: bool) {
    kept::released(sim, member, ends);
}

/// A member has begun a generation of etcd's store.
pub(crate) fn voided(sim: &Sim, member: usize) {
    kept::voided(sim, member);
}

/// The leader key has moved to another lease of its leader.
pub(crate) fn moved(sim: &Sim, member: usize, lease: LeaseId) {
    leased::moved(sim, member, lease);
}

/// A leader asks these members to let it lead on without etcd.
pub(crate) fn asks(sim: &Sim, leader: usize, members: &FailsafeMembers) {
    let mut world = sim.world();
    let promises = world.ledger.memory.promises.entry(leader).or_default();
    promises.retain(|name, _| members.contains_key(name));
    for name in members.keys() {
        promises.entry(name.clone()).or_default();
    }
}

/// A member has just promised that for so long. What it has promised before stands, whatever it is asked later.
pub(crate) fn promised(sim: &Sim, leader: usize, by: &MemberName, ttl: Duration) {
    let until = sim.now() + ttl;
    if let Some(promises) = sim.world().ledger.memory.promises.get_mut(&leader) {
        let promise = promises.entry(by.clone()).or_default();
        *promise = (*promise).max(Some(until));
    }
}

/// A leader counts on what the members have promised.
pub(crate) fn counted(sim: &Sim, member: usize, facts: &LeaseFacts) {
    leased::counted(sim, member, facts);
}

/// A renewal was confirmed.
pub(crate) fn renewed(sim: &Sim, member: usize, facts: &LeaseFacts) {
    leased::renewed(sim, member, facts);
}
