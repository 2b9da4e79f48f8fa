//! A standby was away for longer than the leader keeps WAL for it.

use matriarch::decide::Decision;
use matriarch::model::{
    Branch, ControlState, JobKind, LeaderBranch, LeaseId, Lsn, Outcome, Reason, Role, Standby, SyncMode,
};

use super::scenarios::jobs;
use super::sync::record;
use super::world::{World, down, leader, name, standby, up};

/// `a` runs at 1000 and does not stream; `b` has just reported its history and its oldest WAL.
fn tick(world: &mut World, millis: u64, oldest: u64) -> Decision {
    world.later(millis);
    let answer = Ok(Branch { end: None, ..world.seen.postgres.branch().expect("it has one") });
    let (asked_at, oldest) = (world.now, Lsn(oldest));
    world.seen.leader_branch =
        Some(LeaderBranch { name: name("b"), asked_at, answer, has_slot: true, oldest });
    world.tick()
}

fn cut_off(restores: bool) -> World {
    let mut world = World::new();
    behind_b(&mut world, restores);
    world
}

fn behind_b(world: &mut World, restores: bool) {
    world.postgres(up(standby(1000)));
    tick(world, 0, 0);
    let Standby::Yes { receiver, restores: archive, .. } =
        &mut world.seen.postgres.sql.as_mut().expect("it runs").standby
    else {
        unreachable!("a standby")
    };
    (*receiver, *archive) = (None, restores);
    tick(world, 10, 0);
}

fn is_said(decision: &Decision) -> bool {
    decision.because == Reason::WalRemoved { leader: name("b"), me: name("a") }
}

/// Nothing is deleted: the state is reported, also in the member's record, as long as it lasts.
#[test]
fn removed_wal_is_reported() {
    let mut world = cut_off(false);
    assert!(!is_said(&tick(&mut world, 1500, 1000)), "what follows is there");
    let decision = tick(&mut world, 1500, 1001);
    assert!(is_said(&decision), "{decision:?}");
    assert_eq!(jobs(&decision.actions), []);
    let asking = world.later(5000).tick();
    assert!(is_said(&asking), "while the leader is asked again: {asking:?}");
    let refusal = world.memory.published.as_ref().and_then(|(record, ..)| record.refusal.clone());
    assert!(refusal.is_some_and(|why| why.starts_with("WAL removed") && why.contains("reinit a")));
}

/// PostgreSQL connects again and again, and its receiver seems to stream until it is told that the WAL is gone.
#[test]
fn a_receiver_that_is_about_to_be_refused_does_not_stream() {
    let mut world = cut_off(false);
    assert!(is_said(&tick(&mut world, 1500, 1001)));
    world.postgres(up(standby(1000)));
    assert!(is_said(&tick(&mut world, 1500, 1001)));
    assert_eq!(
        tick(&mut world, 1500, 1000).because,
        Reason::Following { leader: name("b") },
        "it is there again"
    );
}

/// The archive may have the WAL: a clone follows only when the archive has brought nothing for half a minute.
#[test]
fn missing_wal_may_still_come_from_the_archive() {
    let mut world = cut_off(true);
    assert!(!is_said(&tick(&mut world, 1500, 2000)));
    assert!(!is_said(&tick(&mut world, 29_000, 2000)));
    let Standby::Yes { received, replayed, .. } =
        &mut world.seen.postgres.sql.as_mut().expect("it runs").standby
    else {
        unreachable!("a standby")
    };
    (*received, *replayed) = (Lsn(1500), Lsn(1500));
    assert!(!is_said(&tick(&mut world, 2_000, 2000)), "it advances");
    assert!(!is_said(&tick(&mut world, 29_000, 2000)));
    assert!(is_said(&tick(&mut world, 1_000, 2000)));
}

/// If the configuration allows it, the member is cloned anew.
#[test]
fn a_member_is_cloned_if_the_settings_permit_it() {
    let mut world = cut_off(false);
    world.seen.settings.remove_data_directory_on_diverged_timelines = true;
    let decision = tick(&mut world, 1500, 1001);
    assert_eq!(jobs(&decision.actions), [JobKind::Stop]);
    assert_eq!(decision.because, Reason::Recloning { leader: name("b") });
    world.ends(JobKind::Stop, Outcome::Done).postgres(down(ControlState::ShutDownInRecovery));
    let decision = tick(&mut world, 100, 1001);
    assert_eq!(jobs(&decision.actions), [JobKind::Clone]);
}

/// Before the member is stopped another member leads, which may have all the WAL.
#[test]
fn a_new_leader_is_asked_for_the_missing_wal() {
    let mut world = World::new();
    world.synchronous(SyncMode::Quorum, record("b", 1, &["a", "c"]));
    behind_b(&mut world, false);
    world.seen.settings.remove_data_directory_on_diverged_timelines = true;
    let decision = tick(&mut world, 1500, 1001);
    assert_eq!(jobs(&decision.actions), [], "a voter leaves first: {decision:?}");
    assert_eq!(decision.because, Reason::Recloning { leader: name("b") });
    let cluster = world.cluster();
    cluster.leader = Some(leader("c", LeaseId(0xC)));
    cluster.members.get_mut(&name("c")).expect("a member").record.role = Role::Primary;
    let decision = world.later(100_000).tick();
    assert_eq!(jobs(&decision.actions), []);
    assert_ne!(decision.because, Reason::Recloning { leader: name("c") });
}
