//! A standby stays behind the primary that goes on by its promise.

use matriarch::decide::Following;
use matriarch::model::{Action, ControlState, FollowTarget, Lsn};

use super::super::attach::branch;
use super::super::world::{World, down, name, standby, up};
use super::{asks, question, world};

/// The sources that this tick orders, by their addresses.
fn sources(world: &mut World) -> Vec<Option<String>> {
    let source = |action| match action {
        Action::Follow(target) => Some(target.map(|target: FollowTarget| target.conn_url)),
        _other => None,
    };
    world.tick().actions.into_iter().filter_map(source).collect()
}

/// Member b has lost etcd and with it its keys. The PostgreSQL of this member is restarted.
fn restarted(promised: bool, lsn: u64) -> World {
    let mut world = world();
    if promised {
        asks(&mut world, question("b"));
    }
    world.later(3_100).nobody_leads().cluster().members.remove(&name("b"));
    world.postgres(down(ControlState::ShutDownInRecovery)).tick();
    world.later(100).postgres(up(standby(lsn))).receives_nothing();
    world
}

#[test]
fn a_standby_that_was_restarted_comes_behind_the_primary_that_it_promised() {
    let url = || Some("postgres://b:5432/promised".to_owned());
    let mut world = restarted(true, 1000);
    let asked = world.tick().actions.into_iter().find_map(|action| match action {
        Action::AskLeaderBranch { from } => Some(from.conn_url),
        _other => None,
    });
    assert_eq!(asked, url(), "etcd does not show its address");
    world.later(10).tells("b", branch(&[], 1, Some(2000)));
    assert_eq!(sources(&mut world), [], "a standby: another member leads, or will");
    world.later(10).tells("b", branch(&[], 1, None));
    assert_eq!(sources(&mut world), [url()]);
}

/// It may be gone, and come back with another history.
#[test]
fn a_promised_primary_that_sends_nothing_is_left_and_compared_anew() {
    let mut world = restarted(true, 1000);
    world.tick();
    world.later(10).tells("b", branch(&[], 1, None));
    assert_eq!(sources(&mut world).len(), 1);
    world.later(900);
    assert_eq!(sources(&mut world), []);
    world.later(200);
    assert_eq!(sources(&mut world), [None]);
    assert_eq!(sources(&mut world), [], "what it said before does not count");
    world.later(10).tells("b", branch(&[(1, 500)], 2, None));
    assert_eq!(sources(&mut world), [], "it is on another history now");
    world.later(10).tells("b", branch(&[], 1, None));
    assert_eq!(sources(&mut world).len(), 1);
}

/// Another member may lead by then: it has counted this one's answer that it receives nothing.
#[test]
fn a_promise_that_came_after_the_vacancy_brings_no_standby_behind_anybody() {
    let mut world = restarted(false, 1000);
    asks(&mut world, question("b"));
    for _ in 0..3 {
        world.later(10).tells("b", branch(&[], 1, None));
        assert_eq!(sources(&mut world), []);
        asks(&mut world, question("b"));
    }
}

#[test]
fn a_standby_comes_behind_no_primary_that_it_did_not_promise() {
    for (promised, ended, lsn, follows) in [
        (true, false, 1000, true),
        (true, false, 3000, false),
        (true, true, 1000, false),
        (false, false, 1000, false),
    ] {
        let mut world = restarted(promised, lsn);
        world.tick();
        world.later(if ended { 10_000 } else { 10 }).tells("b", branch(&[(1, 2000)], 2, None)).tick();
        let source = matches!(world.memory.following, Some(Following::Source { .. }));
        assert_eq!(source, follows, "promised: {promised}, ended: {ended}, {}", Lsn(lsn));
    }
}
