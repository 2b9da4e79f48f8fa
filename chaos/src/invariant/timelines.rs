//! Terms and timelines only grow, and no two histories have one number.

use crate::sim::world::Sim;

/// A timeline that was begun is the newest there ever was, and none has its number.
pub(crate) fn promoted(sim: &Sim, member: usize) {
    let mut world = sim.world();
    let timeline = world.machines[member].disk.wal.timeline;
    let term = world.etcd.store.keys.get(&world.keys.path("leader")).map_or(0, |key| key.mod_revision);
    let memory = &mut world.ledger.memory;
    let used = memory.timelines.insert(timeline, member).is_some();
    // A store that went back in time does not know the newest, and a member that does may be cut off.
    let newest = memory.store_lost || memory.timeline < timeline;
    let (old_timeline, old_term) = (memory.timeline, memory.term);
    (memory.timeline, memory.term) = (timeline.max(old_timeline), term.max(old_term));
    if used || !newest {
        let text = format!("{member} begins timeline {timeline}, and {old_timeline} was begun before");
        world.ledger.break_promise("timelines", text);
    } else if term < old_term && term != 0 {
        let text = format!("{member} is promoted in term {term}, after {old_term}");
        world.ledger.break_promise("timelines", text);
    }
}

/// A timeline goes on where it was begun, and only as the newest: WAL of another leader would not be on it. The first
/// was begun by nobody.
pub(crate) fn continued(sim: &Sim, member: usize) {
    let mut world = sim.world();
    let timeline = world.machines[member].disk.wal.timeline;
    let memory = &mut world.ledger.memory;
    let by = *memory.timelines.entry(timeline).or_insert(member);
    let newest = memory.store_lost || memory.timeline <= timeline;
    if by != member || !newest {
        let text =
            format!("{member} goes on on timeline {timeline} of {by}, and {} was begun", memory.timeline);
        world.ledger.break_promise("timelines", text);
    }
}
