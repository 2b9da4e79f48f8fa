//! A leader that may have been replaced, and cannot know, lets no clients in.

use std::time::Duration;

use matriarch::model::{
    Action, FailoverBy, LeaderHearing, Lsn, MemberRecord, Reason, RecruitReason, SyncKey, SyncMode,
    SyncReason, SyncRecord, SyncState, Walsender,
};

use super::super::world::{World, name, primary, up};
use super::{Case, SYNC};

fn confirms(member: &str, flushed: u64) -> Walsender {
    let at = Some(Lsn(flushed));
    let sync = SyncState::Quorum;
    Walsender { name: member.to_owned(), streams: true, sync, written: at, flushed: at, replayed: at }
}

/// I lead, b and c are synchronous, and the last member that listened was lost just now.
fn unheard() -> World {
    let mut world = World::new();
    world.seen.settings.failover = FailoverBy::Recruit;
    world.seen.settings.sync.mode = SyncMode::Quorum;
    let record = SyncRecord { leader: Some(name("a")), quorum: 1, voters: [name("b"), name("c")].into() };
    world.cluster().sync = Some(SyncKey { record, mod_revision: SYNC });
    let heartbeats = vec![MemberRecord::HEARTBEATS.to_owned()];
    world.cluster().members.values_mut().for_each(|key| key.record.capabilities = heartbeats.clone());
    world.i_lead().postgres(up(primary(2000)));
    let sync = &mut world.seen.postgres.sql.as_mut().expect("it answers").sync;
    sync.names = "ANY 1 (b,c)".to_owned();
    sync.walsenders = vec![confirms("b", 1900), confirms("C", 1950), confirms("observer", 2000)];
    world.memory.failsafe.is_free = true;
    world.tick();
    world.seen.hearing = LeaderHearing::Unheard;
    world
}

fn walsenders(world: &mut World) -> &mut Vec<Walsender> {
    &mut world.seen.postgres.sql.as_mut().expect("it answers").sync.walsenders
}

/// Clients are locked out because nothing reaches me.
fn secluded() -> World {
    let mut world = unheard();
    world.tick();
    assert!(refuses(&mut world));
    world.seen.postgres.clients_locked_out = true;
    world
}

/// Time passes, and etcd renews no lease.
fn passes(world: &mut World, millis: u64) -> &mut World {
    let deadline = world.seen.lease.deadline;
    world.later(millis).seen.lease.deadline = deadline;
    world
}

/// Whether clients are locked out a second later.
fn refuses(world: &mut World) -> bool {
    let decision = passes(world, 1000).tick();
    let refuses = decision.actions.contains(&Action::SetClientLockout { closed: true });
    assert_eq!(refuses, decision.because == Reason::Recruit(RecruitReason::CutOff), "{decision:?}");
    refuses
}

#[test]
fn a_leader_that_nothing_reaches_lets_no_clients_in() {
    let mut world = unheard();
    let first = world.tick();
    assert!(first.actions.contains(&Action::RenewLease), "etcd is asked at once: {first:?}");
    assert!(!passes(&mut world, 999).tick().actions.contains(&Action::RenewLease));
    assert!(refuses(&mut world));
    world.seen.postgres.clients_locked_out = true;
    assert_eq!(
        passes(&mut world, 3000).tick().because,
        Reason::Recruit(RecruitReason::CutOff),
        "as long as that lasts"
    );
}

/// Once etcd says that I still lead, nobody has led meanwhile, and nothing was recovered: a strict mode whose standbys
/// are away refuses no reads for it.
#[test]
fn clients_are_let_in_again_when_etcd_renews_the_lease() {
    let lets_in = |world: &mut World| {
        let decision = world.tick();
        decision.actions.contains(&Action::SetClientLockout { closed: false })
    };
    let mut world = secluded();
    world.seen.settings.sync.strict = true;
    walsenders(&mut world).clear();
    assert!(!lets_in(passes(&mut world, 100)));
    assert!(lets_in(world.later(100)));

    let mut world = secluded();
    world.seen.hearing = LeaderHearing::Unknown;
    let decision = passes(&mut world, 10).tick();
    let is_usual = matches!(decision.because, Reason::Sync(SyncReason::ClientsLockedOut { .. }));
    assert!(is_usual, "a member listens, which says nothing of my lease: {decision:?}");

    let mut world = unheard();
    world.seen.postgres.clients_locked_out = true;
    world.tick();
    passes(&mut world, 1000).tick();
    assert!(!lets_in(world.later(100)), "they were locked out for another reason");
}

#[test]
fn a_leader_that_anything_reaches_lets_clients_in() {
    let cases: [Case<World>; 8] = [
        ("etcd renews", |world| {
            world.seen.lease.deadline = world.seen.lease.deadline.map(|at| at + Duration::from_millis(1));
        }),
        ("a standby confirms", |world| walsenders(world)[0] = confirms("b", 1951)),
        ("a member listens", |world| world.seen.hearing = LeaderHearing::Unknown),
        ("nobody replaces it", |world| world.seen.settings.failover = FailoverBy::Lease),
        ("pause", |world| world.seen.settings.pause = true),
        ("no standby is synchronous", |world| {
            world.cluster().sync.as_mut().expect("it is there").record.voters.clear();
        }),
        ("no key", |world| world.cluster().sync = None),
        ("standbys that do not recruit", |world| {
            world.cluster().members.values_mut().for_each(|key| key.record.capabilities.clear());
        }),
    ];
    for (what, change) in cases {
        let mut world = unheard();
        world.tick();
        change(&mut world);
        assert!(!refuses(&mut world), "{what}");
    }
}
