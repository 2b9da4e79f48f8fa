//! The names in PostgreSQL's file.

use matriarch::model::{Action, SyncMode, SyncOwner};

use super::super::world::{World, primary, up};

/// The disk was full when the supervisor's names were to be taken out of the file.
#[test]
fn names_that_could_not_be_removed_are_removed_again_but_not_at_once() {
    let mut world = World::new();
    world.seen.settings.sync.mode = SyncMode::Off;
    world.i_lead().postgres(up(primary(2000)));
    let mut removes = |owner: SyncOwner, later: u64| {
        world.later(later).seen.postgres.sync_owner = owner;
        world.tick().actions.contains(&Action::SetSyncNames(None))
    };
    assert!(removes(SyncOwner::Supervisor("ANY 1 (b)".to_owned()), 0));
    assert!(!removes(SyncOwner::Undecided, 999));
    assert!(removes(SyncOwner::Undecided, 1));
    assert!(!removes(SyncOwner::Operator, 5000));
}
