//! The whole table: who leads × what Postgres is × paused or not, and what one tick decides.

use std::fmt::Write;
use std::time::Duration;

use matriarch::decide::{Leadership, Server, Situation};
use matriarch::model::{Action, ControlState, DataDirectory, Leading, PostgresFacts, Term};

use super::world::{
    MY_LEASE, SYSTEM_ID, THEIR_LEASE, World, control, dead, down, leader, no_connection, no_write, primary,
    silent, standby, up, without,
};

pub(super) type Change = (&'static str, fn(&mut World));

pub(super) const LEADERSHIPS: [Change; 7] = [
    ("nobody knows", |world| world.seen.view = None),
    ("nobody", |world| world.cluster().leader = None),
    ("another", |_| ()),
    ("I", |world| {
        world.i_lead();
    }),
    ("I, expiring", |world| {
        world.i_lead().seen.lease.deadline = Some(world.now + Duration::from_millis(900));
    }),
    ("I, unconfirmed", |world| {
        world.i_lead().seen.lease.leading = Leading::No;
    }),
    ("my former self", |world| world.cluster().leader = Some(leader("a", THEIR_LEASE))),
];

pub(super) fn servers() -> Vec<(&'static str, PostgresFacts)> {
    let foreign = DataDirectory::Ready(matriarch::model::ControlFile {
        system_id: SYSTEM_ID + 1,
        ..control(ControlState::ShutDown)
    });
    vec![
        ("not looked at", PostgresFacts::default()),
        ("no data", without(DataDirectory::Empty)),
        ("half a clone", without(DataDirectory::HalfMade { by: "clone".to_owned() })),
        ("unreadable", without(DataDirectory::Inaccessible { error: "permission denied".to_owned() })),
        ("foreign data", without(foreign)),
        ("primary, crashed", down(ControlState::InProduction)),
        ("primary, stopped", down(ControlState::ShutDown)),
        ("standby, stopped", down(ControlState::ShutDownInRecovery)),
        ("does not answer", silent()),
        ("primary, gives no connection", dead(no_connection())),
        ("primary, cannot write", dead(no_write())),
        ("primary", up(primary(1000))),
        ("standby", up(standby(1000))),
    ]
}

/// An action in a few words: the member record goes out in every row and says nothing here.
fn brief(action: &Action) -> Option<String> {
    match action {
        Action::PublishMember(_) => None,
        Action::Start(job) => Some(format!("start {job:?}")),
        other => Some(format!("{other:?}")),
    }
}

#[test]
fn the_whole_table() {
    let mut text = String::new();
    for paused in [false, true] {
        for (leads, lead) in LEADERSHIPS {
            let pause = if paused { ", PAUSED" } else { "" };
            writeln!(text, "\n{leads} leads{pause}").expect("a string takes everything");
            for (is, postgres) in servers() {
                let mut world = World::new();
                lead(&mut world);
                world.postgres(postgres).seen.settings.pause = paused;
                let leadership = Leadership::of(&world.seen, world.now);
                let system_id = world.seen.view.as_ref().and_then(|view| view.cluster.system_id());
                let server = Server::of(&world.seen.postgres, system_id);
                let situation = Situation::of(&leadership, &server, &world.seen.postgres, paused);
                let decision = world.tick();
                writeln!(text, "  Postgres: {is} → {situation:?}\n    because {}", decision.because)
                    .expect("a string takes everything");
                for action in decision.actions.iter().filter_map(brief) {
                    writeln!(text, "    · {action}").expect("a string takes everything");
                }
            }
        }
    }
    insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!("situation_table", text);
    });
}

/// Promise 1 over the whole table: no row lets a Postgres that may accept writes go on unless I lead with time to
/// spare, the key just vanished and is being taken back, or a look has not happened yet.
#[test]
fn no_row_leaves_a_primary_without_a_lease() {
    for (leads, lead) in LEADERSHIPS {
        for paused in [false, true] {
            let mut world = World::new();
            lead(&mut world);
            world.postgres(up(primary(1000))).seen.settings.pause = paused;
            let decision = world.tick();
            let stops = decision.actions.iter().any(|action| matches!(action, Action::Start(job) if job.kind() == matriarch::model::JobKind::Stop));
            let may_serve = ["I", "I, unconfirmed", "nobody", "nobody knows"].contains(&leads);
            assert_eq!(stops, !may_serve, "{leads} leads, paused: {paused}: {}", decision.because);
        }
    }
}

#[test]
fn a_view_older_than_my_term_says_nothing() {
    let mut world = World::new();
    world.cluster().revision = 10;
    world.seen.lease.leading = Leading::Yes(Term(50));
    assert_eq!(Leadership::of(&world.seen, world.now), Leadership::Mine(Term(50)));
    world.cluster().revision = 50;
    assert!(matches!(Leadership::of(&world.seen, world.now), Leadership::Other(_)));
    world.cluster().leader = Some(leader("a", MY_LEASE));
    assert_eq!(Leadership::of(&world.seen, world.now), Leadership::Mine(Term(50)));
}
