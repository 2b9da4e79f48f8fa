//! One long action at a time: one that works on PostgreSQL, and one that writes the leader key.

use matriarch::model::JobKind;

use crate::sim::world::Sim;

/// What the action works on. A checkpoint after a promotion waits for nothing, and nothing waits for it.
#[derive(PartialEq)]
enum On {
    LeaderKey,
    Postgres,
}

fn works_on(kind: JobKind) -> On {
    match kind {
        JobKind::TakeLeadership
        | JobKind::HandOver
        | JobKind::ReleaseLeadership
        | JobKind::ReclaimLeadership => On::LeaderKey,
        _other => On::Postgres,
    }
}

/// A task begins while these are there.
pub(crate) fn begins(sim: &Sim, member: usize, under_way: &[JobKind], kind: JobKind) {
    if let Some(other) = under_way.iter().find(|other| works_on(**other) == works_on(kind)) {
        let text = format!("{member} begins {kind} while {other} is under way");
        sim.world().ledger.break_promise("one_job", text);
    }
}
