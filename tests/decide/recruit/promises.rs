//! What a member does that has promised to leave the leader.

use std::time::Duration;

use matriarch::model::{Action, LeaderHearing};

use super::super::attach::branch;
use super::super::world::{standby, up};
use super::{attempt_of, promised, suspecting, world};

/// Nothing announces that PostgreSQL has left the leader.
#[test]
fn who_promises_looks_soon_whether_it_has_left() {
    let mut world = suspecting(1);
    attempt_of(&mut world, "a");
    let promises = world.tick();
    assert!(promises.actions.contains(&Action::Follow(None)), "{}", promises.because);
    assert!(promises.wake.0 <= world.now + Duration::from_millis(20), "{:?}", promises.wake);
}

/// Through any restart of the supervisor, and although a leader is there to be followed: what the first view shows may
/// have been promised.
#[test]
fn a_promise_outlives_the_supervisor() {
    for candidate in ["a", "c"] {
        let mut world = promised(1, candidate);
        world.memory = Default::default();
        (world.memory.failsafe.is_free, world.seen.hearing) = (true, LeaderHearing::Unknown);
        world.postgres(up(standby(1000)));
        let actions = world.tick().actions;
        assert!(actions.contains(&Action::Follow(None)), "{actions:?}");
        for _ in 0..20 {
            world.later(50).tells("b", branch(&[], 1, None));
            let follows = |action: &Action| matches!(action, Action::Follow(Some(_)));
            assert!(!world.tick().actions.iter().any(follows));
        }
    }
}

/// An attempt that begins later is another matter.
#[test]
fn only_what_the_first_view_shows_may_have_been_promised() {
    let mut world = world(1);
    attempt_of(&mut world, "c");
    world.tick();
    assert_eq!(world.memory.recruit.promise, None);
}
