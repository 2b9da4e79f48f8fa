//! Findings of the simulation as scenarios (chaos/track-record.md).

use std::time::Duration;

use matriarch::decide::HandOverPhase;
use matriarch::model::{
    Action, Ask, ControlState, FailoverKey, FailoverRequest, Job, JobKind, LeaseId, Lsn, Outcome, Reason,
    Request, RequestId, RestartFilter, SqlFacts, Switch, Timeline, TimelineHistory,
};

use super::world::{World, down, leader, name, primary, standby, up};

fn jobs(actions: &[Action]) -> Vec<JobKind> {
    let job = |action: &Action| match action {
        Action::Start(job) => Some(job.kind()),
        _ => None,
    };
    actions.iter().filter_map(job).collect()
}

/// Three promotions failed, and no other member can lead: the key would return to this member for ever.
#[test]
fn a_failing_leader_without_a_successor_keeps_trying() {
    let mut world = World::new();
    world.i_lead().postgres(up(standby(1000)));
    for _ in 0..3 {
        world.ends(JobKind::Promote, Outcome::Failed("no room".to_owned())).tick();
    }
    world.later(60_000);
    assert_eq!(world.tick().because, Reason::AskingMembers);
    world.later(5).answers("b", 900).answers("c", 900);
    for peer in ["b", "c"] {
        world.seen.peers.get_mut(&name(peer)).expect("just added").reachable = false;
    }
    assert_eq!(jobs(&world.tick().actions), [JobKind::Promote]);
    world.seen.peers.get_mut(&name("c")).expect("there").reachable = true;
    assert_eq!(jobs(&world.tick().actions), [JobKind::ReleaseLeadership]);
}

/// etcd lost the cluster while this primary was down, or never stored its bootstrap. It starts as a standby, as always,
/// but still counts as the former primary.
#[test]
fn a_primary_that_was_down_rebuilds_the_cluster() {
    let mut world = World::new();
    world.nobody_leads().cluster().initialize = None;
    world.postgres(down(ControlState::ShutDown));
    assert_eq!(jobs(&world.tick().actions), [JobKind::StartStandby]);
    world.later(100).postgres(up(standby(1000))).tick();
    world.later(5).answers("b", 10).answers("c", 10);
    assert_eq!(jobs(&world.tick().actions), [JobKind::TakeLeadership]);

    let mut replica = World::new();
    replica.nobody_leads().cluster().initialize = None;
    replica.postgres(down(ControlState::ShutDownInRecovery));
    assert_eq!(jobs(&replica.tick().actions), [JobKind::StartStandby]);
    replica.later(100).postgres(up(standby(1000)));
    assert_eq!(replica.tick().because, Reason::ReplicaMustNotRebuild { me: name("a") });
}

/// The leader went away before it saw the request; the candidate lacks more WAL than may be lost.
#[test]
fn a_switchover_to_a_lagging_candidate_neither_loses_commits_nor_delays_a_failover() {
    let asked = |leader: Option<&str>, candidate: &str| FailoverKey {
        request: FailoverRequest {
            leader: leader.map(name),
            candidate: Some(name(candidate)),
            scheduled_at: None,
            confirmed_down: Vec::new(),
            rebuild: false,
            requested_by: None,
        },
        mod_revision: 99,
    };
    let far = Lsn(1000 + (1 << 20) + 1);
    let mut candidate = World::new();
    candidate.nobody_leads().cluster().status.as_mut().expect("set").optime = Some(far);
    candidate.cluster().failover = Some(asked(Some("b"), "a"));
    assert!(matches!(candidate.tick().because, Reason::TooFarBehind { .. }));
    candidate.cluster().failover = Some(asked(None, "a"));
    assert_eq!(candidate.tick().because, Reason::AskedToLead, "a failover takes the loss");

    let mut other = World::new();
    other.nobody_leads().postgres(up(standby(far.0))).cluster().status.as_mut().expect("set").optime =
        Some(far);
    other.cluster().failover = Some(asked(Some("b"), "c"));
    other.tick();
    other.later(5).answers("b", 10).answers("c", 1000);
    assert_eq!(jobs(&other.tick().actions), [JobKind::TakeLeadership]);
    other.later(5).answers("c", far.0);
    assert_eq!(other.tick().because, Reason::CandidateGoesFirst { member: name("c") });
}

/// Seed 2104: if the leader were lost before etcd stored its promotion, every member would be too far behind the
/// previous leader.
#[test]
fn a_failover_with_loss_is_recorded_before_the_promotion() {
    let mut world = World::new();
    world.i_lead().postgres(up(standby(1000)));
    world.cluster().status.as_mut().expect("set").optime = Some(Lsn(1000 + (1 << 20) + 1));
    let before = world.tick();
    assert_eq!((jobs(&before.actions), before.because), (vec![], Reason::TakingLoss));
    let told = before.actions.iter().find_map(|action| match action {
        Action::PublishStatus { status, .. } => Some((status.optime, status.timeline)),
        _ => None,
    });
    assert_eq!(told, Some((Some(Lsn(1000)), None)), "on a timeline that is not begun yet");
    let again = world.later(200).tick();
    assert!(
        !again.actions.iter().any(|action| matches!(action, Action::PublishStatus { .. })),
        "once is enough"
    );
    world.later(5).cluster().status.as_mut().expect("set").optime = Some(Lsn(1000));
    assert_eq!(jobs(&world.tick().actions), [JobKind::Promote]);
}

/// Timelines 2 and 3 were begun on other members, so 4 follows 1.
#[test]
fn a_history_with_skipped_timelines_is_published_once() {
    let mut world = World::new();
    let mut postgres = up(SqlFacts { timeline: Some(Timeline(4)), ..primary(1000) });
    let switch = Switch { timeline: Timeline(1), lsn: Lsn(500), reason: "promoted".to_owned() };
    postgres.history = TimelineHistory(vec![switch]);
    world.i_lead().postgres(postgres);
    let published = |actions: &[Action]| {
        actions.iter().find_map(|action| match action {
            Action::PublishHistory { lines, .. } => Some(lines.clone()),
            _ => None,
        })
    };
    let lines = published(&world.tick().actions).expect("news");
    assert_eq!(lines.len(), 1);
    world.cluster().history = Some(lines);
    assert_eq!(published(&world.tick().actions), None);
}

/// Seed 17927: a leader was ended right after its promotion, and left a position on a timeline that no other member
/// knew.
#[test]
fn a_hand_over_does_not_stop_postgres_before_the_timeline_is_published() {
    let mut world = World::new();
    let mut postgres = up(SqlFacts { timeline: Some(Timeline(4)), ..primary(1000) });
    let switch = Switch { timeline: Timeline(1), lsn: Lsn(500), reason: "promoted".to_owned() };
    postgres.history = TimelineHistory(vec![switch]);
    world.i_lead().postgres(postgres);
    world.seen.shutting_down = true;
    world.tick();
    world.later(5).answers("b", 1000).answers("c", 1000);
    let lines = world.tick().actions.into_iter().find_map(|action| match action {
        Action::PublishHistory { lines, .. } => Some(lines),
        _ => None,
    });
    world.later(5).ends(JobKind::Checkpoint, Outcome::Done);
    assert_eq!(jobs(&world.tick().actions), []);
    world.cluster().history = lines;
    world.later(5).ends(JobKind::Checkpoint, Outcome::Done);
    assert_eq!(jobs(&world.tick().actions), [JobKind::Stop]);

    // An etcd that accepts no writes is not waited for.
    world.cluster().history = None;
    world.memory.hand_over.as_mut().expect("it is under way").phase = HandOverPhase::Checkpoint;
    world.later(2000).ends(JobKind::Checkpoint, Outcome::Done);
    assert_eq!(jobs(&world.tick().actions), [JobKind::Stop]);
}

/// A promotion takes a number above every number that any member, including this one, has reported.
#[test]
fn a_promotion_skips_timelines_that_other_members_began() {
    let mut world = World::new();
    world.i_lead().postgres(up(SqlFacts { timeline: Some(Timeline(7)), ..standby(1000) }));
    let above = world.tick().actions.into_iter().find_map(|action| match action {
        Action::Start(Job::Promote { above, .. }) => Some(above),
        _ => None,
    });
    assert_eq!(above, Some(Timeline(7)));
}

/// Both were requested before the same tick.
#[test]
fn a_restart_and_a_reinitialization_share_one_stop() {
    let mut world = World::new();
    for (id, ask) in [
        (1, Ask::Restart { at: None, filter: RestartFilter::default() }),
        (2, Ask::Reinitialize { force: true, from_leader: false }),
    ] {
        world.seen.requests.push(Request { id: RequestId(id), ask });
    }
    assert_eq!(jobs(&world.tick().actions), [JobKind::Stop]);
}

/// Seed 8569: three starts failed on a full disk, then PostgreSQL ran. The member took the key and released it because
/// of those failures. The next candidate waited for the member that was ahead, which was this one; so it went on for
/// ever.
#[test]
fn failed_starts_count_until_postgres_runs_and_others_could_lead() {
    let mut world = World::new();
    world.memory.failures.starts = 3;
    world.nobody_leads().tick();
    assert_eq!(world.memory.failures.starts, 0);
    world.memory.failures.starts = 3;
    world.memory.yield_until = Some(world.now + Duration::from_secs(10));
    assert_eq!(world.later(9_999).tick().because, Reason::Yielding);
    assert_eq!((world.memory.failures.starts, world.later(1).tick().memory.failures.starts), (3, 0));
}

#[test]
fn a_member_that_yields_is_not_waited_for() {
    let mut world = World::new();
    world.nobody_leads().tick();
    world.later(5).answers("b", 10).answers("c", 1001);
    world.seen.peers.get_mut(&name("c")).expect("just added").yields = true;
    assert_eq!(jobs(&world.tick().actions), [JobKind::TakeLeadership]);
}

/// Seed 4626: other members know at most the part of a member's history that it shares with them; the member itself
/// knows more.
#[test]
fn a_candidate_that_is_too_far_behind_is_not_waited_for() {
    let mut candidate = World::new();
    candidate.nobody_leads().cluster().status.as_mut().expect("set").optime = Some(Lsn(1000 + (1 << 20) + 1));
    let memory = candidate.tick().memory;
    assert!(memory.stands_back(candidate.now));

    let mut other = World::new();
    let request = FailoverRequest {
        leader: Some(name("b")),
        candidate: Some(name("c")),
        scheduled_at: None,
        confirmed_down: Vec::new(),
        rebuild: false,
        requested_by: None,
    };
    other.nobody_leads().cluster().failover = Some(FailoverKey { request, mod_revision: 99 });
    other.tick();
    other.later(5).answers("b", 10).answers("c", 1000);
    assert_eq!(other.tick().because, Reason::CandidateGoesFirst { member: name("c") });
    other.seen.peers.get_mut(&name("c")).expect("just added").yields = true;
    assert_eq!(jobs(&other.tick().actions), [JobKind::TakeLeadership]);
}

/// Seed 8908: a member was frozen between its queries and the race. In the meantime another member led, acknowledged a
/// commit and died, and its key was gone again. The old answer of that member was taken for its present position.
#[test]
fn answers_from_before_another_leadership_do_not_count() {
    let mut world = World::new();
    world.nobody_leads().tick();
    let seen_at = world.cluster().revision;
    world.later(5).answers("b", 10).answers("c", 10);
    world.cluster().revision = seen_at + 10;
    let unlocked = |actions: &[Action]| {
        actions.iter().find_map(|action| match action {
            Action::Start(Job::TakeLeadership { by }) => Some(by.unlocked),
            _other => None,
        })
    };
    assert_eq!(unlocked(&world.tick().actions), Some(seen_at), "etcd compares with the time of the question");
    world.ends(JobKind::TakeLeadership, Outcome::Lost);
    let lost = world.later(5).tick().actions;
    assert!(lost.iter().any(|action| matches!(action, Action::AskPeers { .. })), "{lost:?}");
    assert_eq!(unlocked(&lost), None);
    world.later(5).answers("b", 10).answers("c", 10);
    assert_eq!(unlocked(&world.tick().actions), Some(seen_at + 10));
}

/// Seed 1718. The leader key is on the lease with the new TTL before the answer to the move has arrived: that lease is
/// not revoked, and no primary is stopped for it.
#[test]
fn a_lease_that_takes_over_leadership_is_not_revoked() {
    let mut world = World::new();
    world.seen.lease.moving_to = Some(LeaseId(0xD));
    world.cluster().leader = Some(leader("a", LeaseId(0xD)));
    for postgres in [down(ControlState::InProduction), up(primary(1000))] {
        let waits = world.postgres(postgres).tick();
        assert!(jobs(&waits.actions).is_empty(), "{:?}", waits.actions);
        assert!(!waits.actions.contains(&Action::RevokeLease { lease: LeaseId(0xD) }));
        assert!(waits.actions.contains(&Action::RenewLease));
    }
}
