//! The leader's part: the key, the question, and what promises are good for.

use std::time::Duration;

use matriarch::model::{Action, FailsafeKey, FailsafeMembers, JobKind, Leading, LeaseId, Reason, Term};

use super::super::world::{MY_LEASE, World, name, primary, up};
use super::{REVISION, key, members, world};

fn leads() -> World {
    let mut world = world();
    world.i_lead().postgres(up(primary(1000)));
    world
}

fn published(world: &mut World) -> Option<FailsafeMembers> {
    world.tick().actions.into_iter().find_map(|action| match action {
        Action::PublishFailsafe { term: Term(50), members, .. } => Some(members),
        _other => None,
    })
}

fn planned(world: &World) -> Option<FailsafeMembers> {
    world.memory.failsafe.plan.members.clone()
}

#[test]
fn the_leader_names_all_members_and_asks_the_others() {
    let mut world = leads();
    world.cluster().failsafe = None;
    assert_eq!(published(&mut world), Some(members("a b c")));
    assert_eq!(planned(&world), None, "before etcd has the key, any member may lead");
    assert_eq!(published(&mut world), None, "it is on its way");
    world.cluster().failsafe = key("a b c");
    assert_eq!((published(&mut world), planned(&world)), (None, Some(members("b c"))));
}

/// A new member is asked before it is named, and is not named while promises stand that it was not asked for.
#[test]
fn a_new_member_is_asked_before_it_may_lead() {
    let mut world = leads();
    world.cluster().failsafe = key("a b");
    assert_eq!(published(&mut world), None);
    assert_eq!(planned(&world), Some(members("b c")));
    world.seen.lease.promised_until = Some(world.now + Duration::from_secs(3));
    assert_eq!(published(&mut world), None);
    world.later(3_100);
    assert_eq!(published(&mut world), Some(members("a b c")));
}

#[test]
fn a_member_that_is_gone_is_asked_until_the_key_lacks_it() {
    let mut world = leads();
    world.cluster().members.remove(&name("c"));
    world.tick();
    assert_eq!(planned(&world), Some(members("b c")));
    world.cluster().failsafe = key("a b");
    world.later(1_100);
    world.tick();
    world.tick();
    assert_eq!(planned(&world), Some(members("b")));
}

#[test]
fn switched_off_nobody_is_asked_and_the_key_is_deleted() {
    let mut world = leads();
    world.tick();
    world.seen.settings.failsafe_mode = false;
    assert_eq!(published(&mut world), None, "promises that are asked for now do not count first");
    assert_eq!((published(&mut world), planned(&world)), (Some(members("")), None));
}

/// A write that hangs in etcd may delete the key, or name a member that nobody asks, as long as the key is what it was
/// written over.
#[test]
fn a_write_that_may_still_be_done_is_overtaken() {
    let mut world = leads();
    world.tick();
    world.seen.settings.failsafe_mode = false;
    world.tick();
    assert_eq!(published(&mut world), Some(members("")));
    world.seen.settings.failsafe_mode = true;
    world.tick();
    assert_eq!(planned(&world), None, "the key may be gone");
    world.later(1_100);
    assert_eq!(published(&mut world), Some(members("a b c")), "the same value, in another revision");
    world.cluster().failsafe =
        Some(FailsafeKey { mod_revision: REVISION + 1, ..key("a b c").expect("some") });
    assert_eq!((published(&mut world), planned(&world)), (None, Some(members("b c"))));
}

/// The term is newer than the view: the key may name others by now.
#[test]
fn a_view_older_than_the_term_proves_nothing() {
    let mut world = leads();
    world.cluster().revision = 49;
    assert_eq!((published(&mut world), planned(&world)), (None, None));
}

/// etcd does not answer: the promises keep a primary serving behind the end of its lease, and one that is promised
/// nothing stops.
#[test]
fn promises_keep_a_primary_serving() {
    let mut world = leads();
    world.tick();
    let ends = world.seen.lease.deadline.expect("it is set");
    world.now = ends + Duration::from_secs(5);
    assert_eq!(world.tick().because, Reason::LeaseExpiring);
    let mut world = leads();
    world.now = ends + Duration::from_secs(5);
    world.seen.lease.promised_until = Some(world.now + Duration::from_secs(5));
    assert_eq!(world.tick().because, Reason::Leading);
}

/// etcd is back and the lease is gone. The view still shows the key: the primary waits for a newer one, and then takes
/// the key again, all without a stop.
#[test]
fn a_primary_with_promises_takes_its_key_again() {
    let mut world = leads();
    world.tick();
    world.seen.lease.leading = Leading::No;
    world.seen.lease.vanished = Some(MY_LEASE);
    world.seen.lease.lease = Some(LeaseId(0xA2));
    world.seen.lease.promised_until = Some(world.now + Duration::from_secs(8));
    for _ in 0..3 {
        assert_eq!(world.tick().because, Reason::Confirming);
        world.later(1_500);
    }
    world.nobody_leads();
    let jobs: Vec<JobKind> = world
        .tick()
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::Start(job) => Some(job.kind()),
            _other => None,
        })
        .collect();
    assert_eq!(jobs, [JobKind::TakeLeadership]);
}
