//! A required watchdog is unusable: this member does not lead.

use matriarch::model::{Action, Job, Reason, StopMode};

use super::world::{World, primary, up};

#[test]
fn without_its_required_watchdog_a_member_does_not_compete() {
    let mut world = World::new();
    world.seen.watchdog_failed = true;
    let decision = world.nobody_leads().tick();
    assert_eq!(decision.because, Reason::WatchdogFailed);
    assert!(
        !decision.actions.iter().any(|action| matches!(action, Action::Start(_))),
        "{:?}",
        decision.actions
    );
}

#[test]
fn a_primary_that_loses_its_watchdog_stops_and_a_standby_that_leads_gives_the_key_away() {
    let mut world = World::new();
    world.seen.watchdog_failed = true;
    world.i_lead().postgres(up(primary(1000)));
    let decision = world.tick();
    assert_eq!(decision.because, Reason::WatchdogFailed);
    let stop = |action: &Action| matches!(action, Action::Start(Job::Stop { mode: StopMode::Immediate, .. }));
    assert!(decision.actions.iter().any(stop), "{:?}", decision.actions);

    let mut world = World::new();
    world.seen.watchdog_failed = true;
    let decision = world.i_lead().tick();
    let release = |action: &Action| matches!(action, Action::Start(Job::ReleaseLeadership { .. }));
    assert!(decision.actions.iter().any(release), "{:?}", decision.actions);
}
