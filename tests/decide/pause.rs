//! Pause: nothing happens by itself, and what an operator asked for goes on to its end.

use matriarch::model::{
    Action, Ask, ControlState, JobKind, LeaseId, MemberState, Outcome, Reason, Request, RequestId,
    RestartFilter,
};

use super::scenarios::{jobs, switchover};
use super::world::{World, down, leader, name, primary, standby, up};

/// An operator's request continues in pause.
#[test]
fn a_restart_in_pause_brings_the_primary_back() {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000))).seen.settings.pause = true;
    let ask = Ask::Restart { at: None, filter: RestartFilter::default() };
    world.seen.requests.push(Request { id: RequestId(9), ask });
    assert_eq!(jobs(&world.tick().actions), [JobKind::Checkpoint]);
    assert_eq!(
        jobs(&world.later(5).ends(JobKind::Checkpoint, Outcome::Done).tick().actions),
        [JobKind::Stop]
    );
    world.later(50).postgres(down(ControlState::ShutDown)).ends(JobKind::Stop, Outcome::Done);
    assert_eq!(jobs(&world.tick().actions), [JobKind::StartPrimary]);
}

impl World {
    /// In pause a's primary is stopped for a switchover to c.
    fn stopped_for_a_switchover() -> World {
        let mut world = World::new();
        world.seen.settings.loop_wait = std::time::Duration::from_secs(60);
        world.i_lead().postgres(up(primary(1000))).seen.settings.pause = true;
        world.tick();
        world.cluster().failover = Some(switchover(Some("c")));
        world.later(10).tick();
        world.later(5).answers("c", 990).tick();
        world.later(5).ends(JobKind::Checkpoint, Outcome::Done).tick();
        world.later(50).postgres(down(ControlState::ShutDown)).ends(JobKind::Stop, Outcome::Done).tick();
        world
    }
}

/// The former primary was stopped for the switchover: it is started behind the new leader.
#[test]
fn a_former_primary_follows_after_a_switchover_in_pause() {
    let mut world = World::stopped_for_a_switchover();
    let moved = world.later(20).answers("c", 901).tick();
    assert_eq!(jobs(&moved.actions), [JobKind::HandOver]);
    world.later(5).ends(JobKind::HandOver, Outcome::Done).cluster().leader = Some(leader("c", LeaseId(0xC)));
    (world.cluster().revision, world.cluster().listed) = (101, 101);
    world.seen.lease.leading = matriarch::model::Leading::No;
    let waits = world.later(5).tick().because;
    assert!(!matches!(waits, Reason::Paused), "{waits}");
}

/// The switchover is aborted after the stop: the old primary serves again.
#[test]
fn an_aborted_switchover_in_pause_leaves_a_primary() {
    let mut world = World::stopped_for_a_switchover();
    let aborted = world.later(60_000).answers("c", 900).tick();
    assert!(matches!(&aborted.because, Reason::HandOverRefused(_)), "{}", aborted.because);
    world.cluster().failover = None;
    assert_eq!(jobs(&world.later(1).tick().actions), [JobKind::StartPrimary]);
    world.later(100).postgres(up(primary(1000))).ends(JobKind::StartPrimary, Outcome::Done);
    assert_eq!(world.tick().because, Reason::Leading);
}

/// The candidate is promoted when it has the key. A standby that has the key, and for which nobody asked, releases it.
#[test]
fn only_a_candidate_is_promoted_in_pause() {
    for (candidate, expected) in [("a", JobKind::Promote), ("c", JobKind::ReleaseLeadership)] {
        let mut world = World::new();
        world.postgres(up(standby(1000))).seen.settings.pause = true;
        let mut request = switchover(Some(candidate));
        request.request.leader = Some(name("b"));
        world.cluster().failover = Some(request);
        assert_eq!(jobs(&world.i_lead().tick().actions), [expected], "{candidate}");
    }
}

/// An operator may stop PostgreSQL in any way.
#[test]
fn a_server_that_ends_in_pause_is_stopped_and_not_crashed() {
    for (pause, expected) in [(true, MemberState::Stopped), (false, MemberState::Crashed)] {
        let mut world = World::new();
        world.postgres(up(standby(1000))).tick();
        world.postgres(down(ControlState::InArchiveRecovery)).seen.settings.pause = pause;
        let actions = world.later(10).tick().actions;
        let published = |action: &Action| match action {
            Action::PublishMember(record) => Some(record.state),
            _ => None,
        };
        assert_eq!(actions.iter().find_map(published), Some(expected), "{actions:?}");
    }
}
