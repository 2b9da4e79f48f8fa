//! etcd has lost the lease that an operation needs: the operation waits for a new lease.

use matriarch::decide::Decision;
use matriarch::model::{Action, DataDirectory, Job, JobKind, LeaseId, Outcome, Reason};

use super::world::{World, primary, up, without};

const NEW: LeaseId = LeaseId(0xD);

fn starts(decision: &Decision, kind: JobKind) -> bool {
    decision.actions.iter().any(|action| matches!(action, Action::Start(job) if job.kind() == kind))
}

/// Ticks until the lease is known to be lost; then a new one exists.
fn assert_waits_for_a_new_lease(mut world: World, kind: JobKind) {
    assert!(starts(&world.tick(), kind));
    world.ends(kind, Outcome::LeaseGone);
    for _ in 0..100 {
        let decision = world.later(5).tick();
        assert_eq!(decision.because, Reason::NoLeaseYet, "{kind}");
        assert!(!starts(&decision, kind), "{:?}", decision.actions);
        assert!(decision.actions.contains(&Action::RenewLease), "{:?}", decision.actions);
    }
    world.seen.lease.lease = Some(NEW);
    assert!(starts(&world.later(5).tick(), kind), "{kind}");
}

#[test]
fn a_standby_does_not_take_the_leader_key_under_a_lost_lease() {
    let mut world = World::new();
    world.nobody_leads().answers("b", 900).answers("c", 900).tick();
    world.later(5).answers("b", 900).answers("c", 900);
    assert_waits_for_a_new_lease(world, JobKind::TakeLeadership);
}

#[test]
fn a_primary_does_not_retake_the_leader_key_under_a_lost_lease() {
    let mut world = World::new();
    world.nobody_leads().postgres(up(primary(1000)));
    assert_waits_for_a_new_lease(world, JobKind::TakeLeadership);
}

#[test]
fn no_cluster_is_created_under_a_lost_lease() {
    let mut world = World::new();
    world.nobody_leads().postgres(without(DataDirectory::Empty)).seen.me.wait_for_members =
        Default::default();
    let cluster = world.cluster();
    cluster.initialize = None;
    cluster.members.clear();
    assert_waits_for_a_new_lease(world, JobKind::Bootstrap);
}

/// The answer arrives after the lease was replaced.
#[test]
fn a_new_lease_is_used_at_once() {
    let mut world = World::new();
    world.nobody_leads().postgres(up(primary(1000)));
    assert!(starts(&world.tick(), JobKind::TakeLeadership));
    world.seen.lease.lease = Some(NEW);
    let decision = world.later(5).ends(JobKind::TakeLeadership, Outcome::LeaseGone).tick();
    let take = |action: &Action| matches!(action, Action::Start(Job::TakeLeadership { .. }));
    assert!(decision.actions.iter().any(take), "{:?}", decision.actions);
}
