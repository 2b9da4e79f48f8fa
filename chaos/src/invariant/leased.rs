//! Writable only under a live lease and an armed guard, or named in etcd as left running in pause.

use matriarch::model::{FailsafeMembers, LeaseFacts, LeaseId, MemberName, StoreGeneration};

use crate::sim::clock::At;
use crate::sim::guard::Guard;
use crate::sim::world::{Sim, World};

/// The leader key in etcd is this member's, and a guard is armed or the supervisor, which runs, is the guard.
pub(crate) fn check(sim: &Sim) {
    let writers: Vec<usize> = {
        let world = sim.world();
        let writes = |index: &usize| {
            let server = world.machines[*index].server.as_ref();
            server.is_some_and(|server| server.is_writable() && !sim.exec.is_frozen(server.pid))
        };
        let (unfenced, left) = (world.unfenced(), &world.ledger.memory.left);
        let fenced = |index: &usize| {
            let machine = &world.machines[*index];
            let was_left = machine.server.as_ref().is_some_and(|server| left.contains(&(*index, server.pid)));
            !was_left && !unfenced.contains(&machine.name)
        };
        (0..world.machines.len()).filter(writes).filter(fenced).collect()
    };
    for member in writers {
        let fault = {
            let world = sim.world();
            let leader = world.etcd.store.keys.get(&world.keys.path("leader"));
            let name = world.machines[member].name.as_str().as_bytes();
            match leader {
                // Who found another store has deleted it; the guard has its deadline.
                None if unsettled(&world) => None,
                None => Some("nobody has the leader key"),
                Some(key) if key.value != name => Some("another has the leader key"),
                Some(_) => None,
            }
        };
        let goes_on_until = sim.world().ledger.memory.go_on.get(&member).copied();
        let fault = fault.filter(|_| goes_on_until.is_none_or(|until| until < sim.now()));
        let fault = fault.filter(|_| !is_promised(sim, member) && !is_deposed(sim, member));
        if let Some(fault) = fault {
            sim.world().ledger.break_promise("leased", format!("{member} accepts writes, and {fault}"));
        }
        let replaced = {
            let world = sim.world();
            let supervisor = world.machines[member].supervisor.as_ref();
            supervisor
                .is_some_and(|it| sim.exec.is_alive(it.pid) && it.shared.keep.borrow().armed().is_some())
        };
        if !replaced && !sim.is_guarded(member) {
            sim.world().ledger.break_promise("guarded", format!("{member} accepts writes without a guard"));
        }
    }
}

/// It was replaced, and may live until its own deadline.
fn is_deposed(sim: &Sim, member: usize) -> bool {
    sim.world().ledger.memory.deposals.holds(member, sim.now())
}

/// All members that could take the leader key have promised this one not to: those in the key `failsafe`, or those that
/// were asked, if only a store that is no more had the same key.
fn is_promised(sim: &Sim, member: usize) -> bool {
    let (world, now) = (sim.world(), sim.now());
    let Some(promises) = world.ledger.memory.promises.get(&member) else { return false };
    let path = world.keys.path("failsafe");
    let memory = &world.ledger.memory;
    let key = world.etcd.store.keys.get(&path).filter(|key| memory.restored < key.mod_revision);
    let key = key.map(|key| serde_json::from_slice::<FailsafeMembers>(&key.value));
    let named: Vec<MemberName> = match key {
        Some(key) => key.unwrap_or_default().into_keys().collect(),
        None if memory.store_lost => promises.keys().cloned().collect(),
        None => return false,
    };
    let me = &world.machines[member].name;
    let promised = |name: &MemberName| promises.get(name).is_some_and(|until| Some(now) <= *until);
    named.iter().filter(|name| *name != me).all(promised)
}

/// etcd's store went back in time, and no leader has confirmed what came of it.
pub(super) fn unsettled(world: &World) -> bool {
    let generation = world.etcd.store.keys.get(&world.keys.path("generation"));
    let record =
        generation.map(|key| serde_json::from_slice::<StoreGeneration>(&key.value).unwrap_or_default());
    record.is_some_and(|record| !record.settled)
}

/// When etcd ends this lease, or a store that is no more would have.
fn ends(world: &World, lease: LeaseId) -> Option<At> {
    let held = world.etcd.store.leases.get(&lease.0).map(|lease| lease.expires);
    held.max(world.ledger.memory.void.get(&lease.0).copied())
}

/// A leader counts on the promises of the members: not for longer than each of them has promised, by its own clock.
pub(crate) fn counted(sim: &Sim, member: usize, facts: &LeaseFacts) {
    let Some(deadline) = facts.promised_until else { return };
    let at = sim.when(member, deadline);
    let mut world = sim.world();
    let promises = world.ledger.memory.promises.get(&member);
    let early = promises.and_then(|promises| promises.iter().find(|(_, until)| **until < Some(at)));
    if let Some(text) =
        early.map(|(name, until)| format!("{member} leads until {at}, and {name} promised {until:?}"))
    {
        world.ledger.break_promise("leased", text);
    }
}

/// No deadline lies behind the end of the lease: not by the clock of the member, whatever the clock of etcd's leader.
pub(crate) fn renewed(sim: &Sim, member: usize, facts: &LeaseFacts) {
    let (Some(lease), Some(deadline)) = (facts.lease, facts.deadline) else { return };
    let at = sim.when(member, deadline);
    let ends = ends(&sim.world(), lease);
    if ends.is_none_or(|ends| ends < at) && sim.now() < at {
        let text = format!("{member} counts on lease {lease} until {at}, and etcd ends it at {ends:?}");
        sim.world().ledger.break_promise("leased", text);
    }
}

/// The leader key has moved to this lease, and no guard lets PostgreSQL live longer than it.
pub(crate) fn moved(sim: &Sim, member: usize, lease: LeaseId) {
    let (ends, guards) = {
        let world = sim.world();
        (ends(&world, lease), world.machines[member].guard.guards.clone())
    };
    let stays = guards.iter().filter(|guard| sim.exec.is_alive(guard.pid) && !guard.is_dismissed());
    let kills = stays.filter_map(Guard::armed);
    let last = kills.map(|deadlines| sim.when(member, deadlines.kill_at)).max();
    if let Some(at) = last.filter(|at| sim.now() < *at && ends.is_none_or(|ends| ends < *at)) {
        let text = format!("the guard of {member} kills at {at}, and etcd ends lease {lease} at {ends:?}");
        sim.world().ledger.break_promise("guarded", text);
    }
}
