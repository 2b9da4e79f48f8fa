//! Scenarios: the way back behind another leader.

use matriarch::decide::Decision;
use matriarch::model::{
    Action, Branch, ControlState, Job, JobKind, LeaderBranch, Lsn, MemberState, Outcome, Reason, Role,
    Switch, Timeline, TimelineHistory,
};

use super::world::{World, down, name};

/// The disk was full, so that not even the diverged WAL could be kept aside. Nothing has been changed, so the rewind is
/// tried again for as long as it takes, but not every few seconds (found by the rig, disk-full).
#[test]
fn a_rewind_that_changed_nothing_is_tried_again() {
    let mut world = World::new();
    let switch = Switch { timeline: Timeline(1), lsn: Lsn(500), reason: String::new() };
    let branch = Branch { history: TimelineHistory(vec![switch]), timeline: Timeline(2), end: None };
    world.postgres(down(ControlState::ShutDown));
    let b = &mut world.cluster().members.get_mut(&name("b")).expect("it is there").record;
    (b.role, b.state) = (Role::Primary, MemberState::Running);
    let tick = |world: &mut World, millis: u64| {
        let answer = Ok(branch.clone());
        world.later(millis);
        world.seen.leader_branch =
            Some(LeaderBranch { name: name("b"), asked_at: world.now, answer, has_slot: true });
        world.tick()
    };
    for _ in 0..3 {
        let decision = tick(&mut world, 5000);
        assert!(starts_rewind(&decision), "{decision:?}");
        world.ends(JobKind::Rewind, Outcome::Failed("No space left on device".to_owned()));
        tick(&mut world, 100);
    }
    assert!(matches!(tick(&mut world, 5000).because, Reason::CannotRejoin { rewindable: true, .. }));
    tick(&mut world, 30_000);
    assert!(starts_rewind(&tick(&mut world, 100)));
}

fn starts_rewind(decision: &Decision) -> bool {
    decision.actions.iter().any(|action| matches!(action, Action::Start(Job::Rewind { .. })))
}
