//! A member with a driver that answers from a list.

use super::look::PENDING_PATIENCE;
use super::*;
use crate::model::{Action, Death, Process, SessionId, Tags};

fn me() -> Me {
    Me {
        name: MemberName::new("a").expect("a valid name"),
        scope: "test".to_owned(),
        session: SessionId::default(),
        tags: Tags::default(),
        conn_url: "postgres://a:5432/postgres".to_owned(),
        api_url: "http://a:8008/patroni".to_owned(),
        proxy_url: None,
        may_bootstrap: true,
        wait_for_members: Duration::ZERO,
        scripts: Default::default(),
    }
}

const ALIVE: LivenessVerdict = LivenessVerdict::Alive;

fn levels(process: Process) -> Levels {
    Levels { process, ..Levels::default() }
}

fn down() -> Process {
    Process::default()
}

fn up(pid: i32) -> Process {
    Process::Up { pid, since: Moment::default(), standby_start: true }
}

fn silent() -> LookAnswer {
    refusing("no answer")
}

fn refusing(why: &str) -> LookAnswer {
    LookAnswer::PostgresAnswered(Box::new(AskedPostgres::silent(why.to_owned())))
}

/// Handles an event, answers all questions before the one to PostgreSQL, and returns the look of that one.
fn asking(member: &mut Member, event: MemberEvent, process: &Process, now: Moment) -> LookId {
    let MemberNext::Ask(look, Question::Prepare) = member.handle([event], process, &ALIVE, now) else {
        panic!("a look begins")
    };
    let prepared = MemberEvent::Answered(look, LookAnswer::Prepared { changed: false });
    let asked = member.handle([prepared], process, &ALIVE, now);
    assert!(
        matches!(asked, MemberNext::Ask(same, Question::AskPostgres { .. }) if same == look),
        "{asked:?}"
    );
    look
}

/// From the answer to the decision.
fn decided_on(
    member: &mut Member,
    look: LookId,
    answer: LookAnswer,
    process: &Process,
    now: Moment,
) -> Decided {
    let next = member.handle([MemberEvent::Answered(look, answer)], process, &ALIVE, now);
    assert_eq!(next, MemberNext::Ask(look, Question::ReadDataDirectory));
    let read = MemberEvent::Answered(look, LookAnswer::DataDirectoryRead(None));
    assert_eq!(member.handle([read], process, &ALIVE, now), MemberNext::Decide);
    member.decide(&levels(process.clone()), now)
}

fn trouble(decided: &Decided) -> &str {
    decided.seen.postgres.sql_trouble.as_deref().unwrap_or_default()
}

/// From an event to the decision: the questions on the way.
fn look(member: &mut Member, event: MemberEvent, process: &Process, now: Moment) -> Vec<&'static str> {
    let mut asked = Vec::new();
    let mut events = vec![event];
    loop {
        match member.handle(std::mem::take(&mut events), process, &ALIVE, now) {
            MemberNext::Ask(look, Question::Prepare) => {
                asked.push("prepare");
                events.push(MemberEvent::Answered(look, LookAnswer::Prepared { changed: false }));
            }
            MemberNext::Ask(look, Question::AskPostgres { .. }) => {
                asked.push("ask");
                events.push(MemberEvent::Answered(look, silent()));
            }
            MemberNext::Ask(look, Question::ReadDataDirectory) => {
                asked.push("read");
                events.push(MemberEvent::Answered(look, LookAnswer::DataDirectoryRead(None)));
            }
            MemberNext::Decide => return asked,
            MemberNext::Await { .. } => panic!("every question was answered"),
        }
    }
}

#[test]
fn a_postgres_that_is_down_is_not_asked() {
    let mut member = Member::new(me(), Memory::default());
    let now = Moment::from_millis(1_000);
    assert_eq!(look(&mut member, MemberEvent::Woke, &down(), now), ["prepare", "read"]);
    assert_eq!(look(&mut member, MemberEvent::Woke, &up(7), now), ["prepare", "ask", "read"]);
}

#[test]
fn a_burst_of_events_needs_one_query_and_a_wanted_look_another() {
    let mut member = Member::new(me(), Memory::default());
    let now = Moment::from_millis(1_000);
    look(&mut member, MemberEvent::Woke, &up(7), now);
    member.decide(&levels(up(7)), now);
    assert!(!look(&mut member, MemberEvent::LevelChanged, &up(7), now).contains(&"ask"));
    member.decide(&levels(up(7)), now);
    assert!(look(&mut member, MemberEvent::LookWanted, &up(7), now).contains(&"ask"));
}

/// A requested look ends with the decision: the member does not wake again and again.
#[test]
fn a_wanted_look_at_a_postgres_that_is_down_ends() {
    let mut member = Member::new(me(), Memory::default());
    let now = Moment::from_millis(1_000);
    look(&mut member, MemberEvent::LookWanted, &down(), now);
    let decided = member.decide(&levels(down()), now);
    assert!(now < decided.wake_at, "{decided:?}");
}

/// The postmaster was replaced while the answer was under way: the former one's answer does not count.
#[test]
fn a_new_postmaster_is_queried_at_once() {
    let mut member = Member::new(me(), Memory::default());
    let now = Moment::from_millis(1_000);
    look(&mut member, MemberEvent::Woke, &up(7), now);
    assert_eq!(member.decide(&levels(up(8)), now).wake_at, now);
    assert!(look(&mut member, MemberEvent::Woke, &up(8), now).contains(&"ask"));
}

/// PostgreSQL hangs: decisions are made all the same, as if it did not answer, until it does.
#[test]
fn a_hanging_look_delays_no_decision() {
    let mut member = Member::new(me(), Memory::default());
    let begun_at = Moment::from_millis(1_000);
    let look = asking(&mut member, MemberEvent::Woke, &up(7), begun_at);
    // The first look makes the less urgent queries as well.
    let late = begun_at + LOOK_PATIENCE + PENDING_PATIENCE;
    let patient = MemberNext::Await { until: late };
    assert_eq!(member.handle([MemberEvent::LevelChanged], &up(7), &ALIVE, begun_at), patient);
    assert_eq!(member.handle([], &up(7), &ALIVE, late), MemberNext::Decide);
    let decided = member.decide(&levels(up(7)), late);
    assert_eq!(trouble(&decided), "it has not answered yet");
    assert!(late < decided.wake_at, "no decision is made again and again: {decided:?}");
    assert_eq!(member.handle([], &up(7), &ALIVE, late), MemberNext::Await { until: decided.wake_at });
    let later = late + Duration::from_millis(1);
    assert_eq!(member.handle([MemberEvent::LevelChanged], &up(7), &ALIVE, later), MemberNext::Decide);
    assert_eq!(trouble(&member.decide(&levels(up(7)), later)), "it has not answered yet");
    assert_eq!(trouble(&decided_on(&mut member, look, refusing("it is full"), &up(7), late)), "it is full");
}

/// PostgreSQL is stopped: nobody waits for its answer.
#[test]
fn no_decision_waits_for_a_postgres_that_is_stopped() {
    let mut member = Member::new(me(), Memory::default());
    let now = Moment::from_millis(1_000);
    asking(&mut member, MemberEvent::Woke, &up(7), now);
    let within = Duration::from_secs(5);
    let one = Death::Stopped { process: "checkpointer".to_owned(), within };
    for (verdict, waits) in [
        (ALIVE, true),
        (LivenessVerdict::Dead(one), true),
        (LivenessVerdict::Dead(Death::StoppedWhole { within }), false),
    ] {
        let next = member.handle([MemberEvent::LevelChanged], &up(7), &verdict, now);
        assert_eq!(next != MemberNext::Decide, waits, "{verdict:?}");
    }
    assert_eq!(trouble(&member.decide(&levels(up(7)), now)), "it has not answered yet");
}

/// The answer of a replaced postmaster comes after the question to the new one, even if both have the same process id.
#[test]
fn a_late_answer_of_a_former_postmaster_does_not_count() {
    let mut member = Member::new(me(), Memory::default());
    let now = Moment::from_millis(1_000);
    let again = Process::Up { pid: 7, since: now, standby_start: true };
    let former = asking(&mut member, MemberEvent::Woke, &up(7), now);
    let present = asking(&mut member, MemberEvent::LevelChanged, &again, now);
    let late = MemberEvent::Answered(former, refusing("the former one"));
    assert!(
        matches!(member.handle([late], &again, &ALIVE, now), MemberNext::Await { .. }),
        "nothing was answered"
    );
    assert_eq!(
        trouble(&decided_on(&mut member, present, refusing("the present one"), &again, now)),
        "the present one"
    );
}

/// A look that began before the end of a long action may show the state before: it is made again.
#[test]
fn the_end_of_a_job_needs_a_new_look() {
    let mut member = Member::new(me(), Memory::default());
    let now = Moment::from_millis(1_000);
    let before = asking(&mut member, MemberEvent::Woke, &up(7), now);
    let promoted = Finished { job: JobKind::Promote, outcome: crate::model::Outcome::Done };
    let after = asking(&mut member, MemberEvent::JobFinished(promoted.clone()), &up(7), now);
    let late = MemberEvent::Answered(before, refusing("as before"));
    assert!(
        matches!(member.handle([late], &up(7), &ALIVE, now), MemberNext::Await { .. }),
        "nothing was answered"
    );
    let decided = decided_on(&mut member, after, refusing("as after"), &up(7), now);
    assert_eq!((trouble(&decided), &decided.seen.finished[..]), ("as after", &[promoted][..]));
}

/// The disk was full when the rules that let clients in were to be written, and nothing was written again.
#[test]
fn clients_who_were_not_let_in_count_as_locked_out() {
    let mut member = Member::new(me(), Memory::default());
    let now = Moment::from_millis(1_000);
    look(&mut member, MemberEvent::ClientsNotLetIn, &up(7), now);
    let decided = member.decide(&levels(up(7)), now);
    assert!(decided.seen.postgres.clients_locked_out);
}

/// A second job of a lane is never started.
#[test]
fn one_long_action_runs_at_a_time() {
    let mut lanes = Lanes::default();
    let start = |job| Action::Start(job);
    let now = Moment::from_millis(1_000);
    assert!(matches!(lanes.admit(start(Job::Checkpoint), now), MemberEffect::Act(_)));
    let second = lanes.admit(start(Job::CrashRecovery), now);
    assert!(matches!(second, MemberEffect::Say(Notice::TwoJobs { .. })), "{second:?}");
    let beside = lanes.admit(start(Job::ReclaimLeadership { term: crate::model::Term(1) }), now);
    assert!(matches!(beside, MemberEffect::Act(_)), "the leader key is written beside it");
    lanes.finished(JobKind::Checkpoint);
    assert!(matches!(lanes.admit(start(Job::CrashRecovery), now), MemberEffect::Act(_)));
}
