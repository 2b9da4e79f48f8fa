//! In every situation a request is completed, started, or refused with a reason within bounded time.

use matriarch::decide::Decision;
use matriarch::model::{Action, Ask, Job, JobKind, Reply, Request, RequestId, RestartFilter, WallTime};

use super::table::{LEADERSHIPS, servers};
use super::world::{World, silent};

const ID: RequestId = RequestId(7);

fn reinitialize() -> Ask {
    Ask::Reinitialize { force: true, from_leader: false }
}

fn restart() -> Ask {
    Ask::Restart { at: None, filter: RestartFilter::default() }
}

fn answer(decision: &Decision) -> Option<Reply> {
    decision.actions.iter().find_map(|action| match action {
        Action::Answer { id: ID, reply } => Some(reply.clone()),
        _other => None,
    })
}

/// The job stops or replaces the local data, or the supervisor exits, with the reason as the exit code.
fn begins(decision: &Decision) -> bool {
    decision.actions.iter().any(|action| match action {
        Action::Start(job) => matches!(job.kind(), JobKind::Stop | JobKind::Clone | JobKind::Checkpoint),
        Action::CancelJob | Action::Exit(_) => true,
        _other => false,
    })
}

#[test]
fn every_request_is_answered_or_begun_in_every_situation() {
    for (leads, lead) in LEADERSHIPS {
        for (is, postgres) in servers() {
            for (paused, ask) in
                [false, true].into_iter().flat_map(|paused| [(paused, restart()), (paused, reinitialize())])
            {
                let story = format!("{leads} leads, {is}, paused: {paused}, {ask:?}");
                let mut world = World::new();
                lead(&mut world);
                world.postgres(postgres.clone()).seen.settings.pause = paused;
                world.seen.requests.push(Request { id: ID, ask });
                let (mut replied, mut begun) = (None, false);
                for _ in 0..60 {
                    let decision = world.later(1000).tick();
                    replied = replied.or(answer(&decision));
                    begun |= begins(&decision);
                }
                match replied {
                    Some(Reply::Restarted | Reply::Reinitializing) => {
                        assert!(begun, "{story}: taken and not done");
                    }
                    Some(
                        Reply::RestartRefused(_)
                        | Reply::ReinitializeRefused(_)
                        | Reply::RestartNotBegun(_)
                        | Reply::RestartUnfinished,
                    ) => {}
                    Some(other) => panic!("{story}: {other:?}"),
                    None => assert!(begun, "{story}: neither begun nor answered"),
                }
            }
        }
    }
}

/// The request was accepted, but never carried out.
#[test]
fn a_standby_that_does_not_answer_is_reinitialized() {
    let mut world = World::new();
    world.postgres(silent()).seen.requests.push(Request { id: ID, ask: reinitialize() });
    let stops = world.tick();
    assert!(
        stops.actions.iter().any(|action| matches!(action, Action::Start(Job::Stop { .. }))),
        "{stops:?}"
    );
}

/// A member accepted a request to discard its data and then became leader: it does not discard them when it no longer
/// leads.
#[test]
fn leadership_ends_a_requested_reinitialization() {
    let mut world = World::new();
    world.seen.requests.push(Request { id: ID, ask: reinitialize() });
    world.tick();
    assert!(world.memory.reinitialize.is_some());
    world.later(100).i_lead().tick();
    assert_eq!(world.memory.reinitialize, None);
}

/// A restart that is scheduled to put parameters in force, and whose PostgreSQL was restarted before: nobody needs it
/// any more.
#[test]
fn a_scheduled_restart_is_dropped_with_the_postgresql_that_it_was_for() {
    for (restarted, kept) in [(false, true), (true, false)] {
        let mut world = World::new();
        let at = WallTime(world.seen.wall.0 + 60_000);
        let ask = Ask::Restart { at: Some(at), filter: RestartFilter::default() };
        world.seen.requests.push(Request { id: ID, ask });
        assert_eq!(answer(&world.tick()), Some(Reply::RestartScheduled));
        if let Some(sql) = world.seen.postgres.sql.as_mut().filter(|_| restarted) {
            sql.postmaster_start_time = "2026-11-30 10:00:00.000000+00".to_owned();
        }
        world.later(1000).tick();
        assert_eq!(world.memory.scheduled_restart.is_some(), kept);
    }
}
