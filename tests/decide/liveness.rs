//! Scenarios: a Postgres that runs but does not work.

use std::time::Duration;

use matriarch::model::{
    Action, ControlState, Death, HistoryLine, Job, JobKind, LivenessVerdict, Lsn, Outcome, PostgresFacts,
    Reason, RunningJob, StopMode, Term, Timeline, Unfit,
};

use super::world::{World, dead, down, no_connection, no_write, primary, promoting, silent, standby, up};

fn jobs(actions: &[Action]) -> Vec<&Job> {
    let mut jobs = Vec::new();
    for action in actions {
        if let Action::Start(job) = action {
            jobs.push(job);
        }
    }
    jobs
}

fn kinds(actions: &[Action]) -> Vec<JobKind> {
    jobs(actions).into_iter().map(Job::kind).collect()
}

fn is_immediate_stop(actions: &[Action]) -> bool {
    matches!(jobs(actions)[..], [Job::Stop { mode: StopMode::Immediate, .. }])
}

fn others_answer(world: &mut World) -> &mut World {
    world.answers("b", 1000).answers("c", 1000)
}

fn others_are_away(world: &mut World) -> &mut World {
    others_answer(world).seen.peers.values_mut().for_each(|peer| peer.reachable = false);
    world
}

fn job(world: &mut World, job: Job) -> &mut World {
    let since = world.now;
    world.seen.job = Some(RunningJob { job, since });
    world
}

fn stop() -> Job {
    Job::Stop { mode: StopMode::Immediate, within: Duration::from_millis(500) }
}

fn promote() -> Job {
    Job::Promote { term: Term(50), above: Timeline(1) }
}

/// The postmaster is frozen, or does not accept connections for another reason: it is stopped at once. The key goes to
/// another member only when no process of it is left.
#[test]
fn a_dead_primary_is_stopped_before_the_key_is_given_away() {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000))).tick();
    let unhealthy = world.later(5000).postgres(dead(no_connection())).tick();
    assert!(is_immediate_stop(&unhealthy.actions), "{:?}", unhealthy.actions);
    assert_eq!(unhealthy.because, Reason::Unfit(Unfit::Dead(no_connection())));
    others_answer(job(world.later(100), stop()));
    assert_eq!(kinds(&world.tick().actions), [], "a process of it is left");
    world.seen.job = None;
    world.later(100).ends(JobKind::Stop, Outcome::Done).postgres(down(ControlState::InProduction));
    let given = others_answer(&mut world).tick();
    assert_eq!(kinds(&given.actions), [JobKind::ReleaseLeadership]);
    assert_eq!(given.because, Reason::Unfit(Unfit::Dead(no_connection())));
}

/// A new process may work where the frozen one does not.
#[test]
fn a_dead_primary_is_started_again_when_nobody_else_can_lead() {
    let mut world = World::new();
    others_are_away(world.i_lead().postgres(dead(no_connection())));
    assert!(is_immediate_stop(&world.tick().actions));
    world.later(100).ends(JobKind::Stop, Outcome::Done).postgres(down(ControlState::InProduction));
    assert_eq!(kinds(&others_are_away(&mut world).tick().actions), [JobKind::StartStandby]);
    // The failures are forgotten: it is promoted, although another member could lead now.
    world.later(1000).postgres(up(standby(1000))).ends(JobKind::StartStandby, Outcome::Done);
    assert_eq!(kinds(&others_answer(&mut world).tick().actions), [JobKind::Promote]);
}

/// A restart does not help against a full disk: if another member can lead, the key goes there; a lone member
/// continues.
#[test]
fn a_primary_that_cannot_write_keeps_serving_only_without_a_successor() {
    let mut world = World::new();
    world.i_lead().postgres(dead(no_write()));
    let asks = world.tick();
    assert_eq!((kinds(&asks.actions), asks.because), (vec![], Reason::AskingMembers));
    let pardons = |actions: &[Action]| {
        actions.iter().any(|action| matches!(action, Action::SuspendLivenessCheck { .. }))
    };
    assert!(!pardons(&asks.actions));
    // The other members answer, but cannot lead.
    others_answer(world.later(5)).seen.peers.values_mut().for_each(|peer| peer.watchdog_failed = true);
    let spared = world.tick();
    assert!(
        !kinds(&spared.actions).contains(&JobKind::Stop) && pardons(&spared.actions),
        "{:?}",
        spared.actions
    );
    assert_eq!(spared.because, Reason::Unfit(Unfit::DeadAndAlone(no_write())));
    assert!(spared.wake.0 < world.now + Duration::from_secs(5), "the pardon ends");
    // It continues while the others are queried again.
    assert!(pardons(&world.later(3000).tick().actions));
    assert!(is_immediate_stop(&others_answer(world.later(5)).tick().actions));
}

/// The others are registered but do not answer this member: they may be healthy, so the key is released.
#[test]
fn a_silent_member_counts_as_a_possible_successor() {
    let mut world = World::new();
    others_are_away(world.i_lead().postgres(dead(no_write())));
    assert!(is_immediate_stop(&world.tick().actions));
    world.later(100).ends(JobKind::Stop, Outcome::Done).postgres(down(ControlState::InProduction));
    assert_eq!(kinds(&others_are_away(&mut world).tick().actions), [JobKind::ReleaseLeadership]);
}

/// The disk was full, so the primary panicked and was started again, and now no connection succeeds: "could not write
/// init file". This is no recovery, so `primary_start_timeout` is not waited for (found by the rig, disk-full).
#[test]
fn a_started_server_that_rejects_every_connection_loses_leadership() {
    let mut world = World::new();
    others_answer(world.i_lead().postgres(silent()));
    world.seen.postgres.turned_away_since = Some(world.now);
    assert_eq!((kinds(&world.tick().actions), world.tick().because), (vec![], Reason::PostgresSilent));
    let gives_up = others_answer(world.later(5000)).tick();
    assert!(is_immediate_stop(&gives_up.actions), "{:?}", gives_up.actions);
    assert_eq!(gives_up.because, Reason::Unfit(Unfit::TurnsAway));
    world.later(100).ends(JobKind::Stop, Outcome::Done).postgres(down(ControlState::InProduction));
    assert_eq!(kinds(&others_answer(&mut world).tick().actions), [JobKind::ReleaseLeadership]);
}

/// One late proof is no verdict. In pause there is no verdict at all.
#[test]
fn doubt_and_pause_change_nothing() {
    let mut world = World::new();
    let since = world.now;
    world.i_lead().postgres(up(primary(1000))).seen.postgres.liveness.verdict =
        LivenessVerdict::Doubtful { since };
    assert_eq!(world.later(3000).tick().because, Reason::Leading);
    for death in [no_connection(), no_write()] {
        world.postgres(dead(death)).seen.settings.pause = true;
        assert_eq!(kinds(&world.tick().actions), []);
    }
}

/// A checkpoint hangs because the checkpointer is stopped: it does not delay the stop.
#[test]
fn a_long_action_does_not_delay_the_stop_of_a_dead_primary() {
    let mut world = World::new();
    let stopped = Death::Stopped { process: "checkpointer".to_owned(), within: Duration::from_secs(5) };
    job(world.i_lead().postgres(dead(stopped)), Job::Checkpoint);
    assert!(world.tick().actions.contains(&Action::CancelJob));
    world.seen.job = None;
    world.later(50).ends(JobKind::Checkpoint, Outcome::Cancelled);
    assert!(is_immediate_stop(&world.tick().actions));
}

/// The lease ran out because the loop was blocked too: the member does not take the key back for a dead Postgres.
#[test]
fn a_dead_primary_does_not_take_the_vanished_key_back() {
    let mut world = World::new();
    world.nobody_leads().postgres(dead(no_connection()));
    assert!(is_immediate_stop(&world.tick().actions));
}

/// Another member led in the meantime, on a newer timeline: no primary takes the key back, whether it answers or not.
#[test]
fn a_primary_of_an_older_timeline_does_not_take_the_vanished_key_back() {
    for trouble in [None, Some("no answer".to_owned())] {
        let mut world = World::new();
        world.nobody_leads().postgres(PostgresFacts { sql_trouble: trouble, ..up(primary(1000)) });
        let promoted = Some("b".to_owned());
        let line =
            HistoryLine { parent: Timeline(1), lsn: Lsn(900), reason: "test".to_owned(), at: None, promoted };
        world.cluster().history = Some(vec![line]);
        let decision = world.tick();
        assert_eq!(decision.because, Reason::OldTimeline);
        assert!(!kinds(&decision.actions).contains(&JobKind::TakeLeadership), "{:?}", decision.actions);
    }
}

/// `restore_command` hangs during a promotion. It may hang for one TTL; then the next member gets the key. This
/// Postgres is stopped first, because it may become primary at any moment.
#[test]
fn a_promotion_that_hangs_is_given_up() {
    let mut world = World::new();
    job(world.i_lead().postgres(promoting(1000)), promote());
    for _ in 0..10 {
        assert_eq!(world.tick().because, Reason::Busy(JobKind::Promote));
        others_answer(world.later(999));
    }
    let given_up = others_answer(world.later(10)).tick();
    assert!(given_up.actions.contains(&Action::CancelJob), "{:?}", given_up.actions);
    world.seen.job = None;
    world.later(5).ends(JobKind::Promote, Outcome::Cancelled);
    assert!(is_immediate_stop(&world.tick().actions));
    world.later(100).ends(JobKind::Stop, Outcome::Done).postgres(down(ControlState::InArchiveRecovery));
    let given = others_answer(&mut world).tick();
    assert_eq!(
        (kinds(&given.actions), given.because),
        (vec![JobKind::ReleaseLeadership], Reason::Unfit(Unfit::PromotionStuck))
    );
}

/// While WAL is still replayed, or no other member can lead, a promotion may take any time.
#[test]
fn a_slow_promotion_is_waited_for() {
    let mut world = World::new();
    job(world.i_lead().postgres(promoting(1000)), promote());
    for round in 0..60 {
        others_answer(world.later(1000).postgres(promoting(1000 + round)));
        assert_eq!(world.tick().because, Reason::Busy(JobKind::Promote), "{round}");
    }
    for _ in 0..60 {
        others_are_away(world.later(1000));
        assert_eq!(world.tick().because, Reason::Busy(JobKind::Promote));
    }
}

/// The promotion ends between the verdict and its cancellation: the Postgres is primary, and stays primary.
#[test]
fn a_promotion_that_ends_at_the_last_moment_succeeds() {
    let mut world = World::new();
    job(world.i_lead().postgres(promoting(1000)), promote()).tick();
    others_answer(world.later(11_000));
    assert!(world.tick().actions.contains(&Action::CancelJob));
    world.seen.job = None;
    world.later(5).ends(JobKind::Promote, Outcome::Cancelled).postgres(up(primary(1000)));
    assert_eq!(world.tick().because, Reason::Leading);
}

/// The disk is full and Postgres no longer starts: after a few tries the key goes to a member that can lead.
#[test]
fn after_three_failed_starts_another_member_leads() {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000))).tick();
    world.later(10).postgres(down(ControlState::InProduction));
    world.memory.served = None;
    for round in 0..3 {
        others_answer(world.later(2000));
        assert_eq!(kinds(&world.tick().actions), [JobKind::StartStandby], "{round}");
        let full = Outcome::Failed("No space left on device".to_owned());
        let failed = others_answer(world.later(500).ends(JobKind::StartStandby, full)).tick();
        let expected: &[JobKind] = if round < 2 { &[] } else { &[JobKind::ReleaseLeadership] };
        assert_eq!(kinds(&failed.actions), expected, "{round}");
    }
}

/// A stop that was ordered does not count as a crash.
#[test]
fn an_ordered_stop_costs_no_crash() {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000))).tick();
    job(world.later(10).postgres(down(ControlState::InProduction)), stop()).tick();
    assert_eq!(world.memory.failures.crashes, []);
}
