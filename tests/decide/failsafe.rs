//! Failsafe mode: a leader without etcd goes on while all members that could take the leader key promise not to.

mod leader;
mod standby;

use std::collections::BTreeMap;
use std::time::Duration;

use matriarch::model::{
    Action, Ask, FailoverKey, FailoverRequest, FailsafeKey, FailsafeMembers, FailsafeQuestion,
    FailsafeRefusal, Job, JobKind, LeaderKey, Leading, Outcome, PeerAnswer, Reason, Reply, Request,
    RequestId, SyncKey, SyncMode, SyncRecord, TakeLeadershipPreconditions, Term,
};

use super::world::{MY_LEASE, START, World, name, primary, standby, up};

const REVISION: i64 = 60;

fn members(list: &str) -> FailsafeMembers {
    list.split_whitespace().map(|member| (name(member), format!("http://{member}:8008/patroni"))).collect()
}

fn key(list: &str) -> Option<FailsafeKey> {
    Some(FailsafeKey { members: members(list), mod_revision: REVISION })
}

/// Failsafe mode is on, and the key names all members.
fn world() -> World {
    let mut world = World::new();
    world.seen.settings.failsafe_mode = true;
    world.cluster().failsafe = key("a b c");
    world
}

fn question(from: &str) -> FailsafeQuestion {
    let conn_url = format!("postgres://{from}:5432/promised");
    FailsafeQuestion {
        leader: name(from),
        conn_url,
        asked: None,
        ttl_ms: Some(10_000),
        slots: BTreeMap::new(),
    }
}

/// The answer to a leader's question.
fn asks(world: &mut World, question: FailsafeQuestion) -> Reply {
    world.seen.requests.push(Request { id: RequestId(1), ask: Ask::Failsafe(question) });
    let actions = world.tick().actions;
    let answer = actions.into_iter().find_map(|action| match action {
        Action::Answer { reply, .. } => Some(reply),
        _other => None,
    });
    answer.expect("it is answered at once")
}

fn takes(world: &mut World) -> bool {
    let taking = |action: &Action| matches!(action, Action::Start(Job::TakeLeadership { .. }));
    world.tick().actions.iter().any(taking)
}

fn promotes(world: &mut World) -> bool {
    let promotion = |action: &Action| matches!(action, Action::Start(Job::Promote { .. }));
    world.tick().actions.iter().any(promotion)
}

/// A standby whom nobody leads any more by etcd, with the answers of the others.
fn nobody_leads(world: &mut World) {
    world.nobody_leads().receives_nothing();
    world.tick();
    world.answers("b", 900).answers("c", 900);
}

#[test]
fn a_member_that_promised_leaves_the_key_alone_until_the_promise_ends() {
    let mut world = world();
    assert_eq!(asks(&mut world, question("b")), Reply::Promised);
    nobody_leads(&mut world);
    assert_eq!(world.tick().because, Reason::Promised { leader: name("b") });
    world.later(9_900);
    world.answers("b", 900).answers("c", 900);
    assert!(!takes(&mut world));
    world.later(200);
    world.tick();
    world.answers("b", 900).answers("c", 900);
    assert!(takes(&mut world));
}

#[test]
fn a_promise_lasts_for_the_longer_of_both_ttls() {
    let mut world = world();
    let long = FailsafeQuestion { ttl_ms: Some(30_000), ..question("b") };
    assert_eq!(asks(&mut world, long), Reply::Promised);
    // A later, shorter one takes nothing back.
    let patroni = FailsafeQuestion { ttl_ms: None, ..question("b") };
    assert_eq!(asks(&mut world, patroni), Reply::Promised);
    let promise = world.memory.failsafe.promise.clone().expect("it stands");
    assert_eq!(promise.until, START + Duration::from_secs(30));
}

#[test]
fn nothing_is_promised_by_a_leader_or_to_two_leaders_or_in_the_name_of_another() {
    let refused = |world: &mut World, question| match asks(world, question) {
        Reply::NotPromised(why) => why,
        other => panic!("{other:?}"),
    };
    let mut off = World::new();
    assert_eq!(refused(&mut off, question("b")), FailsafeRefusal::Off);
    assert_eq!(refused(&mut world(), question("c")), FailsafeRefusal::AnotherLeads { leader: name("b") });
    let mut leads = world();
    leads.i_lead();
    assert_eq!(refused(&mut leads, question("b")), FailsafeRefusal::Leads);
    let mut serves = world();
    serves.nobody_leads().postgres(up(primary(1000)));
    assert_eq!(refused(&mut serves, question("b")), FailsafeRefusal::Leads);
    let mut promised = world();
    asks(&mut promised, question("b"));
    promised.nobody_leads();
    assert_eq!(
        refused(&mut promised, question("c")),
        FailsafeRefusal::PromisedToAnother { leader: name("b") }
    );
    for asked in [("herd".to_owned(), name("c")), ("crowd".to_owned(), name("a"))] {
        let (scope, member) = asked.clone();
        let misdirected = FailsafeQuestion { asked: Some(asked), ..question("b") };
        assert_eq!(refused(&mut world(), misdirected), FailsafeRefusal::NotAsked { scope, member });
    }
    let mine = FailsafeQuestion { asked: Some(("herd".to_owned(), name("a"))), ..question("b") };
    assert_eq!(asks(&mut world(), mine), Reply::Promised);
}

/// The write that makes this member leader is under way.
#[test]
fn nothing_is_promised_while_the_key_is_being_taken() {
    let mut world = world();
    nobody_leads(&mut world);
    let job = Job::TakeLeadership {
        by: TakeLeadershipPreconditions { sync: 0, unfenced: 0, failsafe: 0, unlocked: 1, deposes: None },
    };
    world.seen.writing = Some(matriarch::model::RunningJob { job, since: START });
    assert_eq!(asks(&mut world, question("b")), Reply::NotPromised(FailsafeRefusal::TakesLeadership));
}

/// Its outcome was lost, a promise was made, and then the write was done after all.
#[test]
fn a_promise_delays_a_promotion_under_a_key_that_was_taken_before() {
    let mut world = world();
    assert_eq!(asks(&mut world, question("b")), Reply::Promised);
    world.i_lead().postgres(up(standby(1000)));
    world.cluster().leader_created = Some(50);
    assert_eq!(world.tick().because, Reason::Promised { leader: name("b") });
    world.later(10_100);
    assert!(promotes(&mut world));
}

/// A leader that hands over has stopped its PostgreSQL: nobody waits.
#[test]
fn a_promise_does_not_delay_a_hand_over() {
    let mut world = world();
    assert_eq!(asks(&mut world, question("b")), Reply::Promised);
    world.i_lead().postgres(up(standby(1000)));
    world.cluster().leader_created = Some(40);
    assert!(promotes(&mut world));
}

/// The key that was taken by a write whose answer was lost has another term after a change of the TTL, and looks as if
/// it had been handed over.
#[test]
fn a_key_that_may_have_been_taken_counts_as_taken() {
    let mut world = world();
    nobody_leads(&mut world);
    assert!(takes(&mut world));
    world.ends(JobKind::TakeLeadership, Outcome::Unknown("no answer".to_owned()));
    assert_eq!(asks(&mut world, question("b")), Reply::Promised);
    let moved = LeaderKey { name: name("a"), lease: Some(MY_LEASE), term: Term(110) };
    world.cluster().revision = 120;
    (world.cluster().leader, world.cluster().leader_created) = (Some(moved), Some(105));
    world.seen.lease.leading = Leading::Yes(Term(110));
    assert_eq!(world.tick().because, Reason::Promised { leader: name("b") });
}

/// Commits of the leader that goes on wait for this standby.
#[test]
fn a_standby_that_promised_goes_on_to_receive() {
    let lets_go = |world: &mut World| world.tick().actions.contains(&Action::Follow(None));
    for promised in [false, true] {
        let mut world = world();
        world.seen.settings.sync.mode = SyncMode::Quorum;
        world.cluster().sync = Some(SyncKey {
            record: SyncRecord {
                leader: Some(name("b")),
                quorum: 1,
                voters: ["a", "c"].map(name).into_iter().collect(),
            },
            mod_revision: 50,
        });
        if promised {
            asks(&mut world, question("b"));
        }
        world.nobody_leads();
        assert_eq!(lets_go(&mut world), !promised);
    }
}

/// It promised, and this member was not asked: an etcd that was restored names it.
#[test]
fn the_promise_of_another_member_counts_too() {
    let mut world = world();
    nobody_leads(&mut world);
    world.seen.peers.get_mut(&name("c")).expect("it answered").promised = true;
    assert_eq!(world.tick().because, Reason::PromisedElsewhere { member: name("c") });
}

/// Member b does not answer: it may be the leader that goes on.
fn only_c_answers(world: &mut World) {
    let silent = PeerAnswer::unreachable(world.now, "no answer".to_owned());
    world.answers("c", 900);
    world.seen.peers.insert(name("b"), silent);
}

#[test]
fn a_supervisor_keeps_what_its_predecessor_may_have_promised() {
    let mut world = world();
    world.nobody_leads().receives_nothing();
    world.tick();
    only_c_answers(&mut world);
    assert_eq!(world.tick().because, Reason::MayHavePromised);
    world.later(10_100);
    world.tick();
    only_c_answers(&mut world);
    assert!(takes(&mut world));
}

/// A leader goes on with a promise for the TTL of that moment, also in a later term and under a shorter TTL. Whoever
/// comes after this supervisor waits for as long as what it has written down says.
#[test]
fn the_ttl_of_a_promise_is_remembered_until_the_promise_ends() {
    let mut world = world();
    world.memory.failsafe.is_free = true;
    world.seen.settings.ttl = Duration::from_secs(20);
    world.tick();
    assert_eq!(asks(&mut world, question("b")), Reply::Promised);
    world.seen.requests.clear();
    let mut remembered = |later: u64, term: i64| {
        world.seen.settings.ttl = Duration::from_secs(3);
        let leader = world.cluster().leader.take().expect("b leads");
        (world.cluster().leader, world.cluster().revision) =
            (Some(LeaderKey { term: Term(term), ..leader }), term);
        world.later(later).tick();
        world.memory.store.keys.ttl
    };
    assert_eq!(remembered(10_000, 1000), Duration::from_secs(20), "b may count on it");
    assert_eq!(remembered(10_000, 2000), Duration::from_secs(3));
}

#[test]
fn a_supervisor_does_not_wait_where_all_members_are_standbys_or_the_key_is_absent() {
    let mut answered = world();
    nobody_leads(&mut answered);
    assert!(takes(&mut answered));
    let mut absent = world();
    absent.cluster().failsafe = None;
    absent.nobody_leads().receives_nothing();
    absent.tick();
    only_c_answers(&mut absent);
    assert!(takes(&mut absent));
}

/// Whether or not the mode is on by now: a leader without etcd may not know that it is off.
#[test]
fn a_member_that_the_key_does_not_name_does_not_lead() {
    for mode in [true, false] {
        let mut world = world();
        world.seen.settings.failsafe_mode = mode;
        world.cluster().failsafe = key("b c");
        world.nobody_leads().receives_nothing();
        assert_eq!(world.tick().because, Reason::NotInFailsafe);
        only_c_answers(&mut world);
        assert_eq!(world.tick().because, Reason::NotInFailsafe);
    }
}

/// A leader that goes on without etcd would be one of the members in the key.
#[test]
fn a_member_that_the_key_does_not_name_leads_when_all_that_it_names_are_standbys() {
    let mut world = world();
    world.cluster().failsafe = key("b c");
    nobody_leads(&mut world);
    assert!(takes(&mut world));
}

/// It is ahead, and the requested candidate, and will never lead.
#[test]
fn nobody_waits_for_a_member_that_the_key_does_not_name() {
    let mut world = world();
    world.cluster().failsafe = key("a b");
    world.cluster().failover = Some(FailoverKey {
        request: FailoverRequest { candidate: Some(name("c")), ..FailoverRequest::default() },
        mod_revision: 70,
    });
    nobody_leads(&mut world);
    world.answers("c", 2000);
    assert!(takes(&mut world));
}

#[test]
fn the_key_is_taken_only_while_failsafe_stays_as_it_was_read() {
    let mut world = world();
    nobody_leads(&mut world);
    let unlocked = world.cluster().revision;
    let by =
        TakeLeadershipPreconditions { sync: 0, unfenced: 0, failsafe: REVISION, unlocked, deposes: None };
    assert!(world.tick().actions.contains(&Action::Start(Job::TakeLeadership { by })));
}
