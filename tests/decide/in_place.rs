//! A leader whose PostgreSQL is down goes on on its timeline, where nobody else can have written.

use std::time::Duration;

use matriarch::decide::restart_begins_as_standby;
use matriarch::model::{
    Action, ControlFile, ControlState, DataDirectory, Job, JobKind, Leading, LeaseId, Outcome, Process,
    Reason, RunningJob, SyncMode, SyncReason, Term, Timeline,
};

use super::scenarios::jobs;
use super::sync::record;
use super::world::{MY_LEASE, START, World, control, down, leader, primary, standby, up, without};

/// `primary_start_timeout` of these worlds.
const WITHIN: Duration = Duration::from_secs(300);

/// It has served in this term, and its postmaster has ended.
fn crashed() -> World {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000))).tick();
    world.later(10).postgres(down(ControlState::InProduction));
    world
}

#[test]
fn a_crashed_leader_starts_as_the_primary_that_it_was() {
    let mut world = crashed();
    let decision = world.tick();
    let expected = Job::StartPrimary { term: Term(50), within: WITHIN, first: false };
    assert!(decision.actions.contains(&Action::Start(expected)), "{:?}", decision.actions);
    world.later(200).postgres(up(primary(1100))).ends(JobKind::StartPrimary, Outcome::Done);
    assert_eq!(world.tick().because, Reason::Leading);
}

type Change<'a> = (&'a str, &'a dyn Fn(&mut World));

/// Whatever is not certain: it is started as a standby, and its promotion begins a timeline.
#[test]
fn a_leader_that_is_not_certain_of_its_timeline_starts_as_a_standby() {
    let restarted = |world: &mut World| world.memory.served = None;
    let another_term = |world: &mut World| {
        world.cluster().leader.as_mut().expect("a leader").term = Term(150);
        world.seen.lease.leading = Leading::Yes(Term(150));
        (world.cluster().revision, world.cluster().listed) = (160, 160);
    };
    let another_timeline = |world: &mut World| {
        let served = world.memory.served.as_mut().expect("it has served");
        served.timeline = Timeline(2);
    };
    let frozen = |world: &mut World| {
        world.later(30_000);
    };
    let failed = |world: &mut World| world.memory.failures.starts = 1;
    let older_than_heard = |world: &mut World| world.memory.store_heard = Some((90, 200));
    let was_standby = |world: &mut World| {
        world.postgres(down(ControlState::ShutDownInRecovery));
    };
    let copied = |world: &mut World| {
        let control = ControlFile { backup_label: true, ..control(ControlState::InProduction) };
        world.postgres(without(DataDirectory::Ready(control)));
    };
    let changes: [Change<'_>; 8] = [
        ("restarted", &restarted),
        ("another term", &another_term),
        ("another timeline", &another_timeline),
        ("frozen", &frozen),
        ("failed", &failed),
        ("older than heard", &older_than_heard),
        ("was a standby", &was_standby),
        ("a copy", &copied),
    ];
    for (name, change) in changes {
        let mut world = crashed();
        change(&mut world);
        let decision = world.tick();
        assert_eq!(jobs(&decision.actions), [JobKind::StartStandby], "{name}: {}", decision.because);
    }
}

/// The same, as it is shown before an operator restarts it.
#[test]
fn a_leader_shows_whether_a_restart_would_begin_as_a_standby() {
    let shown = |world: &World| restart_begins_as_standby(&world.memory, &world.seen, world.now);
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000)));
    assert!(shown(&world), "it has not served yet");
    world.tick();
    assert!(!shown(&world));
    world.later(10).tick();
    world.seen.lease.promised_until = Some(world.now + Duration::from_secs(60));
    world.seen.lease.deadline = Some(world.now);
    assert!(shown(&world), "it leads by the promises of the members");
    world.postgres(up(standby(1000)));
    assert!(!shown(&world), "the leader of a standby cluster is a standby anyway");
}

/// The lease was in doubt while it served: another member may have led since.
#[test]
fn a_leader_that_had_to_stop_for_its_lease_does_not_go_on() {
    for doubt in [Leading::No, Leading::Unknown] {
        let mut world = World::new();
        world.i_lead().postgres(up(primary(1000))).tick();
        world.seen.lease.leading = doubt;
        world.cluster().leader = Some(leader("b", LeaseId(0xB)));
        (world.cluster().revision, world.cluster().listed) = (120, 120);
        world.later(10).tick();
        assert_eq!(world.memory.served, None, "{doubt:?}");
    }
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000))).tick();
    world.seen.lease.deadline = Some(world.now);
    assert_eq!(world.tick().because, Reason::LeaseExpiring);
    world.seen.lease.deadline = Some(START + Duration::from_secs(60));
    world.later(50).ends(JobKind::Stop, Outcome::Done).postgres(down(ControlState::InProduction));
    assert_eq!(jobs(&world.tick().actions), [JobKind::StartStandby]);
}

/// It becomes read-write by itself: a start whose reason is gone is cancelled, and what it has begun is stopped.
#[test]
fn a_start_whose_lease_is_gone_is_cancelled_and_stopped() {
    let mut world = crashed();
    let decision = world.tick();
    let job = decision.actions.iter().find_map(|action| match action {
        Action::Start(job @ Job::StartPrimary { .. }) => Some(job.clone()),
        _other => None,
    });
    world.seen.job = job.map(|job| RunningJob { job, since: world.now });
    world.seen.lease.leading = Leading::No;
    world.nobody_leads();
    (world.cluster().revision, world.cluster().listed) = (120, 120);
    assert_eq!(
        world.later(10).tick().actions.iter().filter(|action| **action == Action::CancelJob).count(),
        1
    );
    let silent = Process::Up { pid: 43, since: world.now, standby_start: false };
    world.seen.postgres.process = silent;
    assert!(world.later(10).tick().actions.contains(&Action::CancelJob));
    world.seen.job = None;
    world.later(10).ends(JobKind::StartPrimary, Outcome::Cancelled);
    assert_eq!(jobs(&world.tick().actions), [JobKind::Stop], "not the leader key: it has shown nothing yet");
}

/// This member has just made the cluster.
fn made() -> World {
    let mut world = World::new();
    world.nobody_leads().cluster().initialize = None;
    (world.cluster().history, world.cluster().status) = (None, None);
    world.postgres(without(DataDirectory::Empty)).tick();
    world.later(10).ends(JobKind::Bootstrap, Outcome::Done).postgres(down(ControlState::ShutDown));
    world.cluster().initialize = Some(super::world::SYSTEM_ID.to_string());
    world
}

#[test]
fn a_new_cluster_begins_on_timeline_one() {
    let mut world = made();
    let decision = world.tick();
    assert_eq!(
        (jobs(&decision.actions), decision.because),
        (vec![JobKind::TakeLeadership], Reason::MadeCluster)
    );
    world.later(5).ends(JobKind::TakeLeadership, Outcome::Done).i_lead();
    let decision = world.tick();
    assert_eq!(decision.because, Reason::StartingFirstPrimary);
    let expected = Job::StartPrimary { term: Term(50), within: WITHIN, first: true };
    assert!(decision.actions.contains(&Action::Start(expected)), "{:?}", decision.actions);
}

/// Its first commits keep the promise of the mode: the names are in its files, and the key names this member, before.
#[test]
fn a_new_cluster_in_a_synchronous_mode_is_prepared_before_its_first_start() {
    let mut world = made();
    world.seen.settings.sync.mode = SyncMode::Quorum;
    world.tick();
    world.later(5).ends(JobKind::TakeLeadership, Outcome::Done).i_lead();
    let decision = world.tick();
    assert_eq!(decision.because, Reason::Sync(SyncReason::Preparing));
    assert!(decision.actions.iter().any(|action| matches!(action, Action::SetSyncNames(Some(_)))));
    assert_eq!(jobs(&decision.actions), []);
}

/// Somebody has led it, or a request waits: a race like any other.
#[test]
fn a_cluster_that_was_led_is_not_new() {
    let mut world = made();
    world.cluster().status = Some(Default::default());
    assert_eq!(jobs(&world.tick().actions), [JobKind::StartStandby]);
    let mut world = made();
    world.cluster().leader = Some(leader("b", LeaseId(0xB)));
    world.tick();
    world.nobody_leads();
    assert!(!world.memory.is_new_cluster);
    let mut world = made();
    world.seen.lease.lease = Some(MY_LEASE);
    world.postgres(up(standby(1000))).tick();
    world.cluster().timeline_claim = None;
    assert!(world.memory.is_new_cluster, "until somebody serves");
    world.i_lead().postgres(up(primary(1000))).tick();
    assert!(!world.memory.is_new_cluster);
}

/// PostgreSQL accepts connections before its checkpointer has read the names: clients stay out until they are in force.
#[test]
fn clients_are_locked_out_until_the_names_are_in_force() {
    let mut world = World::new();
    world.i_lead().synchronous(SyncMode::Quorum, record("a", 1, &["b", "c"]));
    world.postgres(up(primary(1000))).tick();
    world.later(10).postgres(down(ControlState::ShutDown)).ends(JobKind::Stop, Outcome::Done);
    let decision = world.tick();
    assert_eq!(jobs(&decision.actions), [JobKind::StartPrimary]);
    assert!(decision.actions.contains(&Action::SetClientLockout { closed: true }), "{:?}", decision.actions);
    assert_eq!(world.memory.sync.in_effect, None, "the next PostgreSQL reads them anew");
    assert!(world.memory.sync.locked_out_for_names);
}

/// The end of a process that was never PostgreSQL is no crash of it.
#[test]
fn a_start_that_was_not_released_is_no_crash() {
    let mut world = crashed();
    world.tick();
    assert_eq!(world.memory.failures.crashes.len(), 1);
    world.seen.postgres.process = Process::Up { pid: 77, since: world.now, standby_start: false };
    world.later(10).tick();
    world.later(10).postgres(down(ControlState::InProduction));
    world.ends(JobKind::StartPrimary, Outcome::Failed("no guard".to_owned())).tick();
    assert_eq!((world.memory.failures.crashes.len(), world.memory.failures.starts), (1, 1));
}

/// A restored copy of another cluster is on that one's timeline.
#[test]
fn what_a_script_has_made_begins_a_timeline() {
    let mut world = World::new();
    world.nobody_leads().cluster().initialize = None;
    world.seen.me.scripts.custom_bootstrap = true;
    world.postgres(without(DataDirectory::Empty)).tick();
    world.later(10).ends(JobKind::Bootstrap, Outcome::Done).postgres(down(ControlState::ShutDown)).tick();
    assert!(!world.memory.is_new_cluster);
}

/// The race that made this member the leader showed two members that were away. Who can take over is asked again after
/// its crash.
#[test]
fn answers_from_before_a_crash_do_not_count() {
    let mut world = World::new();
    world.synchronous(SyncMode::Quorum, record("a", 1, &["b", "c"])).i_lead().postgres(up(primary(1000)));
    world.gone("b").gone("c").tick();
    world.later(100).postgres(down(ControlState::InProduction));
    let asks = |action: &Action| matches!(action, Action::AskPeers { .. });
    let asked = world.tick();
    assert_eq!(asked.because, Reason::AskingMembers);
    assert!(asked.actions.iter().any(asks), "{:?}", asked.actions);
    assert_eq!(
        jobs(&world.later(5).answers("b", 1000).answers("c", 1000).tick().actions),
        [JobKind::ReleaseLeadership]
    );
}

/// A start that takes long (a disk or a log that hangs, much WAL) does not keep the key once a synchronous standby can
/// lead, in whatever state the start is.
#[test]
fn a_slow_start_after_a_crash_is_given_up_for_a_standby() {
    for released in [false, true] {
        let mut world = World::new();
        world.synchronous(SyncMode::Quorum, record("a", 1, &["b", "c"])).i_lead().postgres(up(primary(1000)));
        world.tick();
        world.later(100).postgres(down(ControlState::InProduction)).tick();
        world.later(5).gone("b").gone("c");
        let job = Job::StartPrimary { term: Term(50), within: WITHIN, first: false };
        assert!(world.tick().actions.contains(&Action::Start(job.clone())));
        world.seen.job = Some(RunningJob { job, since: world.now });
        if released {
            let starts = Process::Up { pid: 43, since: world.now, standby_start: false };
            world.seen.postgres.process = starts;
        }
        world.later(500).answers("b", 1000).answers("c", 1000);
        assert!(!world.tick().actions.contains(&Action::CancelJob), "a start takes a moment");
        world.later(1000).gone("b").gone("c");
        assert!(!world.tick().actions.contains(&Action::CancelJob), "nobody else can lead");
        world.later(300).answers("b", 1000).answers("c", 1000);
        let given_up = world.tick();
        assert_eq!(given_up.because, Reason::StartTooSlow);
        assert!(given_up.actions.contains(&Action::CancelJob));
        world.seen.job = None;
        world.later(10).answers("b", 1000).answers("c", 1000);
        world.ends(JobKind::StartPrimary, Outcome::Cancelled);
        if released {
            assert_eq!(jobs(&world.tick().actions), [JobKind::Stop]);
            world.later(10).ends(JobKind::Stop, Outcome::Done).postgres(down(ControlState::InProduction));
        }
        assert_eq!(jobs(&world.tick().actions), [JobKind::ReleaseLeadership]);
    }
}
