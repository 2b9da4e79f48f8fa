//! Writable only under a live lease and an armed guard, or named in etcd as left running in pause.

use matriarch::model::{LeaseFacts, LeaseId};

use crate::sim::world::Sim;

/// The leader key in etcd is this member's, and a guard is armed or the supervisor, which runs, is the guard.
pub(crate) fn check(sim: &Sim) {
    let writers: Vec<usize> = {
        let world = sim.world();
        let writes = |index: &usize| {
            let server = world.machines[*index].server.as_ref();
            server.is_some_and(|server| server.is_writable() && !sim.exec.is_frozen(server.pid))
        };
        let unfenced = world.unfenced();
        let fenced = |index: &usize| !unfenced.contains(&world.machines[*index].name);
        (0..world.machines.len()).filter(writes).filter(fenced).collect()
    };
    for member in writers {
        let fault = {
            let world = sim.world();
            let leader = world.etcd.store.keys.get(&world.keys.path("leader"));
            let name = world.machines[member].name.as_str().as_bytes();
            match leader {
                None => Some("nobody has the leader key"),
                Some(key) if key.value != name => Some("another has the leader key"),
                Some(_) => None,
            }
        };
        if let Some(fault) = fault {
            sim.world().ledger.break_promise("leased", format!("{member} accepts writes, and {fault}"));
        }
        let replaced = {
            let world = sim.world();
            let supervisor = world.machines[member].supervisor.as_ref();
            supervisor
                .is_some_and(|it| sim.exec.is_alive(it.pid) && it.shared.orders.borrow().armed.is_some())
        };
        if !replaced && !sim.is_guarded(member) {
            sim.world().ledger.break_promise("guarded", format!("{member} accepts writes without a guard"));
        }
    }
}

/// No deadline lies behind the end of the lease: not by the clock of the member, whatever the clock of etcd's leader.
pub(crate) fn renewed(sim: &Sim, member: usize, facts: &LeaseFacts) {
    let (Some(lease), Some(deadline)) = (facts.lease, facts.deadline) else { return };
    let at = sim.when(member, deadline);
    let ends = sim.world().etcd.store.leases.get(&lease.0).map(|lease| lease.expires);
    if ends.is_none_or(|ends| ends < at) && sim.now() < at {
        let text = format!("{member} counts on lease {lease} until {at}, and etcd ends it at {ends:?}");
        sim.world().ledger.break_promise("leased", text);
    }
}

/// The leader key has moved to this lease, and no guard lets PostgreSQL live longer than it.
pub(crate) fn moved(sim: &Sim, member: usize, lease: LeaseId) {
    let (ends, guards) = {
        let world = sim.world();
        let ends = world.etcd.store.leases.get(&lease.0).map(|lease| lease.expires);
        (ends, world.machines[member].guard.guards.clone())
    };
    let kills = guards.iter().filter(|guard| sim.exec.is_alive(guard.pid)).filter_map(|guard| guard.armed());
    let last = kills.map(|deadlines| sim.when(member, deadlines.kill_at)).max();
    if let Some(at) = last.filter(|at| sim.now() < *at && ends.is_none_or(|ends| ends < *at)) {
        let text = format!("the guard of {member} kills at {at}, and etcd ends lease {lease} at {ends:?}");
        sim.world().ledger.break_promise("guarded", text);
    }
}
