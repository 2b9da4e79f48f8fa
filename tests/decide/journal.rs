//! Five failovers as `matriarch why` and `matriarch explain` tell them: each through the real decisions of the old and
//! the new leader, and read by a stranger.

use std::collections::BTreeMap;
use std::time::Duration;

use matriarch::cli::explain::{self, now::ClusterNow};
use matriarch::cli::why;
use matriarch::core::journal::Journal;
use matriarch::decide::{Decision, decide};
use matriarch::model::{
    Action, ControlState, Death, FailoverKey, FailoverRequest, Finished, Job, JobKind, JournalEntry,
    JournalRecord, LeaderHearing, LeaderKey, Leading, LeaseTiming, Lsn, Outcome, PostgresFacts, Reason,
    SyncKey, SyncMode, SyncRecord, Term, TermEnd, Timeline, WallTime,
};
use serde_json::json;

use super::world::{MY_LEASE, START, THEIR_LEASE, World, control, dead, down, name, primary, standby, up};

/// The loop, and the journal beside it.
struct Story {
    world: World,
    journal: Journal,
    wake_by: matriarch::model::Moment,
    records: Vec<JournalRecord>,
}

impl Story {
    /// Member `m2`, a standby that hears its leader `m1`.
    fn of_standby() -> Story {
        let mut world = renamed(World::new());
        world.seen.hearing = LeaderHearing::Heard { term: Term(50) };
        Story::of(world)
    }

    /// Member `m1`, which leads.
    fn of_leader() -> Story {
        let mut world = renamed(World::new());
        world.seen.me.name = name("m1");
        world.seen.lease.lease = Some(THEIR_LEASE);
        world.seen.lease.leading = Leading::Yes(Term(50));
        world.postgres(serving(1000));
        Story::of(world)
    }

    fn of(mut world: World) -> Story {
        world.seen.writes.done_at = None;
        let mut story = Story { world, journal: Journal::default(), wake_by: START, records: Vec::new() };
        story.renewed().after(0);
        story.records.clear();
        story
    }

    /// The lease has just been renewed.
    fn renewed(&mut self) -> &mut Story {
        let timing = LeaseTiming { ttl: self.world.seen.lease.ttl };
        self.world.seen.lease.deadline = Some(timing.deadline(self.world.now));
        self
    }

    /// Time passes, and the loop wakes as it was to.
    fn idle(&mut self, millis: u64) -> &mut Story {
        let until = self.world.now + Duration::from_millis(millis);
        while self.wake_by < until {
            let span = self.wake_by.since(self.world.now).max(Duration::from_millis(1));
            self.after(u64::try_from(span.as_millis()).expect("short"));
        }
        self.world.now = until;
        self
    }

    /// So much later, the next tick.
    fn after(&mut self, millis: u64) -> Decision {
        let world = &mut self.world;
        world.now = world.now + Duration::from_millis(millis);
        let wall = 1_795_384_347_000 + i64::try_from(world.now.since(START).as_millis()).expect("short");
        world.seen.wall = WallTime(wall);
        world.seen.writes.done_at = Some(world.now);
        let decision = decide(&world.memory, &world.seen, world.now);
        self.records.extend(self.journal.note(&world.seen, &decision, self.wake_by, world.now));
        self.wake_by = decision.wake.0;
        world.memory = decision.memory.clone();
        world.seen.finished.clear();
        decision
    }

    fn ends(&mut self, job: JobKind) -> &mut Story {
        self.world.seen.finished.push(Finished { job, outcome: Outcome::Done });
        self.world.seen.writing = None;
        self
    }

    /// `members` answer with these positions.
    fn answered(&mut self, members: [(&str, u64); 2]) -> &mut Story {
        for (member, lsn) in members {
            self.world.answers(member, lsn);
        }
        self
    }

    fn postgres(&mut self, postgres: PostgresFacts) -> &mut Story {
        self.world.postgres(postgres);
        self
    }

    /// The leader and its key are gone; `member` too: its lease has ended.
    fn key_goes(&mut self, with_member: bool) -> &mut Story {
        let cluster = self.world.nobody_leads().cluster();
        cluster.revision += 1;
        if with_member {
            cluster.members.remove(&name("m1"));
        }
        self.world.seen.hearing = LeaderHearing::Unknown;
        self
    }

    /// This member's lease has the leader key.
    fn leads(&mut self, term: i64) -> &mut Story {
        let key = LeaderKey { name: name("m2"), lease: Some(MY_LEASE), term: Term(term) };
        self.world.cluster().leader = Some(key);
        self.world.cluster().revision = term;
        self.world.seen.lease.leading = Leading::Yes(Term(term));
        self.renewed()
    }

    /// Takes the vacant key, promotes PostgreSQL, and serves.
    fn wins(&mut self, term: i64, lsn: u64) {
        self.world.receives_nothing();
        let taken = self.after(20);
        assert!(takes(&taken), "{:?}", taken.because);
        self.ends(JobKind::TakeLeadership).leads(term).after(10);
        self.is_promoted(lsn);
    }

    fn is_promoted(&mut self, lsn: u64) {
        let mut sql = primary(lsn);
        sql.timeline = Some(Timeline(2));
        self.ends(JobKind::Promote).postgres(up(sql)).after(80);
    }
}

/// The members `b`, `a` and `c` under the names that operators give them.
fn renamed(mut world: World) -> World {
    let better = |text: &str| match text {
        "b" => name("m1"),
        "a" => name("m2"),
        _ => name("m3"),
    };
    let cluster = world.cluster();
    let members = std::mem::take(&mut cluster.members).into_iter();
    cluster.members = members.map(|(old, key)| (better(old.as_str()), key)).collect();
    cluster.leader.as_mut().expect("b leads").name = name("m1");
    world.seen.me.name = name("m2");
    world
}

/// A primary from which `m2` and `m3` stream.
fn serving(lsn: u64) -> PostgresFacts {
    let mut sql = primary(lsn);
    for (walsender, member) in sql.sync.walsenders.iter_mut().zip(["m2", "m3"]) {
        member.clone_into(&mut walsender.name);
    }
    up(sql)
}

fn takes(decision: &Decision) -> bool {
    decision.actions.iter().any(|action| matches!(action, Action::Start(Job::TakeLeadership { .. })))
}

/// The last change of these records, as `why` shows it; each record as etcd returns it.
fn told(stories: [&Story; 2]) -> String {
    let records = stories.into_iter().flat_map(|story| &story.records);
    let mut kept: BTreeMap<String, JournalRecord> = BTreeMap::new();
    for record in records {
        let read = serde_json::from_str(&record.text()).expect("its own text");
        kept.entry(record.key()).or_insert(read);
    }
    let records: Vec<_> = kept.into_values().collect();
    let all = matriarch::why::changes(&records);
    let text = why::text(all.last().expect("a change"), None);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "wider than 80 columns:\n{text}");
    text.replace(env!("CARGO_PKG_VERSION"), "VERSION")
}

fn assert_told(story: &str, text: String) {
    insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!(story, text);
    });
}

/// The disk of the leader takes no writes. It stops PostgreSQL and releases the key.
#[test]
fn a_frozen_disk() {
    let (mut old, mut new) = (Story::of_leader(), Story::of_standby());
    old.idle(5000);
    old.postgres(dead(Death::NoWrite {
        within: Duration::from_secs(5),
        trouble: "the write took longer than 2.5 s".to_owned(),
    }));
    old.renewed().after(20);
    old.answered([("m2", 1000), ("m3", 1000)]).after(20);
    old.ends(JobKind::Stop).postgres(down(ControlState::InProduction)).after(300);
    old.answered([("m2", 1000), ("m3", 1000)]).after(20);
    old.ends(JobKind::ReleaseLeadership).after(15);

    new.idle(5300).key_goes(false).renewed().after(80);
    new.answered([("m1", 0), ("m3", 900)]);
    let silent = new.world.seen.peers.get_mut(&name("m1")).expect("just added");
    (silent.reachable, silent.trouble) = (false, Some("its Postgres does not answer".to_owned()));
    new.wins(161, 1000);
    assert_told("why_frozen_disk", told([&old, &new]));
}

/// The network between the leader and etcd is cut. It stops itself before its lease ends, and says so later.
#[test]
fn a_partition() {
    let (mut old, mut new) = (Story::of_leader(), Story::of_standby());
    old.world.seen.lease.trouble = Some("no endpoint answered within 2 s".to_owned());
    for _ in 0..3 {
        old.idle(2960).after(10);
    }
    old.ends(JobKind::Stop).postgres(down(ControlState::ShutDown)).after(400);
    let key = LeaderKey { name: name("m2"), lease: Some(MY_LEASE), term: Term(161) };
    old.world.cluster().leader = Some(key);
    old.world.cluster().revision = 170;
    (old.world.seen.lease.trouble, old.world.seen.lease.leading) = (None, Leading::No);
    old.idle(20_000).after(100);

    new.world.seen.hearing =
        LeaderHearing::Silent { term: Term(50), last: START + Duration::from_millis(200) };
    new.renewed().after(1000);
    new.idle(8000).key_goes(true).renewed().after(900);
    new.answered([("m3", 1000), ("m3", 1000)]);
    new.wins(161, 1000);
    assert_told("why_partition", told([&old, &new]));
}

/// PostgreSQL of the leader crashes, is started again, and crashes again.
#[test]
fn a_crash_loop() {
    let (mut old, mut new) = (Story::of_leader(), Story::of_standby());
    for _ in 0..2 {
        old.idle(4000).postgres(down(ControlState::InProduction)).renewed().after(10);
        old.ends(JobKind::StartPrimary).postgres(serving(1000)).after(700);
    }
    old.idle(4000).postgres(down(ControlState::InProduction)).renewed().after(10);
    old.answered([("m2", 1000), ("m3", 1000)]).after(20);
    old.ends(JobKind::ReleaseLeadership).after(15);

    new.world.cluster().members.get_mut(&name("m1")).expect("there").record.state =
        matriarch::model::MemberState::Crashed;
    new.renewed().idle(13_400).key_goes(false).renewed().after(740);
    new.answered([("m1", 0), ("m3", 1000)]);
    let silent = new.world.seen.peers.get_mut(&name("m1")).expect("just added");
    (silent.reachable, silent.trouble) = (false, Some("its Postgres does not answer".to_owned()));
    new.wins(161, 1000);
    assert_told("why_crash_loop", told([&old, &new]));
}

/// An operator moves the leadership.
#[test]
fn a_switchover() {
    let (mut old, mut new) = (Story::of_leader(), Story::of_standby());
    let request = FailoverRequest {
        leader: Some(name("m1")),
        candidate: Some(name("m2")),
        ..FailoverRequest::default()
    };
    let key = FailoverKey { request, mod_revision: 99 };
    for story in [&mut old, &mut new] {
        story.world.cluster().failover = Some(key.clone());
    }
    old.renewed().after(1000);
    old.answered([("m2", 1000), ("m3", 1000)]).after(15);
    old.ends(JobKind::Checkpoint).after(60);
    let mut stopped = down(ControlState::ShutDown);
    stopped.data = matriarch::model::DataDirectory::Ready(matriarch::model::ControlFile {
        checkpoint: Lsn(1000),
        ..control(ControlState::ShutDown)
    });
    old.ends(JobKind::Stop).postgres(stopped).after(90);
    old.answered([("m2", 1120), ("m3", 1120)]).after(15);
    old.ends(JobKind::HandOver).after(10);

    new.renewed().after(1000);
    new.world.postgres(up(standby(1120)));
    new.leads(161).after(185);
    new.is_promoted(1200);
    assert_told("why_switchover", told([&old, &new]));
}

/// Quorum replication. Leader and one voter are lost for good: nobody may lead, until an operator accepts the loss.
#[test]
fn a_lost_quorum() {
    let mut new = Story::of_standby();
    let record = SyncRecord {
        leader: Some(name("m1")),
        quorum: 1,
        voters: [name("m2"), name("m3")].into_iter().collect(),
    };
    new.world.seen.settings.sync.mode = SyncMode::Quorum;
    let text = json!({ "synchronous_mode": "quorum" }).to_string();
    new.world.cluster().config.as_mut().expect("set").text = text;
    new.world.cluster().sync = Some(SyncKey { record, mod_revision: 101 });
    new.world.cluster().revision = 101;
    new.world.cluster().members.remove(&name("m3"));
    new.renewed().after(1000);
    new.idle(9000).key_goes(true).renewed().after(40);
    new.world.receives_nothing();
    let waits = new.after(20);
    assert!(!takes(&waits), "{:?}", waits.because);

    let answer = json!({
        "state": "running", "role": "replica", "xlog": { "received_location": 1000, "replayed_location": 1000 },
        "because": waits.because.to_string(),
    });
    let now = ClusterNow {
        scope: "herd".to_owned(),
        view: new.world.cluster().clone(),
        answers: BTreeMap::from([(name("m2"), Some(answer))]),
        lease: None,
        is_full: false,
        last: Some("switchover: m3 handed the leadership over to m1, at 2026-11-22 20:00:00 UTC".to_owned()),
    };
    let text = explain::text(&now);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "wider than 80 columns:\n{text}");
    assert_told("explain_lost_quorum", text);

    let request = FailoverRequest { candidate: Some(name("m2")), ..FailoverRequest::default() };
    new.world.cluster().failover = Some(FailoverKey { request, mod_revision: 102 });
    new.world.cluster().status.as_mut().expect("set").optime = Some(Lsn(1500));
    new.renewed();
    new.idle(60_000).after(10);
    new.ends(JobKind::TakeLeadership).leads(210).after(10);
    new.is_promoted(1000);
    let nothing = Story::of_leader();
    assert_told("why_lost_quorum", told([&nothing, &new]));
}

/// The key is moved to another lease, and a hand-over is refused: neither is a change of leadership.
#[test]
fn a_term_that_goes_on_is_no_change() {
    let mut story = Story::of_leader();
    story.world.cluster().leader =
        Some(LeaderKey { name: name("m1"), lease: Some(THEIR_LEASE), term: Term(177) });
    story.world.cluster().revision = 220;
    story.world.seen.lease.leading = Leading::Yes(Term(177));
    story.renewed().after(1000);
    story.renewed().after(1000);
    assert_eq!(story.records, []);

    let request = FailoverRequest {
        leader: Some(name("m1")),
        candidate: Some(name("m2")),
        ..FailoverRequest::default()
    };
    story.world.cluster().failover = Some(FailoverKey { request, mod_revision: 219 });
    story.renewed().after(1000);
    story.answered([("m2", 1000), ("m3", 1000)]);
    story.world.seen.peers.get_mut(&name("m2")).expect("there").reachable = false;
    let decided = story.after(15);
    story.after(1000);
    assert!(matches!(decided.because, Reason::HandOverRefused(_)), "{:?}", decided.because);
    let refused: Vec<_> = story
        .records
        .iter()
        .map(|record| match &record.entry {
            JournalEntry::Refused { why, .. } => (record.term, why.as_str()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(refused, [(Term(177), "m2 does not answer: no reason known")]);
}

/// etcd shows the new leader before the answer to the hand-over arrives: it is a hand-over all the same.
#[test]
fn a_hand_over_whose_answer_comes_late_is_one() {
    let mut story = Story::of_leader();
    story.world.seen.shutting_down = true;
    story.renewed().after(1000);
    story.answered([("m2", 1000), ("m3", 1000)]).after(15);
    story.ends(JobKind::Checkpoint).after(60);
    story.ends(JobKind::Stop).postgres(down(ControlState::ShutDown)).after(90);
    let moves = story.answered([("m2", 1120), ("m3", 1120)]).after(15);
    assert!(moves.actions.iter().any(|action| matches!(action, Action::Start(Job::HandOver { .. }))));
    let key = LeaderKey { name: name("m3"), lease: Some(MY_LEASE), term: Term(161) };
    story.world.cluster().leader = Some(key);
    story.world.cluster().revision = 161;
    story.after(10);
    story.ends(JobKind::HandOver).after(10);
    let ends: Vec<_> = story
        .records
        .iter()
        .map(|record| match &record.entry {
            JournalEntry::Ended(ended) => (record.term, ended.how.clone(), ended.seen.len()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ends, [(Term(50), TermEnd::HandedOver { to: name("m3") }, 1)]);
}
