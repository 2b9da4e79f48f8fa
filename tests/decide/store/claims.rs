//! The claims of timelines in a store that went back in time.

use matriarch::model::{Action, Job, Reason, StoreChange, StoreReason, Timeline, TimelineClaim};

use super::super::world::World;
use super::generations;

/// c led for a second, and etcd is restored to the moment before: its revision has caught up, and c is cut off. c may
/// have begun the timeline that it had claimed.
#[test]
fn a_claim_that_was_seen_counts_after_a_restore() {
    let mut world = World::new();
    let claim = |number, mod_revision| Some(TimelineClaim { timeline: Timeline(number), mod_revision });
    world.cluster().timeline_claim = claim(7, 58);
    world.tick();
    world.cluster().timeline_claim = None;
    world.i_lead().later(5);
    let promoted = world.tick().actions;
    let passes_over =
        |action: &Action| matches!(action, Action::Start(Job::Promote { above: Timeline(7), .. }));
    assert!(promoted.iter().any(passes_over), "{promoted:?}");

    world.cluster().timeline_claim = claim(7, 158);
    (world.cluster().revision, world.cluster().listed) = (158, 100);
    world.later(5).tick();
    world.cluster().timeline_claim = claim(6, 120);
    world.cluster().revision = 160;
    let change = StoreChange::KeyReturned { key: "timeline".to_owned(), revision: 120 };
    assert_eq!(world.later(5).tick().because, Reason::Store(StoreReason::WentBack(change)));
}

/// A supervisor of an earlier version did not write down which claim it had seen: that is no contradiction.
#[test]
fn the_memory_of_an_earlier_version_voids_nothing() {
    let mut world = World::new();
    let claim = Some(TimelineClaim { timeline: Timeline(7), mod_revision: 58 });
    world.cluster().timeline_claim = claim;
    world.tick();
    let mut written = serde_json::to_value(&world.memory.store).expect("it is written as JSON");
    written["keys"].as_object_mut().expect("an object").remove("timeline_claim");
    world.memory.store = serde_json::from_value(written).expect("it is read");
    let decision = world.later(5).tick();
    assert_eq!(generations(&decision.actions), [], "{}", decision.because);
    world.cluster().timeline_claim = Some(TimelineClaim { timeline: Timeline(6), mod_revision: 57 });
    assert_eq!(generations(&world.later(5).tick().actions).len(), 1, "known since");
}
