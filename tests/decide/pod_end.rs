//! The API server proved that the own pod ends or is gone: this member must not lead in it.

use matriarch::decide::{Decision, HandOverPhase};
use matriarch::model::{
    Action, ControlState, ExitBecause, HandOverRefusal, Job, JobKind, Outcome, PodEnd, PrimaryRoute, Reason,
    StopMode,
};

use super::world::{World, down, name, primary, up};

const ENDS: [PodEnd; 3] = [PodEnd::Deleting, PodEnd::Gone, PodEnd::Replaced];

fn leading() -> World {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000)));
    world
}

fn stops(decision: &Decision) -> bool {
    let stop = |action: &Action| matches!(action, Action::Start(Job::Stop { mode: StopMode::Fast, .. }));
    decision.actions.iter().any(stop)
}

fn starts(decision: &Decision, kind: JobKind) -> bool {
    decision.actions.iter().any(|action| matches!(action, Action::Start(job) if job.kind() == kind))
}

fn exits(decision: &Decision) -> bool {
    decision.actions.contains(&Action::Exit(ExitBecause::Asked))
}

#[test]
fn a_leader_whose_pod_ends_hands_over_at_once() {
    for end in ENDS {
        let mut world = leading();
        assert_eq!(world.tick().because, Reason::Leading);
        world.seen.pod_end = Some(end);
        assert!(matches!(world.later(10).tick().because, Reason::HandingOver(_)), "{end:?}");
        world.later(10).answers("b", 1000).answers("c", 900);
        assert!(starts(&world.tick(), JobKind::Checkpoint), "{end:?}");
        let hand_over = world.memory.hand_over.clone().expect("it hands over");
        assert_eq!((hand_over.to, hand_over.phase), (Some(name("b")), HandOverPhase::Checkpoint));
        let decision = world.ends(JobKind::Checkpoint, Outcome::Done).tick();
        assert!(stops(&decision), "{:?}", decision.actions);
    }
}

#[test]
fn in_pause_the_end_of_a_pod_has_no_consequences() {
    for end in ENDS {
        let mut world = leading();
        world.seen.settings.pause = true;
        world.seen.pod_end = Some(end);
        let decision = world.tick();
        assert_eq!((decision.because, world.memory.hand_over), (Reason::Leading, None), "{end:?}");
    }
}

/// The same as after SIGTERM: PostgreSQL stops, and the key is free for the next member.
#[test]
fn the_key_is_released_if_no_member_can_take_over() {
    let mut world = leading();
    world.seen.pod_end = Some(PodEnd::Gone);
    world.tick();
    for member in ["b", "c"] {
        world.answers(member, 1000);
        world.seen.peers.get_mut(&name(member)).expect("it answered").pod_ends = true;
    }
    assert!(starts(&world.tick(), JobKind::Checkpoint));
    assert_eq!(world.memory.hand_over.clone().and_then(|hand_over| hand_over.to), None, "they are gone, too");
    assert!(stops(&world.ends(JobKind::Checkpoint, Outcome::Done).tick()));
    world.postgres(down(ControlState::ShutDown)).ends(JobKind::Stop, Outcome::Done);
    let decision = world.tick();
    assert!(starts(&decision, JobKind::ReleaseLeadership), "{:?}", decision.actions);
}

/// The key could not be handed over, and the database would be down for nothing.
#[test]
fn the_primary_keeps_serving_while_etcd_refuses_writes() {
    let mut world = leading();
    world.seen.pod_end = Some(PodEnd::Gone);
    world.seen.writes.refused = Some("no space".to_owned());
    assert_eq!(world.tick().because, Reason::Leading);
    world.seen.writes.refused = None;
    assert!(matches!(world.tick().because, Reason::HandingOver(_)));
}

#[test]
fn a_member_whose_pod_is_gone_follows_and_does_not_compete() {
    for end in [PodEnd::Deleting, PodEnd::Gone] {
        let mut world = World::new();
        world.seen.pod_end = Some(end);
        assert_eq!(world.tick().because, Reason::AskingHistory { leader: name("b") });
        let decision = world.nobody_leads().answers("b", 900).answers("c", 900).tick();
        assert_eq!(decision.because, Reason::PodEnds(end));
        assert!(decision.because.is_refusal(), "`list` says so");
        assert!(!starts(&decision, JobKind::TakeLeadership) && !exits(&decision), "{:?}", decision.actions);
        world.seen.pod_end = None;
        assert!(starts(&world.tick(), JobKind::TakeLeadership), "the pod is there after all");
    }
}

/// A new member of this name finds this one, and exits, as long as this one runs.
#[test]
fn a_replaced_member_ends() {
    let mut world = World::new();
    world.seen.pod_end = Some(PodEnd::Replaced);
    let decision = world.tick();
    assert!(stops(&decision), "{:?}", decision.actions);
    assert_eq!(decision.because, Reason::PodEnds(PodEnd::Replaced));
    let decision = world.postgres(down(ControlState::ShutDownInRecovery)).tick();
    assert!(exits(&decision), "{:?}", decision.actions);
}

#[test]
fn a_new_leader_whose_pod_is_gone_releases_the_key() {
    let mut world = World::new();
    world.seen.pod_end = Some(PodEnd::Gone);
    let decision = world.i_lead().tick();
    assert!(starts(&decision, JobKind::ReleaseLeadership), "{:?}", decision.actions);
}

/// A switchover was refused some time ago: that is no reason to exit without a hand-over.
#[test]
fn a_refused_switchover_does_not_prevent_the_hand_over_of_a_shutdown() {
    let mut world = leading();
    world.memory.hand_over_refused = Some(HandOverRefusal::NotInTime);
    world.seen.shutting_down = true;
    assert!(matches!(world.tick().because, Reason::HandingOver(_)));
    assert_eq!(world.tick().route, PrimaryRoute::Here(matriarch::model::Term(50)));
}
