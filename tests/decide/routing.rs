//! The labels of the pod in the whole situation table, and the order of label changes and Postgres actions.

use std::fmt::Write;

use matriarch::decide::{HandOver, HandOverCause, HandOverPhase, Leadership};
use matriarch::model::{Action, Job, JobKind, Outcome, PodRole, PrimaryRoute, RunningJob, StopMode, Term};

use super::table::{LEADERSHIPS, servers};
use super::world::{START, World, name, primary, promoting, silent, up};

#[test]
fn labels_of_the_pod_in_every_situation() {
    let legend = "L leader, f follower, - nothing, . as it is";
    insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!("pod_table", table(legend, |world| letter(world.tick().pod)));
    });
}

#[test]
fn endpoints_of_the_service_in_every_situation() {
    let letter = |world: &mut World| match world.tick().route {
        PrimaryRoute::Here(_) => 'L',
        PrimaryRoute::NotHere => '-',
        PrimaryRoute::Unchanged => '.',
    };
    insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!("route_table", table("L here, - not here, . as it is", letter));
    });
}

/// One letter for each combination of leadership and server, so that the whole fits on a screen.
fn table(legend: &str, letter: impl Fn(&mut World) -> char) -> String {
    let mut text = format!("{legend}\n");
    for paused in [false, true] {
        for (leads, lead) in LEADERSHIPS {
            let mut letters = String::new();
            for (_, postgres) in servers() {
                let mut world = World::new();
                lead(&mut world);
                world.postgres(postgres).seen.settings.pause = paused;
                letters.push(letter(&mut world));
            }
            let pause = if paused { ", PAUSED" } else { "" };
            writeln!(text, "{letters}  {leads} leads{pause}").expect("a string takes everything");
        }
    }
    for (index, (is, _)) in servers().iter().enumerate() {
        writeln!(text, "{:index$}|  {is}", "").expect("a string takes everything");
    }
    text
}

fn letter(role: Option<PodRole>) -> char {
    match role {
        Some(PodRole::Leader(_)) => 'L',
        Some(PodRole::Follower) => 'f',
        Some(PodRole::Bootstrapping) => 'b',
        Some(PodRole::Nothing) => '-',
        Some(PodRole::StandbyLeader(_)) => 's',
        None => '.',
    }
}

fn running(job: Job) -> Option<RunningJob> {
    Some(RunningJob { job, since: START })
}

#[test]
fn a_promoted_standby_keeps_its_label_until_it_accepts_writes() {
    let mut world = World::new();
    assert_eq!(world.tick().pod, Some(PodRole::Follower));
    world.i_lead().postgres(promoting(1000));
    world.seen.job = running(Job::Promote { term: Term(50), above: matriarch::model::Timeline(1) });
    assert_eq!(world.tick().pod, None);
    world.postgres(up(primary(1000))).seen.job = None;
    world.ends(JobKind::Promote, Outcome::Done);
    assert_eq!(world.tick().pod, Some(PodRole::Leader(Term(50))));
}

#[test]
fn the_label_is_removed_with_the_decision_to_stop() {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000)));
    assert_eq!(world.tick().pod, Some(PodRole::Leader(Term(50))));
    world.memory.hand_over = Some(HandOver {
        cause: HandOverCause::Shutdown,
        to: Some(name("b")),
        phase: HandOverPhase::Checkpoint,
        since: START,
        give_up_at: START + std::time::Duration::from_secs(60),
        reached: None,
    });
    world.ends(JobKind::Checkpoint, Outcome::Done);
    let decision = world.tick();
    assert!(
        decision
            .actions
            .iter()
            .any(|action| matches!(action, Action::Start(Job::Stop { mode: StopMode::Fast, .. }))),
        "{:?}",
        decision.actions
    );
    assert_eq!(decision.pod, Some(PodRole::Nothing));
    assert_eq!(decision.route, PrimaryRoute::Unchanged, "the successor's write replaces it");
    // While it stops and does not answer.
    world.seen.job = running(Job::Stop { mode: StopMode::Fast, within: std::time::Duration::from_secs(5) });
    world.postgres(silent());
    assert_eq!(world.tick().pod, Some(PodRole::Nothing));
    assert_eq!(world.tick().route, PrimaryRoute::Unchanged);
}

/// No other member leads next: the address of a pod that is gone is removed all the same.
#[test]
fn a_leader_without_a_successor_removes_its_address() {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000)));
    assert_eq!(world.tick().route, PrimaryRoute::Here(Term(50)));
    world.seen.shutting_down = true;
    world.seen.job = running(Job::Stop { mode: StopMode::Fast, within: std::time::Duration::from_secs(5) });
    world.postgres(silent());
    assert_eq!(world.tick().route, PrimaryRoute::NotHere);
}

#[test]
fn a_primary_with_a_client_lockout_is_not_routed_to() {
    let mut world = World::new();
    let mut postgres = up(primary(1000));
    postgres.clients_locked_out = true;
    world.i_lead().postgres(postgres);
    assert!(!matches!(world.tick().pod, Some(PodRole::Leader(_))));
}

#[test]
fn a_bootstrap_is_labelled() {
    let mut world = World::new();
    world.nobody_leads().seen.job = running(Job::Bootstrap { seen: 100 });
    assert_eq!(world.tick().pod, Some(PodRole::Bootstrapping));
}

/// A primary that was found running keeps its label while etcd is asked about the leader.
#[test]
fn without_facts_the_label_stays() {
    for (leads, lead) in LEADERSHIPS {
        let mut world = World::new();
        lead(&mut world);
        world.postgres(up(primary(1000)));
        let leadership = Leadership::of(&world.seen, world.now);
        let known = !matches!(leadership, Leadership::Unknown | Leadership::Unconfirmed);
        assert_eq!(world.tick().pod.is_some(), known, "{leads}");
    }
}
