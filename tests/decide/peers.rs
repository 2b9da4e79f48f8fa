//! Answers of other members, and the frequency of the queries.

use std::collections::BTreeSet;
use std::time::Duration;

use matriarch::model::{
    Action, Job, JobKind, MemberName, MemberRecord, PeerIdentity, Reason, SessionId, SyncKey, SyncMode,
    SyncReason, SyncRecord,
};

use super::world::{World, name};

fn job(actions: &[Action]) -> Option<JobKind> {
    actions.iter().find_map(|action| match action {
        Action::Start(job) => Some(Job::kind(job)),
        _ => None,
    })
}

/// Mode quorum with a, b and c; each commit may be on only two of them.
fn quorum() -> World {
    let mut world = World::new();
    let voters: BTreeSet<MemberName> = ["a", "c"].map(name).into();
    let record = SyncRecord { leader: Some(name("b")), quorum: 1, voters };
    world.cluster().sync = Some(SyncKey { record, mod_revision: 40 });
    world.seen.settings.sync.mode = SyncMode::Quorum;
    let matriarch::model::Standby::Yes { receiver, .. } =
        &mut world.seen.postgres.sql.as_mut().expect("up").standby
    else {
        unreachable!("a standby")
    };
    *receiver = None;
    world.nobody_leads();
    world
}

fn identity(world: &mut World, member: &str, change: impl Fn(&mut PeerIdentity)) {
    change(&mut world.seen.peers.get_mut(&name(member)).expect("it has answered").identity);
}

/// None of these votes: an address that now belongs to another pod, two members behind one address, another cluster, a
/// restored backup of another database, a process other than the registered one, a program that does not identify
/// itself.
#[test]
fn an_answer_of_another_process_is_no_vote() {
    let vote = |change: &dyn Fn(&mut PeerIdentity)| {
        let mut world = quorum();
        world.cluster().members.get_mut(&name("c")).expect("registered").record.session =
            Some(SessionId(0xC));
        world.tick();
        world.later(5).answers("b", 900).answers("c", 900);
        world.seen.peers.get_mut(&name("b")).expect("just added").reachable = false;
        identity(&mut world, "c", change);
        let decision = world.tick();
        (job(&decision.actions), decision.because)
    };
    assert_eq!(vote(&|_| {}).0, Some(JobKind::TakeLeadership), "the member itself votes");
    let refused = Reason::Sync(SyncReason::NotVouchedFor { leader: name("b") });
    let strangers: [&dyn Fn(&mut PeerIdentity); 6] = [
        &|identity| identity.name = Some(name("a")),
        &|identity| identity.name = None,
        &|identity| identity.scope = Some("crowd".to_owned()),
        &|identity| identity.system_id = Some(1),
        &|identity| identity.session = Some(SessionId(0xD)),
        &|identity| identity.session = None,
    ];
    for (case, stranger) in strangers.into_iter().enumerate() {
        assert_eq!(vote(stranger), (None, refused.clone()), "stranger {case}");
    }
}

/// Patroni, and older versions of Matriarch, register without a session, and vote by name.
#[test]
fn a_member_without_a_session_votes() {
    let mut world = quorum();
    world.tick();
    world.later(5).answers("b", 900).answers("c", 900);
    identity(&mut world, "c", |identity| identity.session = Some(SessionId(7)));
    world.seen.peers.get_mut(&name("b")).expect("just added").reachable = false;
    assert_eq!(job(&world.tick().actions), Some(JobKind::TakeLeadership));
}

/// No other member answers, so there are too few votes: queries are frequent at first, then about one a second.
#[test]
fn unanswered_questions_become_rare() {
    let mut world = quorum();
    let mut asked_at = Vec::new();
    let began = world.now;
    while world.now < began + Duration::from_secs(60) {
        let decision = world.tick();
        if decision.actions.iter().any(|action| matches!(action, Action::AskPeers { .. })) {
            asked_at.push(world.now);
            for member in ["b", "c"] {
                world.answers(member, 900).seen.peers.get_mut(&name(member)).expect("added").reachable =
                    false;
            }
        }
        let millis = decision.wake.0.since(world.now).as_millis().max(1) as u64;
        world.later(millis);
    }
    let quick = asked_at.iter().filter(|at| **at < began + Duration::from_secs(1)).count();
    assert!((8..=20).contains(&quick), "{quick} questions in the first second");
    assert!((60..=100).contains(&asked_at.len()), "{} questions in a minute", asked_at.len());
}

/// A member that registers again may vote: it is queried at once.
#[test]
fn a_new_registration_is_asked_at_once() {
    let mut world = quorum();
    for _ in 0..200 {
        let decision = world.tick();
        for member in ["b", "c"] {
            world.answers(member, 900).seen.peers.get_mut(&name(member)).expect("added").reachable = false;
        }
        let millis = decision.wake.0.since(world.now).as_millis().max(1) as u64;
        world.later(millis);
    }
    world.tick();
    let quiet = world.later(100).tick();
    assert!(
        !quiet.actions.iter().any(|action| matches!(action, Action::AskPeers { .. })),
        "{:?}",
        quiet.actions
    );
    world.cluster().members.get_mut(&name("c")).expect("registered").record.session = Some(SessionId(0xC1));
    let news = world.later(10).tick();
    assert!(
        news.actions.iter().any(|action| matches!(action, Action::AskPeers { .. })),
        "{:?}",
        news.actions
    );
}

/// Other members listen only to those whose record says that they send heartbeats.
#[test]
fn a_member_says_in_its_record_what_it_can_do() {
    let actions = World::new().tick().actions;
    let can = |action: &Action| match action {
        Action::PublishMember(record) => record.can(MemberRecord::HEARTBEATS),
        _ => false,
    };
    assert!(actions.iter().any(can), "{actions:?}");
}
