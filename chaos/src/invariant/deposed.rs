//! A leader that was replaced before its lease ended acknowledges nothing more but what its successor has: a standby
//! may have confirmed that before it left. It may go on, or come back in place, until the deadline that it knew.

use std::collections::BTreeMap;

use matriarch::model::{RecruitKey, Term};

use crate::sim::clock::At;
use crate::sim::guard::Guard;
use crate::sim::world::{Sim, index_of};

/// What was last seen of the keys, and the leaders that were replaced.
#[derive(Default)]
pub(crate) struct Deposals {
    leader: Option<(String, Term)>,
    attempt: Option<RecruitKey>,
    /// Until when each may accept writes, and what its successor had.
    until: BTreeMap<usize, (At, u64)>,
    count: usize,
}

impl Deposals {
    /// Their number.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Whether the member was replaced, and may not have learned of it.
    pub(crate) fn holds(&self, member: usize, now: At) -> bool {
        self.until.get(&member).is_some_and(|(until, _)| now <= *until)
    }
}

/// After every step. A deposal changes the leader key without a vacancy, and ends the attempt to replace that leader.
pub(crate) fn observe(sim: &Sim) {
    let Some((replaced, successor)) = replaced(sim) else { return };
    let until = deadline(sim, replaced);
    let mut world = sim.world();
    let world = &mut *world;
    let deposals = &mut world.ledger.memory.deposals;
    deposals.count += 1;
    deposals.until.insert(replaced, (until, world.machines[successor].disk.flushed));
}

/// The former leader, and who has replaced it.
fn replaced(sim: &Sim) -> Option<(usize, usize)> {
    let mut world = sim.world();
    let world = &mut *world;
    let (leader, attempt) = (world.leader(), world.attempt());
    let seen = &mut world.ledger.memory.deposals;
    if (&seen.leader, &seen.attempt) == (&leader, &attempt) {
        return None;
    }
    // It may lead anew, and is a leader like any other then.
    let leads = leader.as_ref().and_then(|(name, _)| index_of(name));
    seen.until.retain(|member, _| Some(*member) != leads);
    let before = (seen.leader.take(), seen.attempt.take());
    (seen.leader, seen.attempt) = (leader, attempt);
    match (before, &seen.leader) {
        ((Some((name, term)), Some(key)), Some((next, _)))
            if key.term == term
                && next == key.candidate.as_str()
                && *next != name
                && seen.attempt.is_none() =>
        {
            Some((index_of(&name)?, leads?))
        }
        _otherwise => None,
    }
}

/// The latest moment that its supervisor or its guard knows.
fn deadline(sim: &Sim, member: usize) -> At {
    let (facts, guards) = {
        let world = sim.world();
        let machine = &world.machines[member];
        let supervisor = machine.supervisor.as_ref().filter(|it| sim.exec.is_alive(it.pid));
        let facts = supervisor.and_then(|it| it.shared.lease.borrow().deadline);
        (facts, machine.guard.guards.clone())
    };
    let kills = guards.iter().filter_map(Guard::armed).map(|armed| armed.kill_at);
    let ends = kills.chain(facts).map(|deadline| sim.when(member, deadline));
    ends.max().unwrap_or(sim.now())
}

/// A primary acknowledges a commit that ends there.
pub(crate) fn acknowledged(sim: &Sim, member: usize, end: u64) {
    let mut world = sim.world();
    if world.ledger.memory.deposals.until.get(&member).is_some_and(|(_, had)| *had < end) {
        let text = format!("{member} acknowledges a commit after it was replaced, which its successor lacks");
        world.ledger.break_promise("deposed", text);
    }
}
