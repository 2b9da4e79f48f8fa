//! etcd answers reads and renews leases, but refuses writes.

use std::time::Duration;

use matriarch::model::{
    Action, ClusterStatus, ControlState, HandOverStep, Job, JobKind, Moment, Outcome, Reason, StopMode, Term,
    WriteFacts,
};

use super::scenarios::jobs;
use super::world::{World, down, primary, standby, up};

const FULL: &str = "etcdserver: mvcc: database space exceeded";

fn refuses(world: &mut World) -> &mut World {
    world.seen.writes = WriteFacts { refused: Some(FULL.to_owned()), done_at: None };
    world
}

/// The leader serves; etcd is full from now on.
fn leader_under_full_etcd() -> World {
    let mut world = World::new();
    world.i_lead().answers("b", 1000).answers("c", 1000).postgres(up(primary(1000))).tick();
    refuses(&mut world).tick();
    world
}

/// It goes on on its timeline, so nothing has to be written to etcd before. The number of crashes does not matter,
/// because no other member could take the key.
#[test]
fn a_crashed_leader_goes_on_under_a_full_etcd() {
    let mut world = leader_under_full_etcd();
    for crash in 0..5 {
        world.later(1000).answers("b", 1000).answers("c", 1000);
        let crashed = world.postgres(down(ControlState::InProduction)).tick();
        assert_eq!(jobs(&crashed.actions), [JobKind::StartPrimary], "crash {crash}");
        world.later(200).ends(JobKind::StartPrimary, Outcome::Done).postgres(up(primary(1000))).tick();
    }
}

/// One that has to begin a timeline is promoted as soon as etcd accepts a write.
#[test]
fn a_crashed_leader_keeps_the_key_until_it_can_be_promoted() {
    let mut world = leader_under_full_etcd();
    for crash in 0..5 {
        world.memory.served = None;
        world.later(1000).answers("b", 1000).answers("c", 1000);
        let crashed = world.postgres(down(ControlState::InProduction)).tick();
        assert_eq!(jobs(&crashed.actions), [JobKind::StartStandby], "crash {crash}");
        world.later(200).ends(JobKind::StartStandby, Outcome::Done).postgres(up(standby(1000)));
        for _ in 0..5 {
            let tries = world.answers("b", 1000).answers("c", 1000).tick();
            assert_eq!(tries.because, Reason::WritesRefused);
            assert_eq!(jobs(&tries.actions), [JobKind::Promote]);
            world.later(10).ends(JobKind::Promote, Outcome::Refused(FULL.to_owned()));
            let waits = world.tick();
            assert_eq!((jobs(&waits.actions), waits.because), (vec![], Reason::WritesRefused));
            world.later(1000);
        }
    }
    world.seen.writes = WriteFacts { refused: None, done_at: Some(world.now) };
    let goes_on = world.answers("b", 1000).answers("c", 1000).tick();
    assert_eq!((jobs(&goes_on.actions), goes_on.because), (vec![JobKind::Promote], Reason::Promoting));
}

/// A record that was refused is written again although nothing changed. So an idle member notices that etcd accepts
/// writes again.
#[test]
fn refused_writes_are_retried() {
    let mut world = leader_under_full_etcd();
    let publishes = |action: &Action| matches!(action, Action::PublishMember(_));
    let loop_wait = world.seen.settings.loop_wait;
    let soon = world.later(20).tick();
    assert!(!soon.actions.iter().any(publishes), "{:?}", soon.actions);
    let later = world.later(loop_wait.as_millis() as u64).tick();
    assert!(later.actions.iter().any(publishes), "{:?}", later.actions);
}

/// A release in favour of others contains a write, so a full etcd refuses it as a whole. A refusal is definite: the key
/// still belongs to this member.
#[test]
fn a_release_that_was_refused_did_not_happen() {
    let mut world = World::new();
    world.seen.settings.primary_start_timeout = Duration::ZERO;
    world.i_lead().postgres(up(primary(1000))).tick();
    world.memory.status = Some((ClusterStatus::default(), world.now));
    world.later(10).postgres(down(ControlState::InProduction)).tick();
    let given = world.later(5).answers("b", 1000).answers("c", 1000).tick();
    let with_a_write =
        |action: &Action| matches!(action, Action::Start(Job::ReleaseLeadership { status: Some(_), .. }));
    assert!(given.actions.iter().any(with_a_write), "{:?}", given.actions);
    refuses(world.later(5).ends(JobKind::ReleaseLeadership, Outcome::Refused(FULL.to_owned())));
    assert_eq!(jobs(&world.tick().actions), [JobKind::StartPrimary]);
}

/// SIGTERM: no hand-over is tried, PostgreSQL is stopped, the key is deleted, and the supervisor exits whatever the
/// result of the deletion.
#[test]
fn a_shutdown_does_not_wait_for_a_full_etcd() {
    let mut world = leader_under_full_etcd();
    world.seen.shutting_down = true;
    let mut ended = world.later(10).tick();
    for _ in 0..10 {
        if jobs(&ended.actions) == [JobKind::Stop] {
            break;
        }
        for job in jobs(&ended.actions) {
            world.ends(job, Outcome::Done);
        }
        ended = world.later(20).answers("b", 1000).answers("c", 1000).tick();
    }
    let stops = Action::Start(Job::Stop { mode: StopMode::Fast, within: Duration::from_secs(30) });
    assert!(ended.actions.contains(&stops), "{:?}", ended.actions);
    assert!(matches!(ended.because, Reason::ShuttingDown), "{:?}", ended.because);
    world.later(100).ends(JobKind::Stop, Outcome::Done).postgres(down(ControlState::ShutDown));
    let released = world.tick();
    let release = Action::Start(Job::ReleaseLeadership { term: Term(50), status: None });
    assert!(released.actions.contains(&release), "{:?}", released.actions);
    let refused = Outcome::Refused(FULL.to_owned());
    let exits = world.later(10).ends(JobKind::ReleaseLeadership, refused).tick();
    assert!(exits.actions.iter().any(|action| matches!(action, Action::Exit(_))), "{:?}", exits.actions);
}

/// etcd does not answer at all: the shutdown still ends within a bound.
#[test]
fn a_shutdown_without_etcd_ends_in_time() {
    let mut world = World::new();
    world.i_lead().postgres(down(ControlState::ShutDown));
    world.seen.shutting_down = true;
    world.tick();
    let unknown = Outcome::Unknown("no answer".to_owned());
    world.later(3000).ends(JobKind::ReleaseLeadership, unknown);
    let waits = world.tick();
    assert!(!waits.actions.iter().any(|action| matches!(action, Action::Exit(_))), "{:?}", waits.actions);
    let exits = world.later(3000).tick();
    assert!(exits.actions.iter().any(|action| matches!(action, Action::Exit(_))), "{:?}", exits.actions);
}

/// No write succeeded since the hand-over began: nothing is stopped for it.
#[test]
fn a_hand_over_does_not_stop_postgres_while_etcd_refuses_writes() {
    for refused in [None, Some(FULL.to_owned())] {
        let mut world = World::new();
        world.i_lead().answers("b", 1000).answers("c", 1000).postgres(up(primary(1000))).tick();
        world.seen.writes = WriteFacts { refused: None, done_at: Some(Moment::default()) };
        world.cluster().failover = Some(super::scenarios::switchover(Some("b")));
        let begun = world.later(10).tick();
        assert_eq!(begun.because, Reason::HandingOver(HandOverStep::Choosing));
        world.later(10).answers("b", 1000).tick();
        world.later(10).ends(JobKind::Checkpoint, Outcome::Done).tick();
        world.seen.writes.refused = refused;
        let mut decision = world.later(4000).answers("b", 1000).tick();
        for _ in 0..3 {
            assert!(!jobs(&decision.actions).contains(&JobKind::Stop), "{:?}", decision.actions);
            if matches!(decision.because, Reason::HandOverRefused(_)) {
                break;
            }
            decision = world.later(100).tick();
        }
        assert!(matches!(decision.because, Reason::HandOverRefused(_)), "{:?}", decision.because);
    }
}
