//! A lost store, beside a leader that may go on in failsafe mode.

use matriarch::model::{
    FailoverKey, FailoverRequest, FailsafeKey, GenerationWrite, JobKind, Reason, StoreReason,
};

use super::super::world::{World, name};
use super::{generations, jobs};

/// In failsafe mode a leader of the earlier store may go on without a lease, by promises of members that do not know of
/// the loss: a silent member is waited for without a limit.
#[test]
fn in_failsafe_mode_silent_members_are_waited_for() {
    let mut world = World::new();
    world.seen.settings.failsafe_mode = true;
    let cluster = world.cluster();
    cluster.failsafe = Some(FailsafeKey {
        members: ["a", "b", "c"].map(|member| (name(member), String::new())).into(),
        mod_revision: 7,
    });
    world.tick();
    let begun = generations(&world.later(5).is_lost_without_record().tick().actions);
    let GenerationWrite::Begin { record, .. } = &begun[0] else { panic!("{begun:?}") };
    assert!(record.failsafe);
    world.cluster().failsafe = None;
    // The settings of the restored store do not decide it.
    world.seen.settings.failsafe_mode = false;
    world.later(5).generation_begins(&begun[0]).tick();
    world.later(10 * world.seen.settings.ttl.as_millis() as u64).answers("c", 1000).answers("b", 900);
    world.seen.peers.get_mut(&name("b")).expect("it has answered").reachable = false;
    assert_eq!(world.tick().because, Reason::Store(StoreReason::Unsettled { missing: vec![name("b")] }));
    world.later(5).answers("c", 1000).answers("b", 900);
    assert_eq!(jobs(&world.tick().actions), [JobKind::TakeLeadership]);
}

/// A primary in failsafe mode needs no lease: an operator's failover waits until each other member shows that it is a
/// standby, or is confirmed to be down.
#[test]
fn in_failsafe_mode_a_failover_wants_silent_members_confirmed_down() {
    let mut world = World::b_leads_in_quorum_mode();
    world.seen.settings.failsafe_mode = true;
    let begun = generations(&world.is_restored(40).later(5).tick().actions);
    world.later(5).generation_begins(&begun[0]).tick();
    let request = FailoverRequest { candidate: Some(name("a")), ..Default::default() };
    let key = |request| Some(FailoverKey { request, mod_revision: 43 });
    world.cluster().failover = key(request.clone());
    world.later(10 * world.seen.settings.ttl.as_millis() as u64);
    world.answers("c", 1000).answers("b", 900);
    world.seen.peers.get_mut(&name("b")).expect("it has answered").reachable = false;
    let may_go_on = |members: &[&str]| {
        let members = members.iter().map(|member| name(member)).collect();
        Reason::Store(StoreReason::MayGoOn { members })
    };
    assert_eq!(world.tick().because, may_go_on(&["b"]));
    world.later(5).answers("c", 1000).answers("b", 900);
    world.seen.peers.get_mut(&name("b")).expect("it has answered").in_recovery = false;
    assert_eq!(world.tick().because, may_go_on(&["b"]), "a primary answers");
    world.cluster().failover = key(FailoverRequest { confirmed_down: vec![name("b")], ..request });
    assert_eq!(jobs(&world.later(5).tick().actions), [JobKind::TakeLeadership]);
}

/// A leader that etcd does not reach loses its member key with its lease, and goes on. The key `failsafe` names it as
/// long as the store lasts, and the members remember it.
#[test]
fn a_leader_in_failsafe_mode_is_waited_for_although_its_member_key_is_gone() {
    let mut world = World::new();
    world.seen.settings.failsafe_mode = true;
    let cluster = world.cluster();
    let members = [(name("b"), String::new())].into();
    cluster.failsafe = Some(FailsafeKey { members, mod_revision: 7 });
    cluster.members.remove(&name("b"));
    world.tick();
    let begun = generations(&world.later(5).is_lost_without_record().tick().actions);
    world.cluster().failsafe = None;
    world.later(5).generation_begins(&begun[0]).tick();
    world.later(10 * world.seen.settings.ttl.as_millis() as u64).answers("c", 1000);
    assert_eq!(world.tick().because, Reason::Store(StoreReason::Unsettled { missing: vec![name("b")] }));
}
