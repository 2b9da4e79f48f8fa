//! Recruiting: a leader that no member hears is replaced before its lease ends.

mod promises;
mod seclusion;
mod two_members;

use std::time::Duration;

use matriarch::model::{
    Action, Deposal, FailoverBy, Job, LeaderHearing, PeerAnswer, RecruitKey, RecruitWrite, RunningJob,
    StopMode, Suspicion, SyncKey, SyncMode, SyncRecord, TakeLeadershipPreconditions, Term,
};

use super::world::{World, name, primary, standby, up};

/// The term of leader b.
const TERM: Term = Term(50);
const ATTEMPT: i64 = 101;
const SYNC: i64 = 60;

/// Members a, c and, with `voters` 3, d are synchronous standbys of leader b; a commit waits for one of them.
fn world(quorum: usize) -> World {
    let mut world = World::new();
    world.seen.settings.failover = FailoverBy::Recruit;
    world.seen.settings.sync.mode = SyncMode::Quorum;
    let voters = [name("a"), name("c")].into();
    let record = SyncRecord { leader: Some(name("b")), quorum, voters };
    world.cluster().sync = Some(SyncKey { record, mod_revision: SYNC });
    world.seen.hearing = LeaderHearing::Heard { term: TERM };
    world.memory.failsafe.is_free = true;
    world.tick();
    world
}

/// A case, and what is different in it.
type Case<T> = (&'static str, fn(&mut T));

/// The leader has been silent for long enough, and its WAL has not advanced.
fn suspecting(quorum: usize) -> World {
    let mut world = world(quorum);
    world.seen.hearing = LeaderHearing::Silent { term: TERM, last: world.now };
    world.later(10).tick();
    world.later(100);
    world
}

fn says(world: &mut World, member: &str, change: impl Fn(&mut PeerAnswer)) {
    world.answers(member, 1000);
    change(world.seen.peers.get_mut(&name(member)).expect("it has just answered"));
}

fn record(world: &mut World) -> &mut SyncRecord {
    &mut world.cluster().sync.as_mut().expect("it is there").record
}

/// It was asked just now, and gave no answer.
fn no_answer(world: &mut World, member: &str) {
    let asked_at = world.now;
    world.seen.peers.insert(name(member), PeerAnswer::unreachable(asked_at, "refused".to_owned()));
}

fn suspects(answer: &mut PeerAnswer) {
    answer.suspicion = Suspicion::Suspects(TERM);
}

/// Member c has promised, durably, and receives nothing.
fn has_promised(answer: &mut PeerAnswer) {
    (answer.suspicion, answer.recruited) = (Suspicion::Suspects(TERM), Some(ATTEMPT));
}

fn writes(world: &mut World) -> Vec<RecruitWrite> {
    let written = |action| match action {
        Action::WriteRecruit(write) => Some(write),
        _other => None,
    };
    world.tick().actions.into_iter().filter_map(written).collect()
}

fn attempt_of(world: &mut World, candidate: &str) {
    let key = RecruitKey { candidate: name(candidate), term: TERM, attempt: ATTEMPT };
    (world.cluster().recruit, world.cluster().revision) = (Some(key), ATTEMPT);
}

/// I have promised, and PostgreSQL shows that it has left the leader.
fn promised(quorum: usize, candidate: &str) -> World {
    let mut world = suspecting(quorum);
    attempt_of(&mut world, candidate);
    world.tick();
    detached(world.later(20));
    world
}

fn detached(world: &mut World) {
    world.receives_nothing().seen.postgres.sql.as_mut().expect("it answers").is_detached = true;
}

fn deposes(world: &mut World) -> bool {
    let begins = |action: &Action| matches!(action, Action::Start(Job::TakeLeadership { .. }));
    world.tick().actions.iter().any(begins)
}

#[test]
fn an_attempt_begins_when_no_member_hears_the_leader() {
    let mut world = suspecting(1);
    assert_eq!(writes(&mut world), [], "nobody acts on its own silence");
    says(&mut world, "c", suspects);
    assert_eq!(writes(&mut world), [], "the leader may answer yet");
    no_answer(&mut world, "b");
    assert_eq!(writes(&mut world), [RecruitWrite::Begin { term: TERM, sync: SYNC, over: 0 }]);
    assert_eq!(writes(&mut world), [], "once");
}

/// In mode quorum with one voter, and in mode on, no other voter is needed: but one witness, where there is another
/// member.
#[test]
fn who_has_every_commit_needs_a_witness_only() {
    let mut world = suspecting(0);
    world.later(300);
    assert_eq!(writes(&mut world), [], "it may be I who is cut off");
    says(&mut world, "c", suspects);
    assert_eq!(writes(&mut world).len(), 1);
    let mut world = suspecting(0);
    world.cluster().members.remove(&name("c"));
    record(&mut world).voters = [name("a")].into();
    world.later(200);
    assert_eq!(writes(&mut world).len(), 1, "there is no other member");
}

/// A cut link gives no answer for a second: the leader has had the time to give one before.
#[test]
fn a_leader_that_says_nothing_is_not_waited_for_long() {
    let mut world = suspecting(1);
    for (millis, begun) in [(100, 0), (49, 0), (1, 1)] {
        world.later(millis);
        says(&mut world, "c", suspects);
        assert_eq!(writes(&mut world).len(), begun);
    }
}

#[test]
fn no_attempt_begins_while_somebody_hears_the_leader_or_something_bars_it() {
    let hears = |answer: &mut PeerAnswer| answer.suspicion = Suspicion::Hears(TERM);
    let cases: [Case<World>; 13] = [
        ("another standby hears it", |world| says(world, "c", |it| it.suspicion = Suspicion::Hears(TERM))),
        ("the leader answers", |world| says(world, "b", |it| it.in_recovery = false)),
        ("the other voter is ahead", |world| says(world, "c", |it| it.lsn.0 += 1)),
        ("the other voter is ahead and may not lead", |world| {
            says(world, "c", |it| {
                it.lsn.0 += 1;
                it.tags = serde_json::from_str(r#"{"nofailover": true}"#).expect("tags");
            });
        }),
        ("off", |world| world.seen.settings.failover = FailoverBy::Lease),
        ("pause", |world| world.seen.settings.pause = true),
        ("asynchronous", |world| world.cluster().sync = None),
        ("of another leader", |world| {
            record(world).leader = Some(name("c"));
        }),
        ("I am no voter", |world| {
            record(world).voters = [name("c"), name("d")].into();
        }),
        ("my operator forbids it", |world| {
            world.seen.me.tags = serde_json::from_str(r#"{"nofailover": true}"#).expect("tags");
        }),
        ("I end", |world| world.seen.shutting_down = true),
        ("heard again", |world| world.seen.hearing = LeaderHearing::Heard { term: TERM }),
        ("silent in another term", |world| {
            world.seen.hearing = LeaderHearing::Silent { term: Term(49), last: world.now };
        }),
    ];
    for (case, change) in cases {
        let mut world = suspecting(1);
        says(&mut world, "c", suspects);
        no_answer(&mut world, "b");
        change(&mut world);
        assert_eq!(writes(&mut world), [], "{case}");
    }
    let mut world = suspecting(0);
    says(&mut world, "c", hears);
    no_answer(&mut world, "b");
    assert_eq!(writes(&mut world), [], "although its word is not needed");
}

#[test]
fn wal_that_arrives_is_a_sign_of_life() {
    let mut world = suspecting(0);
    world.postgres(up(standby(1001)));
    for (millis, begun) in [(0, 0), (50, 0), (60, 1)] {
        world.later(millis);
        says(&mut world, "c", suspects);
        no_answer(&mut world, "b");
        assert_eq!(writes(&mut world).len(), begun);
    }
}

#[test]
fn who_suspects_the_leader_promises_and_leaves_it() {
    let mut world = suspecting(1);
    attempt_of(&mut world, "c");
    let actions = world.tick().actions;
    assert!(actions.contains(&Action::Follow(None)), "{actions:?}");
    world.receives_nothing();
    assert_eq!(world.memory.recruited(&world.seen), None, "its receiver may be between two tries");
    detached(&mut world);
    assert_eq!(world.memory.recruited(&world.seen), Some(ATTEMPT));
}

#[test]
fn who_hears_the_leader_promises_nothing() {
    let mut world = world(1);
    attempt_of(&mut world, "c");
    world.later(200);
    let actions = world.tick().actions;
    assert!(!actions.iter().any(|it| matches!(it, Action::Follow(None))));
}

#[test]
fn a_leader_is_deposed_by_enough_promises() {
    let mut world = promised(1, "a");
    assert!(!deposes(&mut world), "member c has not promised");
    says(&mut world, "c", suspects);
    assert!(!deposes(&mut world));
    says(&mut world, "c", has_promised);
    let by = world.tick().actions.into_iter().find_map(|action| match action {
        Action::Start(Job::TakeLeadership { by }) => Some(by),
        _other => None,
    });
    let deposes = Some(Deposal { term: TERM, attempt: ATTEMPT });
    let expected =
        TakeLeadershipPreconditions { sync: SYNC, unfenced: 0, failsafe: 0, unlocked: ATTEMPT, deposes };
    assert_eq!(by, Some(expected));
}

#[test]
fn a_promise_counts_only_whole() {
    let cases: [Case<PeerAnswer>; 6] = [
        ("of another attempt", |it| it.recruited = Some(ATTEMPT - 1)),
        ("still receiving", |it| it.receives = true),
        ("of unknown position", |it| it.exact = false),
        ("ahead of me", |it| it.lsn.0 += 1),
        ("silent", |it| it.reachable = false),
        ("on an unknown timeline", |it| it.timeline = None),
    ];
    for (case, change) in cases {
        let mut world = promised(1, "a");
        says(&mut world, "c", has_promised);
        change(world.seen.peers.get_mut(&name("c")).expect("it has answered"));
        assert!(!deposes(&mut world), "{case}");
    }
    let mut world = promised(1, "a");
    says(&mut world, "c", has_promised);
    world.seen.postgres.sql.as_mut().expect("it answers").is_detached = false;
    assert!(!deposes(&mut world), "I have not left it");
    let mut world = promised(2, "a");
    says(&mut world, "c", has_promised);
    let (key, answer) = (world.cluster().members[&name("c")].clone(), world.seen.peers[&name("c")].clone());
    world.cluster().members.insert(name("C"), key);
    world.seen.peers.insert(name("C"), answer);
    assert!(!deposes(&mut world), "one voter with two spellings");
    let mut world = promised(1, "a");
    says(&mut world, "b", has_promised);
    assert!(!deposes(&mut world), "the leader's own does not count");
    let mut world = promised(1, "a");
    world.postgres(up(standby(1000)));
    says(&mut world, "c", has_promised);
    assert!(!deposes(&mut world), "I still receive");
}

#[test]
fn an_attempt_that_is_over_binds_nobody() {
    for end in 0..3 {
        let mut world = promised(1, "c");
        world.tick();
        match end {
            0 => world.cluster().recruit = None,
            1 => world.cluster().recruit.as_mut().expect("it is there").attempt += 1,
            _ => world.cluster().leader.as_mut().expect("it leads").term = Term(ATTEMPT + 1),
        }
        world.seen.hearing = LeaderHearing::Unknown;
        world.tick();
        assert_eq!(world.memory.recruit.promise, None);
        world.later(10).tells("b", super::attach::branch(&[], 1, None));
        let follows = |action: &Action| matches!(action, Action::Follow(Some(_)));
        assert!(world.tick().actions.iter().any(follows), "case {end}");
    }
}

#[test]
fn an_attempt_is_withdrawn_when_it_lasts_or_the_leader_is_heard() {
    let withdraw = [RecruitWrite::Withdraw { attempt: ATTEMPT }];
    for candidate in ["a", "c"] {
        let mut world = promised(1, candidate);
        assert_eq!(writes(&mut world), []);
        world.later(3_000);
        assert_eq!(writes(&mut world), withdraw, "its candidate may be frozen");
        let mut world = promised(1, candidate);
        world.seen.hearing = LeaderHearing::Heard { term: TERM };
        assert_eq!(writes(&mut world), withdraw);
    }
}

#[test]
fn an_attempt_that_failed_is_not_repeated_at_once() {
    let mut world = promised(1, "a");
    // Another member has withdrawn it.
    world.tick();
    world.cluster().recruit = None;
    for _ in 0..7 {
        world.later(200);
        says(&mut world, "c", suspects);
        no_answer(&mut world, "b");
        assert_eq!(writes(&mut world), []);
    }
    world.later(800);
    says(&mut world, "c", suspects);
    no_answer(&mut world, "b");
    assert_eq!(writes(&mut world), [RecruitWrite::Begin { term: TERM, sync: SYNC, over: 0 }]);
}

/// It hangs on the lease of a member that goes on.
#[test]
fn an_attempt_to_replace_a_former_leader_is_in_nobodys_way() {
    let mut world = suspecting(1);
    attempt_of(&mut world, "c");
    world.cluster().recruit.as_mut().expect("it is there").term = Term(40);
    says(&mut world, "c", suspects);
    no_answer(&mut world, "b");
    assert_eq!(writes(&mut world), [RecruitWrite::Begin { term: TERM, sync: SYNC, over: ATTEMPT }]);
}

/// The leader may be heard again while promises are gathered.
#[test]
fn a_leader_that_answers_is_not_deposed() {
    for member in ["b", "c"] {
        let mut world = promised(1, "a");
        says(&mut world, "c", has_promised);
        says(&mut world, member, |it| it.suspicion = Suspicion::Hears(TERM));
        assert_eq!(writes(&mut world), [RecruitWrite::Withdraw { attempt: ATTEMPT }], "{member}");
    }
}

/// A write that came late, or a supervisor that forgot why it began.
#[test]
fn an_attempt_of_mine_that_i_do_not_pursue_is_withdrawn() {
    let mut world = world(1);
    attempt_of(&mut world, "a");
    assert_eq!(writes(&mut world), [RecruitWrite::Withdraw { attempt: ATTEMPT }]);
}

/// Its supervisor was away while another member replaced it, led, and is gone again. Its PostgreSQL still runs, because
/// its deadline has not come, and lacks what the other has acknowledged.
#[test]
fn a_former_leader_that_still_runs_takes_nothing_back() {
    let stop = Job::Stop { mode: StopMode::Immediate, within: Duration::from_millis(500) };
    for job in [None, Some(stop)] {
        let mut world = world(1);
        world.nobody_leads().postgres(up(primary(1000)));
        world.seen.job = job.clone().map(|job| RunningJob { job, since: world.now });
        let actions = world.tick().actions;
        let takes = |action: &Action| matches!(action, Action::Start(Job::TakeLeadership { .. }));
        assert!(!actions.iter().any(takes), "{actions:?}");
        let stops = |action: &Action| matches!(action, Action::Start(Job::Stop { .. }));
        assert_eq!(actions.iter().any(stops), job.is_none());
    }
}
