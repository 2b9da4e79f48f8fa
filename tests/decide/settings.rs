//! Settings and filters that one decision each depends on.

use matriarch::model::{
    Action, Ask, Failure, HistoryLine, JobKind, Lsn, Reason, Reply, Request, RequestId, RestartFilter,
    RestartRefusal, Standby, Switch, Timeline, TimelineHistory, WallTime,
};

use super::scenarios::jobs;
use super::world::{World, primary, standby, up};

const ID: RequestId = RequestId(7);

impl World {
    fn asked_to_restart(&mut self, at: Option<WallTime>, filter: RestartFilter) -> Option<Reply> {
        self.seen.requests.push(Request { id: ID, ask: Ask::Restart { at, filter } });
        self.tick().actions.into_iter().find_map(|action| match action {
            Action::Answer { id: ID, reply } => Some(reply),
            _other => None,
        })
    }
}

/// The filters of a restart hold for the member as it is when the restart begins.
#[test]
fn a_restart_that_does_not_fit_this_member_is_refused() {
    let filter = RestartFilter::default;
    let of_role = |role: &str| RestartFilter { role: Some(role.to_owned()), ..filter() };
    let below = |version| RestartFilter { below_version: Some(version), ..filter() };
    let table = [
        (of_role("primary"), Some(RestartRefusal::OtherRole)),
        (of_role("replica"), None),
        (below(150_018), Some(RestartRefusal::OtherVersion)),
        (below(150_019), None),
        (RestartFilter { pending_only: true, ..filter() }, Some(RestartRefusal::NotPending)),
    ];
    for (filter, expected) in table {
        let reply = World::new().asked_to_restart(None, filter.clone());
        assert_eq!(reply, expected.map(Reply::RestartRefused), "{filter:?}");
    }
}

/// A scheduled restart begins at its time. It waits for the end of a pause, and is dropped when it is long overdue.
#[test]
fn a_scheduled_restart_begins_when_it_is_due() {
    for (paused, late_ms, begins, left) in [
        (false, -1, false, true),
        (false, 10, true, false),
        (true, 10, false, true),
        (false, 3_600_000, false, false),
    ] {
        let mut world = World::new();
        let at = WallTime(world.seen.wall.0 + 60_000);
        assert_eq!(world.asked_to_restart(Some(at), RestartFilter::default()), Some(Reply::RestartScheduled));
        world.seen.requests.clear();
        world.seen.settings.pause = paused;
        world.seen.wall = WallTime(at.0 + late_ms);
        let because = world.later(60_000).tick().because;
        let case = format!("paused: {paused}, {late_ms} ms late");
        assert_eq!(because == Reason::Restarting, begins, "{case}: {because}");
        assert_eq!(world.memory.scheduled_restart.is_some(), left, "{case}");
        let missed = world.memory.failures.last == Some(Failure::ScheduledRestartMissed);
        assert_eq!(missed, !begins && !left, "{case}");
    }
}

/// Whatever has paused it, except in the cluster's own pause.
#[test]
fn a_paused_replay_is_resumed() {
    for (in_pause, resumes) in [(false, true), (true, false)] {
        let mut world = World::new();
        let mut sql = standby(1000);
        if let Standby::Yes { paused, .. } = &mut sql.standby {
            *paused = true;
        }
        world.postgres(up(sql)).seen.settings.pause = in_pause;
        let actions = world.tick().actions;
        let resumed = actions.iter().any(|action| matches!(action, Action::ResumeReplay));
        assert_eq!(resumed, resumes, "in pause: {in_pause}");
    }
}

/// `max_timelines_history`: the newest lines are published, or all.
#[test]
fn the_published_history_has_at_most_so_many_lines() {
    for (most, expected) in [(0, vec![1, 2]), (1, vec![2]), (5, vec![1, 2])] {
        let mut world = World::new();
        let switch =
            |timeline, lsn| Switch { timeline: Timeline(timeline), lsn: Lsn(lsn), reason: "x".to_owned() };
        let mut sql = primary(1000);
        sql.timeline = Some(Timeline(3));
        world.i_lead().postgres(up(sql)).seen.settings.max_timelines_history = most;
        world.seen.postgres.history = TimelineHistory(vec![switch(1, 100), switch(2, 200)]);
        world.seen.postgres.history_of = Some(Timeline(3));
        let published = world.tick().actions.into_iter().find_map(|action| match action {
            Action::PublishHistory { lines, .. } => Some(lines),
            _other => None,
        });
        let lines = published.expect("etcd does not have it yet");
        assert_eq!(lines.iter().map(|line| line.parent.0).collect::<Vec<_>>(), expected, "at most {most}");
    }
}

/// `check_timeline`: a standby of an older timeline does not lead, however much it has received.
#[test]
fn a_standby_of_an_older_timeline_leads_only_without_the_check() {
    for (checks, leads) in [(true, false), (false, true)] {
        let mut world = World::new();
        world.nobody_leads().postgres(up(standby(1000))).seen.settings.check_timeline = checks;
        let line = HistoryLine {
            parent: Timeline(1),
            lsn: Lsn(900),
            reason: "test".to_owned(),
            at: None,
            promoted: Some("gone".to_owned()),
        };
        world.cluster().history = Some(vec![line]);
        let mut taken = false;
        for _ in 0..5 {
            world.later(1000).answers("b", 900).answers("c", 900);
            taken |= jobs(&world.tick().actions).contains(&JobKind::TakeLeadership);
        }
        assert_eq!(taken, leads, "checks: {checks}");
    }
}
