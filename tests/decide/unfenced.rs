//! Pause: a primary that is left running without a fence, and no second primary beside it.

use std::collections::BTreeMap;

use matriarch::model::{
    Action, ControlState, ExitBecause, FailoverKey, FailoverRequest, Job, JobKind, LeaseId, Lsn, MemberName,
    Outcome, Reason, SessionId, Standby, StopMode, TakeLeadershipPreconditions, Term, Timeline, UnfencedKey,
    UnfencedPrimary, UnfencedReason,
};

use super::world::{World, down, leader, name, primary, standby, up};

const REVISION: i64 = 61;

pub(super) fn left(session: u64) -> UnfencedPrimary {
    UnfencedPrimary {
        term: Term(50),
        position: Lsn(1000),
        timeline: Some(Timeline(1)),
        session: SessionId(session),
    }
}

pub(super) fn key(members: &[(&str, u64)]) -> Option<UnfencedKey> {
    let primaries = members.iter().map(|(member, session)| (name(member), left(*session))).collect();
    Some(UnfencedKey { primaries, mod_revision: REVISION })
}

fn jobs(actions: &[Action]) -> Vec<JobKind> {
    let job = |action: &Action| match action {
        Action::Start(job) => Some(job.kind()),
        _ => None,
    };
    actions.iter().filter_map(job).collect()
}

type Written = (Option<Term>, BTreeMap<MemberName, UnfencedPrimary>, i64);

fn written(actions: &[Action]) -> Vec<Written> {
    let write = |action: &Action| match action {
        Action::PublishUnfenced(write) => Some((write.term, write.primaries.clone(), write.mod_revision)),
        _ => None,
    };
    actions.iter().filter_map(write).collect()
}

fn ends(actions: &[Action]) -> bool {
    actions.contains(&Action::Exit(ExitBecause::Asked))
}

/// a leads in pause, and its supervisor is asked to end.
fn asked_to_end() -> World {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000))).tick();
    world.seen.settings.pause = true;
    world.seen.shutting_down = true;
    world
}

/// There is no leader, and all members have answered.
fn nobody_leads() -> World {
    let mut world = World::new();
    world.nobody_leads().postgres(up(standby(1000))).tick();
    world.later(5).answers("b", 900).answers("c", 900);
    world
}

#[test]
fn a_supervisor_ends_in_pause_only_when_etcd_knows_what_it_leaves() {
    let mut world = asked_to_end();
    let asked = world.later(10).tick();
    let mine = BTreeMap::from([(name("a"), left(0xA))]);
    assert_eq!(written(&asked.actions), [(Some(Term(50)), mine, 0)]);
    assert!(!ends(&asked.actions), "{:?}", asked.actions);
    assert!(!ends(&world.later(100).tick().actions), "etcd does not show it yet");
    world.cluster().unfenced = key(&[("a", 0xA)]);
    assert!(ends(&world.later(10).tick().actions));
}

/// The entry of another supervisor of this member has no effect on the present one.
#[test]
fn the_entry_of_an_earlier_supervisor_does_not_allow_an_exit() {
    let mut world = asked_to_end();
    world.cluster().unfenced = key(&[("a", 7)]);
    assert!(!ends(&world.later(10).tick().actions));
}

#[test]
fn without_etcd_the_primary_is_stopped_rather_than_left() {
    let mut world = asked_to_end();
    world.later(10).tick();
    assert_eq!(jobs(&world.later(4900).tick().actions), []);
    let stopped = world.later(200).tick();
    let fast = |action: &Action| matches!(action, Action::Start(Job::Stop { mode: StopMode::Fast, .. }));
    assert!(stopped.actions.iter().any(fast), "{:?}", stopped.actions);
    assert_eq!(stopped.because, Reason::Unfenced(UnfencedReason::NotLeft));
    let gone =
        world.later(50).postgres(down(ControlState::ShutDown)).ends(JobKind::Stop, Outcome::Done).tick();
    assert!(ends(&gone.actions), "{:?}", gone.actions);
}

#[test]
fn a_standby_is_left_at_once() {
    let mut world = World::new();
    world.seen.settings.pause = true;
    world.seen.shutting_down = true;
    assert!(ends(&world.tick().actions));
}

/// The pause is over; b left its primary running and is away. No member is promoted beside it: not on its own, not by a
/// switchover, and not by a failover that does not confirm that b is down.
#[test]
fn no_member_is_promoted_beside_an_unfenced_primary() {
    let mut world = nobody_leads();
    world.cluster().unfenced = key(&[("b", 0xB)]);
    let refused = Reason::Unfenced(UnfencedReason::Bars { member: name("b"), left: left(0xB) });
    assert_eq!(world.tick().because, refused);
    let asked = |candidate: &str, leader: Option<&str>, confirmed_down: &[&str]| FailoverKey {
        request: FailoverRequest {
            leader: leader.map(name),
            candidate: Some(name(candidate)),
            scheduled_at: None,
            confirmed_down: confirmed_down.iter().map(|member| name(member)).collect(),
            rebuild: false,
            requested_by: None,
        },
        mod_revision: 70,
    };
    for request in [
        asked("a", Some("b"), &["b"]),
        asked("a", None, &[]),
        asked("a", None, &["c"]),
        asked("c", None, &["b"]),
    ] {
        world.cluster().failover = Some(request);
        let decision = world.tick();
        assert_eq!((jobs(&decision.actions), decision.because), (vec![], refused.clone()));
    }
    let before_it_was_left = FailoverKey { mod_revision: REVISION - 1, ..asked("a", None, &["b"]) };
    world.cluster().failover = Some(before_it_was_left);
    assert_eq!(world.tick().because, refused);
    world.cluster().failover = Some(asked("a", None, &["b"]));
    let unlocked = world.cluster().revision;
    let by =
        TakeLeadershipPreconditions { sync: 0, unfenced: REVISION, failsafe: 0, unlocked, deposes: None };
    let taken = world.tick();
    assert!(taken.actions.contains(&Action::Start(Job::TakeLeadership { by })), "{:?}", taken.actions);
}

/// The key may be written between the look and the take: the transaction compares its revision.
#[test]
fn the_key_is_taken_only_while_no_primary_is_left_unfenced() {
    let mut world = nobody_leads();
    let unlocked = world.cluster().revision;
    let by = TakeLeadershipPreconditions { sync: 0, unfenced: 0, failsafe: 0, unlocked, deposes: None };
    assert!(world.tick().actions.contains(&Action::Start(Job::TakeLeadership { by })));
}

/// Its supervisor is back: the primary takes its own key back, and then the entry is removed.
#[test]
fn a_returning_leader_clears_its_entry() {
    let mut world = World::new();
    world.nobody_leads().postgres(up(primary(1000)));
    world.cluster().unfenced = key(&[("a", 7)]);
    let back = world.tick();
    assert_eq!(jobs(&back.actions), [JobKind::TakeLeadership], "{}", back.because);
    assert_eq!(written(&back.actions), []);
    world.later(10).i_lead();
    assert_eq!(written(&world.tick().actions), [(None, BTreeMap::new(), REVISION)]);
    assert_eq!(written(&world.later(10).tick().actions), [], "it is on its way");
    assert_eq!(written(&world.later(1010).tick().actions).len(), 1, "and is sent again");
}

/// Its supervisor is back, and its PostgreSQL is down or a standby: its entry is removed, and those of others stay.
#[test]
fn a_member_without_its_primary_clears_only_its_own_entry() {
    let others = BTreeMap::from([(name("c"), left(0xC))]);
    for postgres in [down(ControlState::InProduction), up(standby(1000))] {
        let mut world = World::new();
        world.cluster().leader = Some(leader("b", LeaseId(0xB)));
        world.postgres(postgres);
        world.cluster().unfenced = key(&[("a", 7), ("c", 0xC)]);
        assert_eq!(written(&world.tick().actions), [(None, others.clone(), REVISION)]);
    }
}

/// There is no entry in etcd, but WAL still arrives: a primary writes. No member is promoted before that ends.
#[test]
fn a_standby_that_still_receives_wal_is_not_promoted() {
    let mut world = nobody_leads();
    let receives = |world: &mut World, lsn: u64| {
        let Standby::Yes { received, .. } = &mut world.seen.postgres.sql.as_mut().expect("it runs").standby
        else {
            unreachable!("a standby")
        };
        *received = Lsn(lsn);
    };
    receives(&mut world, 1010);
    let decision = world.tick();
    assert_eq!(
        (jobs(&decision.actions), decision.because),
        (vec![], Reason::Unfenced(UnfencedReason::Streams))
    );
    world.later(1900);
    receives(&mut world, 1020);
    assert_eq!(world.tick().because, Reason::Unfenced(UnfencedReason::Streams));
    assert_eq!(
        world.later(1900).answers("b", 900).answers("c", 900).tick().because,
        Reason::Unfenced(UnfencedReason::Streams)
    );
    let quiet = world.later(200).answers("b", 900).answers("c", 900).tick();
    assert_eq!(jobs(&quiet.actions), [JobKind::TakeLeadership], "{}", quiet.because);
}
