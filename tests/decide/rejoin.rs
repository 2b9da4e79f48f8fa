//! Scenarios: the return as a standby of another leader.

use matriarch::decide::Decision;
use matriarch::model::{
    Action, Branch, ControlState, JobKind, LeaderBranch, LeaseId, Lsn, MemberState, Obstacle, Outcome,
    Reason, Role, Switch, Timeline, TimelineHistory,
};

use super::world::{World, down, leader, name, primary, up};

/// A former primary behind `b`, whose history left its own at 500.
struct Parted {
    world: World,
    branch: Branch,
}

impl Parted {
    fn down(state: ControlState) -> Parted {
        let mut world = World::new();
        let switch = Switch { timeline: Timeline(1), lsn: Lsn(500), reason: String::new() };
        let branch = Branch { history: TimelineHistory(vec![switch]), timeline: Timeline(2), end: None };
        world.postgres(down(state));
        let b = &mut world.cluster().members.get_mut(&name("b")).expect("it is there").record;
        (b.role, b.state) = (Role::Primary, MemberState::Running);
        Parted { world, branch }
    }

    /// A tick that much later; `b` has just reported its history.
    fn tick(&mut self, millis: u64) -> Decision {
        let (world, answer) = (&mut self.world, Ok(self.branch.clone()));
        world.later(millis);
        world.seen.leader_branch = Some(LeaderBranch {
            name: name("b"),
            asked_at: world.now,
            answer,
            has_slot: true,
            oldest: Lsn(0),
        });
        world.tick()
    }

    /// The job starts and fails, up to the allowed number of tries in a row; then nothing is tried for half a minute.
    fn fails(&mut self, job: JobKind, times: u32, obstacle: Obstacle) {
        for _ in 0..times {
            let decision = self.tick(60_000);
            assert!(starts(&decision, job), "{decision:?}");
            self.world.ends(job, Outcome::Failed("No space left on device".to_owned()));
            self.tick(100);
        }
        for millis in [5000, 10_000] {
            let decision = self.tick(millis);
            assert_eq!(
                decision.because,
                Reason::CannotRejoin { leader: name("b"), obstacle },
                "{decision:?}"
            );
            assert!(!starts(&decision, job), "{decision:?}");
        }
        assert!(starts(&self.tick(60_000), job));
    }
}

fn starts(decision: &Decision, job: JobKind) -> bool {
    decision.actions.iter().any(|action| matches!(action, Action::Start(started) if started.kind() == job))
}

/// The disk was full, so not even the diverged WAL could be copied aside. Nothing was changed, so the rewind is tried
/// again without limit, but not every few seconds (found by the rig, disk-full).
#[test]
fn a_rewind_that_changed_nothing_is_tried_again() {
    Parted::down(ControlState::ShutDown).fails(JobKind::Rewind, 3, Obstacle::Rewind);
}

/// The disk was full throughout the tries of crash recovery, which was then never tried again (found by the rig,
/// disk-full).
#[test]
fn a_crash_recovery_that_failed_is_tried_again() {
    let mut parted = Parted::down(ControlState::InProduction);
    parted.fails(JobKind::CrashRecovery, 3, Obstacle::Recovery);
    parted.world.ends(JobKind::CrashRecovery, Outcome::Done);
    assert!(starts(&parted.tick(100), JobKind::Rewind));
}

/// The directory could not be moved aside, ten times.
#[test]
fn a_clone_that_failed_is_tried_again() {
    let mut parted = Parted::down(ControlState::ShutDown);
    parted.world.seen.settings.use_pg_rewind = false;
    parted.world.seen.settings.remove_data_directory_on_diverged_timelines = true;
    parted.fails(JobKind::Clone, 10, Obstacle::Clone);
}

/// Another leader may have the history of the local data.
#[test]
fn data_that_cannot_follow_one_leader_is_tried_behind_the_next() {
    let mut parted = Parted::down(ControlState::ShutDown);
    parted.world.seen.settings.use_pg_rewind = false;
    let stuck = Reason::CannotRejoin { leader: name("b"), obstacle: Obstacle::NoRewind };
    assert_eq!(parted.tick(100).because, stuck);
    assert_eq!(parted.tick(100).because, stuck);
    parted.world.cluster().leader = Some(leader("c", LeaseId(9)));
    assert_ne!(parted.tick(100).because, stuck);
}

/// In pause nothing replaces the data by itself, even where the settings allow it.
#[test]
fn a_former_primary_is_not_cloned_in_pause() {
    for pause in [true, false] {
        let mut parted = Parted::down(ControlState::ShutDown);
        let settings = &mut parted.world.seen.settings;
        (settings.use_pg_rewind, settings.pause) = (false, pause);
        settings.remove_data_directory_on_diverged_timelines = true;
        parted.world.memory.demoted = true;
        parted.tick(0);
        let decision = parted.tick(100);
        assert_eq!(starts(&decision, JobKind::Clone), !pause, "{decision:?}");
    }
}

/// `remove_data_directory_on_rewind_failure`: when pg_rewind has failed as often as it is tried, the member is cloned.
/// Without the setting, and in pause, its data stays.
#[test]
fn a_failed_rewind_is_followed_by_a_clone_where_that_is_allowed() {
    for (allowed, pause, clones) in [(true, false, true), (false, false, false), (true, true, false)] {
        let mut parted = Parted::down(ControlState::ShutDown);
        let settings = &mut parted.world.seen.settings;
        settings.remove_data_directory_on_rewind_failure = allowed;
        settings.pause = pause;
        parted.world.memory.demoted = true;
        parted.tick(0);
        for _ in 0..3 {
            let decision = parted.tick(60_000);
            assert!(starts(&decision, JobKind::Rewind) && !starts(&decision, JobKind::Clone), "{decision:?}");
            parted.world.ends(JobKind::Rewind, Outcome::Failed("could not open file".to_owned()));
            parted.tick(0);
        }
        let decision = parted.tick(0);
        let because = match clones {
            true => Reason::Recloning { leader: name("b") },
            false => Reason::CannotRejoin { leader: name("b"), obstacle: Obstacle::Rewind },
        };
        assert_eq!(
            (&decision.because, starts(&decision, JobKind::Clone)),
            (&because, clones),
            "{decision:?}"
        );
    }
}

/// Where pg_rewind is not possible, `remove_data_directory_on_rewind_failure` alone allows nothing.
#[test]
fn without_pg_rewind_the_setting_for_its_failure_allows_no_clone() {
    let mut parted = Parted::down(ControlState::ShutDown);
    parted.world.seen.settings.use_pg_rewind = false;
    parted.world.seen.settings.remove_data_directory_on_rewind_failure = true;
    let decision = parted.tick(100);
    let stuck = Reason::CannotRejoin { leader: name("b"), obstacle: Obstacle::NoRewind };
    assert_eq!(decision.because, stuck);
    assert!(!starts(&decision, JobKind::Clone), "{decision:?}");
}

/// A leader of this version says that its checkpoint after its promotion is not done: pg_rewind would find nothing to
/// do.
#[test]
fn a_rewind_waits_for_the_checkpoint_that_the_leader_announces() {
    let mut parted = Parted::down(ControlState::ShutDown);
    let record = |parted: &mut Parted, done: Option<bool>| {
        let b = parted.world.cluster().members.get_mut(&name("b")).expect("it is there");
        b.record.checkpoint_after_promote = done;
    };
    record(&mut parted, Some(false));
    let decision = parted.tick(100);
    assert_eq!(decision.because, Reason::AwaitingCheckpoint { leader: name("b") });
    assert!(!starts(&decision, JobKind::Rewind), "{decision:?}");
    record(&mut parted, None);
    assert!(starts(&parted.tick(100), JobKind::Rewind));
}

/// That announcement: from the moment it leads until its checkpoint is done, and absent otherwise.
#[test]
fn a_leader_announces_its_checkpoint_until_it_is_done() {
    let published = |actions: &[Action]| {
        let record = actions.iter().find_map(|action| match action {
            Action::PublishMember(record) => Some(record.checkpoint_after_promote),
            _ => None,
        });
        record.expect("it publishes its record")
    };
    let mut world = World::new();
    assert_eq!(published(&world.tick().actions), None, "a standby has none");
    world.i_lead().postgres(up(primary(1000)));
    assert_eq!(published(&world.later(5).tick().actions), Some(false));
    world.ends(JobKind::CheckpointAfterPromotion, Outcome::Failed("no space".to_owned()));
    let failed = world.later(20_000).tick().actions;
    assert_eq!(published(&failed), Some(false), "it failed");
    world.ends(JobKind::CheckpointAfterPromotion, Outcome::Done);
    assert_eq!(published(&world.later(20_000).tick().actions), None);
}
