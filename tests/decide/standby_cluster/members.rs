//! The members that do not lead.

use matriarch::decide::Decision;
use matriarch::model::{
    Action, ControlState, Job, JobKind, Lsn, PeerAnswer, Reason, SyncKey, SyncReason, SyncRecord, Timeline,
};

use super::super::world::{World, down, name, standby, up};
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

/// The section came over a synchronous primary, which is gone. What was promised to its clients stays promised until a
/// leader is behind the remote primary.
#[test]
fn a_record_of_synchronous_replication_outlives_the_section() {
    let mut world = promised();
    world.nobody_leads().receives_nothing();
    world.tick();
    // Who has every commit does not answer.
    for gone in ["b", "c"] {
        world.seen.peers.insert(name(gone), PeerAnswer::unreachable(world.now, "no answer".to_owned()));
    }
    assert_eq!(world.tick().because, Reason::Sync(SyncReason::NotVouchedFor { leader: name("b") }));
}

#[test]
fn a_standby_leader_gives_the_record_up_when_it_is_behind_the_remote_primary() {
    let publishes = |decision: &Decision| {
        let writes =
            |action: &&Action| matches!(action, Action::PublishSync { .. } | Action::PublishStatus { .. });
        decision.actions.iter().filter(writes).count()
    };
    let mut world = promised();
    world.i_lead().receives_nothing();
    assert_eq!(publishes(&world.tick()), 0, "it has not followed anything");
    let decision = told(&mut world, REMOTE, branch(&[], 1, None));
    assert!(decision.actions.contains(&Action::Follow(Some(remote()))), "{decision:?}");
    assert_eq!(publishes(&world.later(100).tick()), 2);
}

fn promised() -> World {
    let voters = [name("c")].into_iter().collect();
    let record = SyncRecord { leader: Some(name("b")), quorum: 0, voters };
    let mut world = world();
    world.cluster().sync = Some(SyncKey { record, mod_revision: 50 });
    world
}

/// The remote cluster may begin a timeline at the same position when it comes back, and counts in an etcd of its own.
#[test]
fn a_promotion_leaves_room_for_the_timelines_of_the_remote_cluster() {
    let mut world = world();
    world.i_lead();
    world.tick();
    told(&mut world, REMOTE, branch(&[], 1, None));
    world.later(1_000).tick();
    world.seen.settings.standby_cluster = None;
    let above = (0..5).find_map(|_| match job(&world.later(200).tick()) {
        Some(Job::Promote { above, .. }) => Some(*above),
        _other => None,
    });
    assert!(above.is_some_and(|above| Timeline(64) < above), "{above:?}");
}
