//! A member with a driver that answers from a list.

use super::*;
use crate::model::{
    Action, LeaseFacts, LivenessFacts, OwnAccess, Process, Session, Settings, SyncOwner, Tags, WallTime,
    WriteFacts,
};

fn me() -> Me {
    Me {
        name: MemberName::new("a").expect("a valid name"),
        scope: "test".to_owned(),
        session: Session::default(),
        tags: Tags::default(),
        conn_url: "postgres://a:5432/postgres".to_owned(),
        api_url: "http://a:8008/patroni".to_owned(),
        proxy_url: None,
        may_bootstrap: true,
        wait_for_members: Duration::ZERO,
    }
}

fn levels(process: Process) -> Levels {
    Levels {
        settings: Settings::default(),
        view: None,
        lease: LeaseFacts::default(),
        process,
        liveness: LivenessFacts::default(),
        sync_owner: SyncOwner::default(),
        gated: false,
        access: OwnAccess::default(),
        writes: WriteFacts::default(),
        clone_progress: None,
        shutting_down: false,
        watchdog_failed: false,
        pod_end: None,
        pod_trouble: None,
        wall: WallTime(0),
    }
}

fn down() -> Process {
    Process::default()
}

fn up(pid: i32) -> Process {
    Process::Up { pid, since: Moment::default(), standby_start: true }
}

fn silent() -> Event {
    let trouble = PostgresTrouble { why: "no answer".to_owned(), turned_away: false };
    Event::PostgresAnswered(AskedPostgres { sql: Err(trouble), pending_restart: None, unsynchronous: None })
}

/// From an event to the decision: what was asked for on the way.
fn look(member: &mut Member, event: Event, process: &Process, now: Moment) -> Vec<&'static str> {
    let mut asked = Vec::new();
    let mut events = vec![event];
    loop {
        match member.handle(std::mem::take(&mut events), process, now) {
            Next::Ask(Question::Prepare) => {
                asked.push("prepare");
                events.push(Event::Prepared { changed: false });
            }
            Next::Ask(Question::AskPostgres { .. }) => {
                asked.push("ask");
                events.push(silent());
            }
            Next::Ask(Question::ReadDataDirectory) => {
                asked.push("read");
                events.push(Event::DataDirectoryRead(None));
            }
            Next::Decide => return asked,
            Next::Await => panic!("every question was answered"),
        }
    }
}

#[test]
fn a_postgres_that_is_down_is_not_asked() {
    let mut member = Member::new(me(), Memory::default());
    let now = Moment::from_millis(1_000);
    assert_eq!(look(&mut member, Event::Woke, &down(), now), ["prepare", "read"]);
    assert_eq!(look(&mut member, Event::Woke, &up(7), now), ["prepare", "ask", "read"]);
}

#[test]
fn a_burst_of_events_is_one_question_and_a_wanted_look_is_another() {
    let mut member = Member::new(me(), Memory::default());
    let now = Moment::from_millis(1_000);
    look(&mut member, Event::Woke, &up(7), now);
    member.decide(&levels(up(7)), now);
    assert!(!look(&mut member, Event::LevelChanged, &up(7), now).contains(&"ask"));
    member.decide(&levels(up(7)), now);
    assert!(look(&mut member, Event::LookWanted, &up(7), now).contains(&"ask"));
}

/// A look that was wanted is over with the decision: the member does not wake again and again.
#[test]
fn a_wanted_look_at_a_postgres_that_is_down_ends() {
    let mut member = Member::new(me(), Memory::default());
    let now = Moment::from_millis(1_000);
    look(&mut member, Event::LookWanted, &down(), now);
    let decided = member.decide(&levels(down()), now);
    assert!(now < decided.wake_at, "{decided:?}");
}

/// While the answer was on its way the postmaster was replaced: what the former one said does not count.
#[test]
fn another_postmaster_is_looked_at_at_once() {
    let mut member = Member::new(me(), Memory::default());
    let now = Moment::from_millis(1_000);
    look(&mut member, Event::Woke, &up(7), now);
    assert_eq!(member.decide(&levels(up(8)), now).wake_at, now);
    assert!(look(&mut member, Event::Woke, &up(8), now).contains(&"ask"));
}

/// A second job of a lane is never started.
#[test]
fn one_long_action_runs_at_a_time() {
    let mut lanes = Lanes::default();
    let start = |job| Action::Start(job);
    let now = Moment::from_millis(1_000);
    assert!(matches!(lanes.admit(start(Job::Checkpoint), now), Effect::Act(_)));
    let second = lanes.admit(start(Job::CrashRecovery), now);
    assert!(matches!(second, Effect::Say(Notice::TwoJobs { .. })), "{second:?}");
    let beside = lanes.admit(start(Job::ReclaimLeadership { term: crate::model::Term(1) }), now);
    assert!(matches!(beside, Effect::Act(_)), "the leader key is written beside it");
    lanes.finished(JobKind::Checkpoint);
    assert!(matches!(lanes.admit(start(Job::CrashRecovery), now), Effect::Act(_)));
}
