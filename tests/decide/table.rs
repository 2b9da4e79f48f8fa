//! The whole table: leadership × state of Postgres × paused or not, and the decision of one tick.

use std::fmt::Write;
use std::time::Duration;

use matriarch::decide::{Leadership, ReleasedTerm, situation_name};
use matriarch::model::{
    Action, ControlState, DataDirectory, Job, JobKind, Leading, PodEnd, PostgresFacts, RunningJob,
    StandbyCluster, StopMode, Term,
};

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

/// An action in a few words. The member record is left out, because it is published in every row.
fn brief(action: &Action) -> Option<String> {
    match action {
        Action::PublishMember(_) => None,
        Action::Start(job) => Some(format!("start {job:?}")),
        other => Some(format!("{other:?}")),
    }
}

/// Other things that may be under way; each has precedence over the role.
const UNDER_WAY: [Change; 8] = [
    ("PostgreSQL is being stopped", |world| {
        job(world, Job::Stop { mode: StopMode::Fast, within: Duration::from_secs(30) });
    }),
    ("a checkpoint runs", |world| job(world, Job::Checkpoint)),
    ("etcd's store went back in time", |world| {
        world.tick();
        world.cluster().revision -= 1;
    }),
    ("the supervisor is to end", |world| world.seen.shutting_down = true),
    ("the supervisor is to end, six seconds ago", |world| {
        world.seen.shutting_down = true;
        world.tick();
        world.later(6000);
    }),
    ("my pod ends", |world| world.seen.pod_end = Some(PodEnd::Deleting)),
    ("the watchdog fails", |world| world.seen.watchdog_failed = true),
    ("I gave the leader key away", |world| {
        world.memory.released_term = Some(ReleasedTerm { term: Term(50), reclaim: false })
    }),
];

fn job(world: &mut World, job: Job) {
    world.seen.job = Some(RunningJob { job, since: world.now });
}

/// One row: the situation, the actions, and the reason.
fn row(is: &str, world: &mut World) -> String {
    let situation = situation_name(&world.memory, &world.seen, world.now);
    let decision = world.tick();
    let mut text = format!("  Postgres: {is} → {situation}\n    because {}\n", decision.because);
    for action in decision.actions.iter().filter_map(brief) {
        writeln!(text, "    · {action}").expect("a string takes everything");
    }
    text
}

fn rows_by_role() -> String {
    rows_with(|_| ())
}

/// In a standby cluster.
fn rows_behind_a_remote_primary() -> String {
    rows_with(follow_remote)
}

fn follow_remote(world: &mut World) {
    world.seen.settings.standby_cluster =
        StandbyCluster::following(&[("remote".to_owned(), 5432)], Some("herd".to_owned()));
}

fn rows_with(change: fn(&mut World)) -> String {
    let mut text = String::new();
    for paused in [false, true] {
        for (leads, lead) in LEADERSHIPS {
            let pause = if paused { ", PAUSED" } else { "" };
            writeln!(text, "\n{leads} leads{pause}").expect("a string takes everything");
            for (is, postgres) in servers() {
                let mut world = World::new();
                lead(&mut world);
                world.postgres(postgres).seen.settings.pause = paused;
                change(&mut world);
                text += &row(is, &mut world);
            }
        }
    }
    text
}

fn rows_under_way() -> String {
    let mut text = String::new();
    let servers = servers().into_iter();
    let servers: Vec<_> = servers
        .filter(|(is, _)| ["primary", "primary, cannot write", "primary, stopped", "standby"].contains(is))
        .collect();
    for (under_way, change) in UNDER_WAY {
        for (leads, lead) in LEADERSHIPS.into_iter().filter(|(leads, _)| *leads != "nobody knows") {
            writeln!(text, "\n{leads} leads, and {under_way}").expect("a string takes everything");
            for (is, postgres) in &servers {
                let mut world = World::new();
                lead(&mut world);
                world.postgres(postgres.clone());
                change(&mut world);
                text += &row(is, &mut world);
            }
        }
    }
    text
}

#[test]
fn the_whole_table() {
    insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!("situation_table", rows_by_role());
    });
}

/// The rows that have precedence over the role: shutdowns, long actions, a store that went back in time.
#[test]
fn the_table_of_what_is_under_way() {
    insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!("under_way_table", rows_under_way());
    });
}

#[test]
fn the_table_of_a_standby_cluster() {
    insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!("standby_cluster_table", rows_behind_a_remote_primary());
    });
}

/// No row promotes, and each stops a primary that leads.
#[test]
fn no_row_of_a_standby_cluster_leads_to_a_primary() {
    for (leads, lead) in LEADERSHIPS {
        for (is, postgres) in servers() {
            let mut world = World::new();
            lead(&mut world);
            follow_remote(&mut world);
            let may_write = postgres.may_be_primary();
            let decision = world.postgres(postgres).tick();
            let starts = |kind| {
                decision
                    .actions
                    .iter()
                    .any(|action| matches!(action, Action::Start(job) if job.kind() == kind))
            };
            assert!(!starts(JobKind::Promote) && !starts(JobKind::PrePromote), "{leads} leads, {is}");
            let is_dead = is.contains(',');
            if leads == "I" && may_write && !is_dead {
                assert!(starts(JobKind::Stop), "{is}: {}", decision.because);
            }
        }
    }
}

/// The source is read, so that a new situation cannot be forgotten here.
#[test]
fn every_situation_has_a_row() {
    let source = include_str!("../../src/decide/situation.rs");
    let (_, rest) = source.split_once("enum Situation<'a> {\n").expect("the enum is there");
    let (body, _) = rest.split_once("\n}\n").expect("it ends");
    let names = body.lines().filter_map(|line| {
        let line = line.strip_prefix("    ")?;
        let name: String = line.chars().take_while(|c| c.is_alphanumeric()).collect();
        (!name.is_empty()).then_some(name)
    });
    let rows = rows_by_role() + &rows_behind_a_remote_primary() + &rows_under_way();
    let missing: Vec<String> = names.filter(|name| !rows.contains(&format!("→ {name}\n"))).collect();
    assert!(missing.is_empty(), "no row shows {missing:?}");
}

/// Promise 1 over the whole table: no row lets a Postgres that may accept writes continue, except in three cases: this
/// member leads with time to spare, the key just vanished and is being taken back, or a look has not happened yet.
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
fn a_view_older_than_my_term_does_not_count() {
    let mut world = World::new();
    world.cluster().revision = 10;
    world.seen.lease.leading = Leading::Yes(Term(50));
    assert_eq!(Leadership::of(&world.seen, world.now), Leadership::Mine(Term(50)));
    world.cluster().revision = 50;
    assert!(matches!(Leadership::of(&world.seen, world.now), Leadership::Other(_)));
    world.cluster().leader = Some(leader("a", MY_LEASE));
    assert_eq!(Leadership::of(&world.seen, world.now), Leadership::Mine(Term(50)));
}
