//! A switchover needs a candidate that receives the primary's last WAL.

use matriarch::model::{
    Action, Ask, ControlState, Ineligible, Job, JobKind, Outcome, PeerAnswer, Reply, Request, RequestId,
};

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

/// The check before a switchover gives the reason with which the switchover itself is refused, for every fault, and
/// begins nothing.
#[test]
fn the_check_judges_candidates_as_the_switchover_does() {
    type Fault = fn(&mut World);
    let faults: [(&str, Fault); 5] = [
        ("fit", |_| {}),
        ("does not stream from a", |world| {
            world.seen.postgres.sql.as_mut().expect("it runs").sync.walsenders.clear();
        }),
        ("bytes behind", |world| world.seen.settings.maximum_lag_on_failover = 10),
        ("is not a standby", |world| candidate(world).in_recovery = false),
        ("is on another timeline", |world| candidate(world).timeline = None),
    ];
    for (words, fault) in faults {
        let mut world = World::new();
        world.i_lead().postgres(up(primary(1000))).tick();
        world.answers("c", 900);
        fault(&mut world);
        let answers = vec![(name("c"), candidate(&mut world).clone())];
        world.seen.requests.push(Request { id: RequestId(7), ask: Ask::JudgeCandidates { answers } });
        let judged = world.later(10).tick();
        assert_eq!(jobs(&judged.actions), []);
        let reply = judged.actions.iter().find_map(|action| match action {
            Action::Answer { reply: Reply::CandidatesJudged { unfit }, .. } => Some(unfit.clone()),
            _other => None,
        });
        let unfit = reply.unwrap_or_else(|| panic!("{words}: {:?}", judged.actions));
        let why = unfit.get(&name("c")).map(Ineligible::to_string);

        world.cluster().failover = Some(switchover(Some("c")));
        world.later(10).tick();
        world.later(5).answers("c", 900);
        fault(&mut world);
        let decided = world.tick().because.to_string();
        match why {
            None => assert!(words == "fit" && decided.contains("checkpoint"), "{words}: {decided}"),
            Some(why) => assert!(why.contains(words) && decided.contains(&why), "{why}: {decided}"),
        }
    }
}

fn candidate(world: &mut World) -> &mut PeerAnswer {
    world.seen.peers.get_mut(&name("c")).expect("it answered")
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

/// The checkpoint took nearly all of `primary_stop_timeout`, while clients were served. The stop and the candidate have
/// all of it again; then the old primary serves in the same term.
#[test]
fn a_slow_checkpoint_does_not_shorten_the_stop() {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000))).tick();
    world.cluster().failover = Some(switchover(Some("c")));
    world.later(10).tick();
    world.later(5).answers("c", 890).tick();
    let stops = world.later(55_000).answers("c", 890).ends(JobKind::Checkpoint, Outcome::Done).tick();
    let within = stops.actions.iter().find_map(|action| match action {
        Action::Start(Job::Stop { within, .. }) => Some(*within),
        _other => None,
    });
    assert_eq!(within, Some(world.seen.settings.primary_stop_timeout), "{:?}", stops.actions);
    world.later(50).postgres(down(ControlState::ShutDown)).ends(JobKind::Stop, Outcome::Done).tick();
    for _ in 0..29 {
        world.later(2000).answers("c", 901);
        candidate(&mut world).replayed = matriarch::model::Lsn(500);
        assert_eq!(jobs(&world.tick().actions), []);
    }
    let aborted = world.later(2000).tick();
    assert!(aborted.because.to_string().contains("did not replay"), "{}", aborted.because);
    assert_eq!(jobs(&world.later(1).tick().actions), [JobKind::StartPrimary]);
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
