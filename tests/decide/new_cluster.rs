//! etcd knows no cluster: which member creates it, from which data, and which members wait.

use std::time::Duration;

use matriarch::decide::Memory;
use matriarch::model::{
    Action, ControlFile, ControlState, DataDirectory, FailoverKey, FailoverRequest, Finished, Job, JobKind,
    MemberKey, MemberRecord, NoDataReason, Outcome, PostgresFacts, Reason, SessionId,
};
use serde_json::{Value, json};

use super::scenarios::jobs;
use super::world::{MY_LEASE, THEIR_LEASE, World, control, down, name, primary, standby, up, without};

const AWAITING: Reason = Reason::NoData(NoDataReason::AwaitingMembers { seconds: 10 });

/// etcd knows no cluster; only a is registered, and it has no data.
fn empty() -> World {
    let mut world = World::new();
    world.nobody_leads().cluster().initialize = None;
    world.cluster().members.retain(|member, _| *member == name("a"));
    world.cluster().members.get_mut(&name("a")).expect("kept").record.session = Some(SessionId(0xA));
    world.postgres(without(DataDirectory::Empty));
    world
}

fn registers(world: &mut World, member: &str, record: Value) {
    let record: MemberRecord = serde_json::from_value(record).expect("a valid record");
    world.cluster().members.insert(name(member), MemberKey { record, lease: None });
}

fn outcome(world: &mut World) -> (Vec<JobKind>, Reason) {
    let decision = world.tick();
    (jobs(&decision.actions), decision.because)
}

const MADE: fn() -> (Vec<JobKind>, Reason) =
    || (vec![JobKind::Bootstrap], Reason::NoData(NoDataReason::NewCluster));

#[test]
fn a_cluster_is_created_after_the_wait_without_other_members() {
    let mut world = empty();
    assert_eq!(outcome(&mut world), (vec![], AWAITING));
    assert_eq!(outcome(world.later(9_999)), (vec![], AWAITING));
    let made = world.later(1).tick();
    // The transaction compares the revision, so a member that registers in the meantime is not overlooked.
    assert!(made.actions.contains(&Action::Start(Job::Bootstrap { seen: 100 })), "{:?}", made.actions);
}

#[test]
fn without_a_wait_the_cluster_is_created_at_once() {
    let mut world = empty();
    world.seen.me.wait_for_members = std::time::Duration::ZERO;
    assert_eq!(outcome(&mut world), MADE());
}

/// As long as etcd does not show this member, another member that looks would not see it either.
#[test]
fn the_wait_begins_with_this_members_registration() {
    let mut world = empty();
    world.cluster().members.get_mut(&name("a")).expect("there").record.session = Some(SessionId(0x1));
    assert_eq!(outcome(&mut world), (vec![], AWAITING));
    assert_eq!(outcome(world.later(60_000)), (vec![], AWAITING));
    world.cluster().members.get_mut(&name("a")).expect("there").record.session = Some(SessionId(0xA));
    assert_eq!(outcome(&mut world), (vec![], AWAITING));
    assert_eq!(outcome(world.later(10_000)), MADE());
}

/// Members without data wait together: the time starts again with each new member, but only once for each.
#[test]
fn a_new_empty_member_restarts_the_wait_once() {
    let mut world = empty();
    world.tick();
    registers(&mut world, "b", json!({"role": "uninitialized"}));
    assert_eq!(outcome(world.later(8_000)), (vec![], AWAITING));
    world.cluster().members.remove(&name("b"));
    assert_eq!(outcome(world.later(5_000)), (vec![], AWAITING));
    registers(&mut world, "b", json!({"role": "uninitialized"}));
    assert_eq!(outcome(world.later(4_999)), (vec![], AWAITING));
    assert_eq!(outcome(world.later(1)), MADE());
}

/// That member may be about to return: its data is the cluster.
#[test]
fn no_cluster_is_created_beside_a_member_with_data() {
    for record in [json!({"role": "replica"}), json!({"system_identifier": "7000000000000000009"})] {
        let mut world = empty();
        world.tick();
        registers(&mut world, "b", record);
        let waits = Reason::NoData(NoDataReason::DataElsewhere { member: name("b") });
        assert_eq!(outcome(world.later(3_000)), (vec![], waits.clone()));
        world.cluster().members.remove(&name("b"));
        assert_eq!(outcome(world.later(60_000)), (vec![], waits), "it is gone, and its data is not");
        registers(&mut world, "b", json!({"role": "uninitialized"}));
        assert_eq!(outcome(world.later(10)), MADE(), "its data was given up");
    }
}

/// Members that were seen before an earlier wipe do not count now.
#[test]
fn the_wait_begins_anew_when_etcd_loses_a_cluster() {
    let mut world = empty();
    world.tick();
    world.cluster().initialize = Some("7000000000000000009".to_owned());
    world.later(60_000).tick();
    world.cluster().initialize = None;
    assert_eq!(outcome(world.later(10)), (vec![], AWAITING));
}

/// The answer to the transaction was lost, and the key is on a lease that does not end.
#[test]
fn an_own_unfinished_bootstrap_continues() {
    let mut world = empty();
    world.cluster().initialize = Some(String::new());
    world.cluster().initialize_lease = Some(THEIR_LEASE);
    assert_eq!(outcome(&mut world), (vec![], Reason::NoData(NoDataReason::BootstrapElsewhere)));
    world.cluster().initialize_lease = Some(MY_LEASE);
    assert_eq!(outcome(&mut world), MADE());
}

/// Only a failure on this machine ends the supervisor. A claim that etcd did not accept is made again, but not at once:
/// a full etcd would get a transaction every few milliseconds.
#[test]
fn a_claim_without_an_answer_is_made_again_after_a_second() {
    for ended in [Outcome::Unknown("no answer".to_owned()), Outcome::Refused("full".to_owned())] {
        let mut world = empty();
        world.seen.me.wait_for_members = Duration::ZERO;
        world.seen.finished = vec![Finished { job: JobKind::Bootstrap, outcome: ended }];
        assert_eq!(outcome(&mut world).0, vec![]);
        world.seen.finished.clear();
        assert_eq!(outcome(world.later(999)).0, vec![]);
        assert_eq!(outcome(world.later(1)), MADE());
    }
}

fn asked(candidate: &str, leader: Option<&str>, rebuild: bool) -> FailoverKey {
    let request = FailoverRequest {
        leader: leader.map(name),
        candidate: Some(name(candidate)),
        rebuild,
        ..FailoverRequest::default()
    };
    FailoverKey { request, mod_revision: 70 }
}

/// etcd was wiped; a is a standby.
fn wiped() -> World {
    let mut world = World::new();
    world.nobody_leads().cluster().initialize = None;
    world
}

/// Only the named member, only with the confirmation, and only while etcd knows no cluster.
#[test]
fn a_standby_rebuilds_the_cluster_on_request() {
    let refused = Reason::ReplicaMustNotRebuild { me: name("a") };
    for request in [asked("a", None, false), asked("b", None, true), asked("a", Some("b"), true)] {
        let mut world = wiped();
        world.cluster().failover = Some(request);
        assert_eq!(outcome(&mut world), (vec![], refused.clone()));
    }
    let mut world = wiped();
    world.cluster().failover = Some(asked("a", None, true));
    world.cluster().initialize = Some(String::new());
    assert_eq!(outcome(&mut world), (vec![], refused), "another member is making one");
    world.cluster().initialize = None;
    assert_eq!(outcome(&mut world), (vec![JobKind::TakeLeadership], Reason::AskedToLead));
}

fn copy() -> PostgresFacts {
    let control = ControlFile { backup_label: true, ..control(ControlState::InProduction) };
    without(DataDirectory::Ready(control))
}

/// A standby serves readers and reports its position. A restored backup is not replayed beyond its recovery target.
#[test]
fn without_a_cluster_in_etcd_a_standby_starts_and_a_restored_backup_does_not() {
    let mut world = wiped();
    world.postgres(down(ControlState::ShutDownInRecovery));
    assert_eq!(outcome(&mut world), (vec![JobKind::StartStandby], Reason::StartingToCompete));
    let mut world = wiped();
    world.postgres(copy());
    let refused = Reason::ReplicaMustNotRebuild { me: name("a") };
    assert_eq!(outcome(&mut world), (vec![], refused.clone()));
    world.cluster().failover = Some(asked("b", None, true));
    assert_eq!(outcome(&mut world), (vec![], refused));
    world.cluster().failover = Some(asked("a", None, true));
    assert_eq!(outcome(&mut world), (vec![JobKind::StartStandby], Reason::StartingToCompete));
    assert_eq!(outcome(world.postgres(up(standby(1000)))).0, [JobKind::TakeLeadership]);
}

/// The primary came back before the request was written: the request does not fail over from it.
#[test]
fn a_request_to_rebuild_that_comes_too_late_is_cleared() {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000))).tick();
    world.cluster().failover = Some(asked("c", None, true));
    let decision = world.later(10).tick();
    assert_eq!((jobs(&decision.actions), decision.because), (vec![], Reason::Leading));
    assert!(decision.actions.contains(&Action::ClearFailover { mod_revision: 70 }), "{:?}", decision.actions);
    assert_eq!(decision.memory.hand_over, None);
}

/// The data here may belong to another cluster: nothing is replaced until the leader has told its system identifier.
#[test]
fn data_is_not_replaced_before_the_cluster_is_known() {
    let mut world = World::new();
    world.seen.settings.remove_data_directory_on_diverged_timelines = true;
    world.cluster().initialize = None;
    world.postgres(down(ControlState::ShutDownInRecovery));
    for _ in 0..20 {
        let waits = Reason::LeaderNotReady { leader: name("b") };
        assert_eq!(outcome(world.later(1_000)), (vec![], waits));
    }
}

/// After a while the member record in etcd says why there is no leader.
#[test]
fn a_lasting_refusal_is_published() {
    let mut world = wiped();
    let refusal = |memory: &Memory| memory.published.as_ref().and_then(|(record, ..)| record.refusal.clone());
    assert_eq!(refusal(&world.tick().memory), None);
    let shown = refusal(&world.later(10_000).tick().memory).expect("it lasts");
    assert!(shown.contains("matriarch failover --candidate a --rebuild"), "{shown}");
    world.cluster().initialize = Some(super::world::SYSTEM_ID.to_string());
    world.later(10).tick();
    world.later(5).answers("b", 900).answers("c", 900);
    assert_eq!(refusal(&world.tick().memory), None);
}

/// The data that was set aside may be the newest that is left, and the other members wait for it. If a member becomes
/// leader soon, the clone starts again; an operator's pause holds.
#[test]
fn an_interrupted_clone_is_undone_when_nobody_leads_for_a_ttl() {
    for known in [true, false] {
        let mut world = empty();
        if known {
            world.cluster().initialize = World::new().cluster().initialize.clone();
        }
        world.postgres(without(DataDirectory::HalfMade { by: "clone".to_owned() }));
        let interrupted = Reason::NoData(NoDataReason::CloneInterrupted);
        assert_eq!(outcome(&mut world), (vec![], interrupted.clone()));
        assert_eq!(outcome(world.later(9_999)), (vec![], interrupted.clone()));
        assert_eq!(outcome(world.later(1)), (vec![JobKind::UndoClone], interrupted.clone()));
        world.seen.finished.push(Finished {
            job: JobKind::UndoClone,
            outcome: Outcome::Failed("no space left on device".to_owned()),
        });
        assert_eq!(outcome(world.later(100)), (vec![], interrupted.clone()));
        world.seen.finished.clear();
        assert_eq!(outcome(world.later(5_000)), (vec![JobKind::UndoClone], interrupted));
        world.seen.settings.pause = true;
        assert_eq!(outcome(world.later(100)), (vec![], Reason::Paused));
    }
}
