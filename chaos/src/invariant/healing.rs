//! After the end of all faults, the cluster heals: one primary accepts writes, and all other members follow it.

use std::time::Duration;

use crate::sim::postgres::{Phase, Server};
use crate::sim::world::Sim;

/// Clients that are well served hear something within this.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

/// What is missing; `None` when all is well.
pub(crate) fn missing(sim: &Sim) -> Option<String> {
    let world = sim.world();
    let primaries: Vec<usize> = (0..world.machines.len())
        .filter(|index| world.machines[*index].server.as_ref().is_some_and(Server::is_writable))
        .collect();
    let [primary] = primaries[..] else { return Some(format!("the primaries are {primaries:?}")) };
    let end = world.machines[primary].disk.flushed;
    for (index, machine) in world.machines.iter().enumerate().filter(|(index, _)| *index != primary) {
        let Some(server) = machine.server.as_ref() else { return Some(format!("{index} is down")) };
        if server.phase != Phase::Standby || server.streams_from != Some(primary) {
            return Some(format!("{index} does not stream from {primary}"));
        }
        if server.replayed + 200_000 < end {
            return Some(format!("{index} is far behind"));
        }
    }
    (world.ledger.promised_at + ANSWERED_WITHIN < sim.now())
        .then(|| "no client's commit is answered".to_owned())
}
