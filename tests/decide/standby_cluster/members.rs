//! The members that do not lead.

use matriarch::model::{Action, ControlState, Job, JobKind, Lsn, Reason, Timeline};

use super::super::world::{down, name, standby, up};
use super::{REMOTE, branch, job, remote, told, world};

/// WAL goes on arriving from the remote primary, and timelines are those of another cluster.
#[test]
fn a_member_takes_the_key_while_wal_arrives() {
    let mut world = world();
    world.seen.settings.check_timeline = true;
    let line = serde_json::json!([{ "parent": 6, "lsn": 10, "reason": "", "at": null, "promoted": null }]);
    world.cluster().history = serde_json::from_value(line).expect("a line");
    world.nobody_leads();
    for lsn in [1000, 1100, 1200] {
        world.later(100).postgres(up(standby(lsn))).answers("b", 1000).answers("c", 1000);
        world.tick();
    }
    world.postgres(up(standby(1300))).answers("b", 1000).answers("c", 1000);
    let decision = world.tick();
    assert_eq!(job(&decision).map(Job::kind), Some(JobKind::TakeLeadership), "{decision:?}");
}

/// No member can lead for long: WAL goes on arriving all the same.
#[test]
fn members_without_a_leader_follow_the_remote_primary() {
    let mut world = world();
    world.nobody_leads().receives_nothing();
    world.seen.me.tags = serde_json::from_value(serde_json::json!({ "nofailover": true })).expect("tags");
    assert_eq!(world.tick().because, Reason::NoFailoverTag);
    world.later(11_000);
    let decision = world.tick();
    assert!(decision.actions.contains(&Action::AskLeaderBranch { from: remote() }), "{decision:?}");
    let decision = told(&mut world, REMOTE, branch(&[], 1, None));
    assert!(decision.actions.contains(&Action::Follow(Some(remote()))), "{decision:?}");
    assert_eq!(decision.because, Reason::NoFailoverTag);
    // The section is removed: what arrives from there is no sign that a primary of this cluster lives.
    world.seen.settings.standby_cluster = None;
    world.postgres(up(standby(1100))).later(100);
    let decision = world.tick();
    assert!(decision.actions.contains(&Action::Follow(None)), "{decision:?}");
}

/// What the standby leader lacks comes from the same primary: the member waits until it is there.
#[test]
fn a_member_that_is_ahead_of_the_standby_leader_waits_for_it() {
    let mut world = world();
    world.receives_nothing();
    world.tick();
    let decision = told(&mut world, "b", branch(&[], 1, Some(900)));
    assert!(!decision.actions.iter().any(|action| matches!(action, Action::Follow(Some(_)))), "{decision:?}");
    assert_eq!(job(&decision), None);
    world.later(1000);
    let decision = told(&mut world, "b", branch(&[], 1, Some(1000)));
    assert!(
        decision
            .actions
            .iter()
            .any(|action| { matches!(action, Action::Follow(Some(target)) if target.name == name("b")) }),
        "{decision:?}"
    );
}

#[test]
fn a_stopped_member_that_is_ahead_starts_without_a_source() {
    let mut world = world();
    world.postgres(down(ControlState::ShutDown));
    world.tick();
    let decision = told(&mut world, "b", branch(&[], 1, Some(800)));
    assert!(matches!(job(&decision), Some(Job::StartStandby { follow: None, .. })), "{decision:?}");
}

/// A promotion of the remote primary left out what this member had received.
#[test]
fn a_member_whose_history_parted_is_rewound_to_the_remote_primary() {
    let mut world = world();
    world.postgres(down(ControlState::ShutDown));
    world.tick();
    let decision = told(&mut world, "b", branch(&[(1, 500)], 2, Some(700)));
    let rewind = Job::Rewind { from: remote(), fork: (Timeline(1), Lsn(500)) };
    assert_eq!(job(&decision), Some(&rewind), "{decision:?}");
}
