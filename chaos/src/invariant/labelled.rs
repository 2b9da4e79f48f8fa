//! No decision lets its pod say that it leads while its PostgreSQL is a standby, or when it stops it as planned.

use matriarch::model::{Action, Job, PodRole, StopMode};

use crate::sim::postgres::Phase;
use crate::sim::world::Sim;

/// What a decision says of the pod, and what it does besides. A label stays until another is wished for.
pub(crate) fn decided(sim: &Sim, member: usize, pod: Option<PodRole>, actions: &[Action]) {
    let mut world = sim.world();
    let world = &mut *world;
    let labels = &mut world.ledger.memory.labels;
    if let Some(role) = pod {
        labels.insert(member, role);
    }
    let server = world.machines[member].server.as_ref();
    // A stop that a former supervisor asked for begins when it likes.
    let standby = matches!(pod, Some(PodRole::Leader(_)))
        && server.is_some_and(|server| server.phase != Phase::Primary);
    let planned =
        |action: &Action| matches!(action, Action::Start(Job::Stop { mode: StopMode::Fast, within: _ }));
    let stopped = matches!(labels.get(&member), Some(PodRole::Leader(_))) && actions.iter().any(planned);
    if standby || stopped {
        let what = if standby { "is a standby" } else { "is stopped as planned" };
        world
            .ledger
            .break_promise("labelled", format!("the pod of {member} says that it leads, and it {what}"));
    }
}
