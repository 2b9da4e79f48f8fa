//! An older store comes back, and primaries were left running in pause.

use std::collections::BTreeMap;

use matriarch::model::{
    Action, FailoverKey, FailoverRequest, GenerationWrite, JobKind, Reason, Timeline, UnfencedReason,
};

use super::super::unfenced::{key, left};
use super::super::world::{World, name};
use super::{generations, jobs};

/// b was left running as a primary in pause, and the restored store is older than that.
fn b_was_left() -> World {
    let mut world = World::b_leads_in_quorum_mode();
    world.cluster().unfenced = key(&[("b", 0xB)]);
    world.tick();
    world.cluster().unfenced = None;
    world.is_restored(40).later(5);
    world
}

/// An operator learns of it, and makes another member the leader by confirming that b is down.
#[test]
fn a_failover_in_a_restored_store_is_told_of_a_primary_that_was_left_running() {
    let mut world = b_was_left();
    let begun = generations(&world.tick().actions);
    world.later(5).generation_begins(&begun[0]).tick();
    world.later(world.seen.settings.ttl.as_millis() as u64);
    let asked = |confirmed_down: &[&str]| FailoverRequest {
        candidate: Some(name("a")),
        confirmed_down: confirmed_down.iter().map(|member| name(member)).collect(),
        ..FailoverRequest::default()
    };
    world.cluster().failover = Some(FailoverKey { request: asked(&[]), mod_revision: 43 });
    let refused = world.tick();
    let bars = Reason::Unfenced(UnfencedReason::Bars { member: name("b"), left: left(0xB) });
    assert_eq!((jobs(&refused.actions), refused.because), (vec![], bars));
    world.cluster().failover = Some(FailoverKey { request: asked(&["b"]), mod_revision: 44 });
    assert_eq!(jobs(&world.tick().actions), [JobKind::TakeLeadership]);
}

/// The first member that noticed was away when b was left, and began the generation without it.
#[test]
fn a_primary_that_was_left_running_is_told_to_a_store_that_another_began_anew() {
    let mut world = b_was_left();
    let begun = generations(&world.tick().actions);
    let GenerationWrite::Begin { over, record, .. } = begun[0].clone() else { panic!("{begun:?}") };
    let by_another = GenerationWrite::Begin { over, record, unfenced: BTreeMap::new() };
    let told = |actions: &[Action]| {
        let written = |action: &Action| match action {
            Action::PublishUnfenced(write) => Some(write.primaries.clone()),
            _other => None,
        };
        actions.iter().find_map(written)
    };
    let tells = world.later(5).generation_begins(&by_another).tick();
    assert_eq!(told(&tells.actions), Some(BTreeMap::from([(name("b"), left(0xB))])));
    assert_eq!(told(&world.later(5).tick().actions), None, "one write at a time");
    assert!(told(&world.later(1000).tick().actions).is_some(), "etcd does not show it yet");
    world.cluster().unfenced = key(&[("b", 0xB)]);
    assert_eq!(told(&world.later(1000).tick().actions), None);
    world.cluster().unfenced = None;
    assert_eq!(told(&world.later(1000).tick().actions), None, "b is back, and has taken itself out");
}

/// D was away since before b came back and another member was promoted after it.
#[test]
fn a_primary_that_was_left_before_a_promotion_is_not_told_again() {
    let mut world = b_was_left();
    world.cluster().members.get_mut(&name("c")).expect("a member").record.timeline = Some(Timeline(7));
    let begun = generations(&world.tick().actions);
    let GenerationWrite::Begin { unfenced, .. } = &begun[0] else { panic!("{begun:?}") };
    assert_eq!(*unfenced, BTreeMap::new());
}
