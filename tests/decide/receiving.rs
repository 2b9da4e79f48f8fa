//! A switchover needs a candidate that receives the primary's last WAL.

use matriarch::model::{Action, ControlState, JobKind, Outcome};

use super::scenarios::{jobs, switchover};
use super::world::{World, down, name, primary, up};

/// The candidate has nearly all WAL, but its walsender has ended. It would never get the shutdown checkpoint, so the
/// primary is not stopped. The same applies if the walsender ends during the checkpoint.
#[test]
fn a_switchover_to_a_candidate_that_does_not_stream_never_stops_the_primary() {
    for ends_later in [false, true] {
        let mut world = World::new();
        world.i_lead().postgres(up(primary(1000))).tick();
        world.cluster().failover = Some(switchover(Some("c")));
        let cut = |world: &mut World| {
            let sql = world.seen.postgres.sql.as_mut().expect("it runs");
            sql.sync.walsenders.retain(|walsender| walsender.name != "c");
        };
        if !ends_later {
            cut(&mut world);
        }
        world.later(10).tick();
        let mut refused = world.later(5).answers("c", 1000).tick();
        if ends_later {
            assert_eq!(jobs(&refused.actions), [JobKind::Checkpoint]);
            cut(&mut world);
            refused = world.later(5).ends(JobKind::Checkpoint, Outcome::Done).tick();
        }
        assert_eq!(jobs(&refused.actions), [], "{}", refused.because);
        assert!(refused.because.to_string().contains("does not stream from a"), "{}", refused.because);
        assert!(refused.actions.contains(&Action::ClearFailover { mod_revision: 77 }));
    }
}

/// The candidate's stream broke while the primary stopped. WAL that it lacks two seconds later will never arrive, so
/// the old primary serves again, without waiting for `primary_stop_timeout`.
#[test]
fn a_candidate_that_stops_receiving_is_given_up() {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000))).tick();
    world.cluster().failover = Some(switchover(Some("c")));
    world.later(10).tick();
    world.later(5).answers("c", 890).tick();
    world.later(5).ends(JobKind::Checkpoint, Outcome::Done).tick();
    world.later(50).postgres(down(ControlState::ShutDown)).ends(JobKind::Stop, Outcome::Done).tick();
    assert_eq!(jobs(&world.later(100).answers("c", 890).tick().actions), []);
    assert_eq!(jobs(&world.later(1900).answers("c", 895).tick().actions), [], "it still advances");
    assert_eq!(jobs(&world.later(1900).answers("c", 895).tick().actions), []);
    let aborted = world.later(200).answers("c", 895).tick();
    assert!(aborted.because.to_string().contains("receives nothing"), "{}", aborted.because);
    assert_eq!(jobs(&world.later(1).tick().actions), [JobKind::StartPrimary]);
}

/// A candidate that has all WAL and takes long to replay it is waited for.
#[test]
fn a_candidate_that_replays_slowly_is_waited_for() {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000))).tick();
    world.cluster().failover = Some(switchover(Some("c")));
    world.later(10).tick();
    world.later(5).answers("c", 890).tick();
    world.later(5).ends(JobKind::Checkpoint, Outcome::Done).tick();
    world.later(50).postgres(down(ControlState::ShutDown)).ends(JobKind::Stop, Outcome::Done).tick();
    for _ in 0..10 {
        world.later(2000).answers("c", 901);
        world.seen.peers.get_mut(&name("c")).expect("added").replayed = matriarch::model::Lsn(500);
        assert_eq!(jobs(&world.tick().actions), []);
    }
    assert_eq!(jobs(&world.later(20).answers("c", 901).tick().actions), [JobKind::HandOver]);
}

/// After the stop nothing answers at the candidate's address: after five seconds the old primary serves again.
#[test]
fn a_silent_candidate_is_given_up() {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000))).tick();
    world.cluster().failover = Some(switchover(Some("c")));
    world.later(10).tick();
    world.later(5).answers("c", 890).tick();
    world.later(5).ends(JobKind::Checkpoint, Outcome::Done).tick();
    world.later(50).postgres(down(ControlState::ShutDown)).ends(JobKind::Stop, Outcome::Done).tick();
    assert_eq!(jobs(&world.later(4900).tick().actions), []);
    let aborted = world.later(200).tick();
    assert!(aborted.because.to_string().contains("has not answered"), "{}", aborted.because);
}
