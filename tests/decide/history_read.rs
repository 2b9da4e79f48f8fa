//! The history of a timeline is read after SQL has shown the timeline, and the read may fail or come late.

use matriarch::core::member::{AskedPostgres, Levels, LookAnswer, Member, MemberEvent, MemberNext, Question};
use matriarch::decide::Memory;
use matriarch::model::{
    Action, ControlState, DataDirectory, LivenessVerdict, Moment, PostgresFacts, SqlFacts, Switch, Timeline,
    TimelineHistory,
};

use super::world::{World, control, primary, standby, up};

fn on_timeline(timeline: u32, sql: SqlFacts) -> SqlFacts {
    SqlFacts { timeline: Some(Timeline(timeline)), ..sql }
}

/// What a member knows after a look with these answers.
fn look(
    member: &mut Member,
    timeline: u32,
    read: Option<(DataDirectory, TimelineHistory)>,
    now: Moment,
) -> PostgresFacts {
    let seen = World::new().postgres(up(on_timeline(timeline, standby(1000)))).seen.clone();
    let process = seen.postgres.process.clone();
    let mut events = vec![MemberEvent::LookWanted];
    loop {
        let answer = |look, answer| MemberEvent::Answered(look, answer);
        events = match member.handle(std::mem::take(&mut events), &process, &LivenessVerdict::Alive, now) {
            MemberNext::Ask(id, Question::Prepare) => {
                vec![answer(id, LookAnswer::Prepared { changed: false })]
            }
            MemberNext::Ask(id, Question::AskPostgres { .. }) => {
                let sql = Ok(on_timeline(timeline, standby(1000)));
                let asked = AskedPostgres { sql, pending_restart: None, unsynchronous: None };
                vec![answer(id, LookAnswer::PostgresAnswered(Box::new(asked)))]
            }
            MemberNext::Ask(id, Question::ReadDataDirectory) => {
                vec![answer(id, LookAnswer::DataDirectoryRead(read.clone()))]
            }
            MemberNext::Decide => break,
            MemberNext::Await { .. } => panic!("every question was answered"),
        };
    }
    let levels = Levels { settings: seen.settings, view: seen.view, process, ..Levels::default() };
    member.decide(&levels, now).seen.postgres
}

#[test]
fn a_read_that_fails_leaves_the_history_of_the_timeline_before() {
    let mut world = World::new();
    let mut member = Member::new(world.seen.me.clone(), Memory::default());
    let ready =
        || Some((DataDirectory::Ready(control(ControlState::InProduction)), TimelineHistory::default()));
    let inaccessible = DataDirectory::Inaccessible { error: "no process".to_owned() };
    let failed = Some((inaccessible, TimelineHistory::default()));
    for (timeline, read, expected) in [(1, ready(), 1), (2, None, 1), (2, failed, 1), (2, ready(), 2)] {
        let known = look(&mut member, timeline, read.clone(), world.later(1000).now);
        let sql = known.sql.expect("it answers in each of them").timeline;
        assert_eq!((sql, known.history_of), (Some(Timeline(timeline)), Some(Timeline(expected))), "{read:?}");
    }
}

/// A position on a timeline of which etcd does not know where it begins counts for nobody: were this leader to crash,
/// all others would be too far behind.
#[test]
fn a_position_is_published_only_when_the_history_of_its_timeline_was_read() {
    let mut world = World::new();
    world.i_lead().postgres(up(on_timeline(2, primary(1000))));
    let switch = Switch { timeline: Timeline(1), lsn: matriarch::model::Lsn(900), reason: String::new() };
    let publishes =
        |action: &Action| matches!(action, Action::PublishHistory { .. } | Action::PublishStatus { .. });
    world.seen.postgres.history_of = Some(Timeline(1));
    for _ in 0..5 {
        let waits = world.later(1000).tick();
        assert!(!waits.actions.iter().any(publishes), "{waits:?}");
    }
    world.seen.postgres.history = TimelineHistory(vec![switch]);
    world.seen.postgres.history_of = Some(Timeline(2));
    let told = world.later(1000).tick();
    assert!(told.actions.iter().any(|action| matches!(action, Action::PublishHistory { .. })), "{told:?}");
}
