//! Scenarios: the expected behaviour, as a sequence of ticks.

use std::time::Duration;

use matriarch::model::{
    Action, Ask, ControlState, FailoverKey, FailoverRequest, HandOverRefusal, Job, JobKind, Leading, LeaseId,
    Outcome, Reason, Reply, Request, RequestId, RestartFilter, RestartRefusal, Term,
};
use serde_json::json;

use super::world::{World, answer, down, name, primary, standby, up};

pub(super) fn jobs(actions: &[Action]) -> Vec<JobKind> {
    let job = |action: &Action| match action {
        Action::Start(job) => Some(job.kind()),
        _ => None,
    };
    actions.iter().filter_map(job).collect()
}

/// No leader: query all members at once, then take the key only if no member that answers is ahead.
#[test]
fn the_most_advanced_standby_takes_the_key() {
    let mut world = World::new();
    let asked = world.nobody_leads().tick();
    assert!(matches!(&asked.actions[0], Action::AskPeers { who } if who.len() == 2), "{:?}", asked.actions);
    world.later(5).answers("b", 900);
    world.seen.peers.get_mut(&name("b")).expect("just added").reachable = false;
    assert_eq!(jobs(&world.tick().actions), [], "c has not answered yet");
    assert_eq!(jobs(&world.later(5).answers("c", 900).tick().actions), [JobKind::TakeLeadership]);
}

#[test]
fn a_standby_behind_another_yields_to_it() {
    let mut world = World::new();
    world.nobody_leads().tick();
    world.later(5).answers("b", 10).answers("c", 1001);
    let decision = world.tick();
    assert_eq!(decision.because, Reason::MemberAhead { member: name("c"), bytes: 1 });
    assert_eq!(jobs(&decision.actions), []);
}

/// A stale standby on an old timeline may have received more bytes of an abandoned history.
#[test]
fn a_later_timeline_beats_a_larger_position() {
    let mut world = World::new();
    world.postgres(up(matriarch::model::SqlFacts {
        timeline: Some(matriarch::model::Timeline(2)),
        ..standby(1000)
    }));
    world.nobody_leads().tick();
    world.later(5).answers("b", 10).answers("c", 5000);
    assert_eq!(jobs(&world.tick().actions), [JobKind::TakeLeadership]);
}

#[test]
fn tags_keep_members_out_of_the_race_or_put_them_first() {
    let mut world = World::new();
    world.seen.me.tags.0.insert("nofailover".to_owned(), json!(true));
    assert_eq!(world.nobody_leads().tick().because, Reason::NoFailoverTag);

    let mut world = World::new();
    world.nobody_leads().tick();
    world.later(5).answers("b", 10).answers("c", 1000);
    world
        .seen
        .peers
        .get_mut(&name("c"))
        .expect("added")
        .tags
        .0
        .insert("failover_priority".to_owned(), json!(2));
    assert_eq!(world.tick().because, Reason::MemberHasPriority { member: name("c") });
}

#[test]
fn too_much_lag_keeps_a_standby_from_taking_over() {
    let mut world = World::new();
    world.cluster().status.as_mut().expect("set").optime = Some(matriarch::model::Lsn(1000 + (1 << 20) + 1));
    assert_eq!(world.nobody_leads().tick().because, Reason::TooFarBehind { bytes: (1 << 20) + 1 });
}

/// `primary_start_timeout: 0`: another member takes over instead, if one can.
#[test]
fn a_crashed_leader_gives_the_key_away_with_a_start_timeout_of_zero() {
    let mut world = World::new();
    world.seen.settings.primary_start_timeout = Duration::ZERO;
    world.i_lead().postgres(up(primary(1000))).tick();
    let asked = world.later(10).postgres(down(ControlState::InProduction)).tick();
    assert_eq!((jobs(&asked.actions), asked.because), (vec![], Reason::AskingMembers));
    world.later(5).answers("b", 1000).answers("c", 1000);
    assert_eq!(jobs(&world.tick().actions), [JobKind::ReleaseLeadership]);
}

/// No other member can lead: the leader stays here.
#[test]
fn a_crashed_leader_without_a_successor_starts_in_place() {
    let mut world = World::new();
    world.seen.settings.primary_start_timeout = Duration::ZERO;
    world.i_lead().postgres(up(primary(1000))).tick();
    world.later(10).postgres(down(ControlState::InProduction)).tick();
    world.later(5).answers("b", 1000).answers("c", 1000);
    for peer in world.seen.peers.values_mut() {
        peer.reachable = false;
    }
    assert_eq!(jobs(&world.tick().actions), [JobKind::StartPrimary]);
}

#[test]
fn a_crash_loop_ends_with_another_leader() {
    let mut world = World::new();
    world.i_lead().answers("b", 1000).answers("c", 1000);
    for round in 0..3 {
        world.later(1000).postgres(up(primary(1000))).tick();
        world.later(1000).answers("b", 1000).answers("c", 1000);
        let decision = world.postgres(down(ControlState::InProduction)).tick();
        let expected = if round < 2 { JobKind::StartPrimary } else { JobKind::ReleaseLeadership };
        assert_eq!(jobs(&decision.actions), [expected], "crash {round}");
    }
}

pub(super) fn switchover(candidate: Option<&str>) -> FailoverKey {
    let request = FailoverRequest {
        leader: Some(name("a")),
        candidate: candidate.map(name),
        scheduled_at: None,
        confirmed_down: Vec::new(),
        rebuild: false,
        requested_by: None,
    };
    FailoverKey { request, mod_revision: 77 }
}

/// The whole planned hand-over: choose, checkpoint, stop, check the candidate's WAL, move the key to the candidate's
/// lease.
#[test]
fn a_switchover_moves_the_key_only_to_a_candidate_that_holds_everything() {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000))).tick();
    world.cluster().failover = Some(switchover(Some("c")));
    let asked = world.later(10).tick();
    assert!(asked.actions.iter().any(|action| matches!(action, Action::AskPeers { who } if who.len() == 1)));
    assert_eq!(jobs(&world.later(5).answers("c", 990).tick().actions), [JobKind::Checkpoint]);
    assert_eq!(
        jobs(&world.later(5).ends(JobKind::Checkpoint, Outcome::Done).tick().actions),
        [JobKind::Stop]
    );

    // The old primary is down cleanly; the checkpoint record begins at 900. A candidate that replayed up to 900 has not
    // replayed it.
    world.later(50).postgres(down(ControlState::ShutDown)).ends(JobKind::Stop, Outcome::Done).tick();
    assert_eq!(jobs(&world.later(5).answers("c", 900).tick().actions), []);
    let moved = world.later(20).answers("c", 901).tick();
    let expected = Job::HandOver {
        term: matriarch::model::Term(50),
        to: name("c"),
        to_lease: LeaseId(0xC),
        status: matriarch::model::ClusterStatus {
            optime: Some(matriarch::model::Lsn(900)),
            timeline: Some(matriarch::model::Timeline(1)),
            slots: Some([("a".to_owned(), matriarch::model::Lsn(1000))].into()),
            retain_slots: Some(vec!["b".to_owned(), "c".to_owned()]),
        },
    };
    assert!(moved.actions.contains(&Action::Start(expected)), "{:?}", moved.actions);
}

/// An answer from before the stop does not prove that the candidate has the shutdown checkpoint.
#[test]
fn an_old_answer_proves_nothing() {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000))).tick();
    world.cluster().failover = Some(switchover(Some("c")));
    world.later(10).tick();
    world.later(5).answers("c", 5000).tick();
    world.later(5).ends(JobKind::Checkpoint, Outcome::Done).tick();
    let down =
        world.later(50).postgres(down(ControlState::ShutDown)).ends(JobKind::Stop, Outcome::Done).tick();
    assert_eq!(jobs(&down.actions), []);
}

/// The candidate never receives the checkpoint: the old primary serves again, and the operator gets the reason.
#[test]
fn a_hand_over_that_takes_too_long_is_aborted() {
    let mut world = World::new();
    world.seen.settings.loop_wait = Duration::from_secs(60);
    world.i_lead().postgres(up(primary(1000))).tick();
    world.cluster().failover = Some(switchover(Some("c")));
    world.later(10).tick();
    world.later(5).answers("c", 990).tick();
    world.later(5).ends(JobKind::Checkpoint, Outcome::Done).tick();
    world.later(50).postgres(down(ControlState::ShutDown)).ends(JobKind::Stop, Outcome::Done).tick();
    let aborted = world.later(60_000).answers("c", 900).tick();
    assert!(matches!(&aborted.because, Reason::HandOverRefused(HandOverRefusal::NotReplayed { .. })));
    assert!(aborted.actions.contains(&Action::ClearFailover { mod_revision: 77 }));
    assert_eq!(jobs(&world.later(1).tick().actions), [JobKind::StartPrimary]);
}

#[test]
fn a_switchover_to_an_unfit_candidate_is_refused_with_the_reason() {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(10 << 20))).tick();
    world.cluster().failover = Some(switchover(Some("c")));
    world.later(10).tick();
    let refused = world.later(5).answers("c", 990).tick();
    assert!(refused.because.to_string().contains("bytes behind"), "{}", refused.because);
    assert_eq!(jobs(&refused.actions), []);
    assert!(refused.actions.contains(&Action::ClearFailover { mod_revision: 77 }));
}

#[test]
fn a_primary_that_is_asked_to_end_hands_over_first() {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000))).tick();
    world.seen.shutting_down = true;
    world.later(10).tick();
    let chosen = world.later(5).answers("b", 900).answers("c", 1000).tick();
    assert_eq!(jobs(&chosen.actions), [JobKind::Checkpoint]);
    assert_eq!(world.memory.hand_over.as_ref().and_then(|hand_over| hand_over.to.clone()), Some(name("c")));
}

#[test]
fn a_lone_primary_that_is_asked_to_end_stops_and_releases_the_key() {
    let mut world = World::new();
    world.i_lead().cluster().members.retain(|member, _| *member == name("a"));
    world.postgres(up(primary(1000))).tick();
    world.seen.shutting_down = true;
    assert_eq!(jobs(&world.later(10).tick().actions), [JobKind::Checkpoint]);
    assert_eq!(
        jobs(&world.later(5).ends(JobKind::Checkpoint, Outcome::Done).tick().actions),
        [JobKind::Stop]
    );
    world.later(50).postgres(down(ControlState::ShutDown)).ends(JobKind::Stop, Outcome::Done);
    assert_eq!(jobs(&world.tick().actions), [JobKind::ReleaseLeadership]);
    world.nobody_leads().seen.lease.leading = matriarch::model::Leading::No;
    let ended = world.later(5).ends(JobKind::ReleaseLeadership, Outcome::Done).tick();
    assert!(ended.actions.iter().any(|action| matches!(action, Action::Exit(_))), "{:?}", ended.actions);
}

/// etcd was wiped: only a running primary rebuilds it.
#[test]
fn a_replica_never_rebuilds_an_empty_etcd() {
    let mut world = World::new();
    world.nobody_leads().cluster().initialize = None;
    let decision = world.tick();
    assert_eq!(
        (jobs(&decision.actions), decision.because),
        (vec![], Reason::ReplicaMustNotRebuild { me: name("a") })
    );

    world.postgres(up(primary(1000)));
    assert_eq!(jobs(&world.tick().actions), [JobKind::TakeLeadership]);
    world.i_lead().cluster().config = None;
    world.cluster().leader.as_mut().expect("I lead").term = Term(101);
    (world.cluster().revision, world.seen.lease.leading) = (101, Leading::Yes(Term(101)));
    let leading = world.later(10).tick();
    for wanted in ["RestoreInitialize", "RestoreConfig"] {
        assert!(leading.actions.iter().any(|action| format!("{action:?}").starts_with(wanted)), "{wanted}");
    }
}

#[test]
fn a_restart_is_answered_when_the_new_postmaster_serves() {
    let mut world = World::new();
    let ask = Ask::Restart { at: None, filter: RestartFilter::default() };
    world.seen.requests.push(Request { id: RequestId(9), ask });
    assert_eq!(jobs(&world.tick().actions), [JobKind::Stop]);
    let mut postgres = up(standby(1000));
    postgres.process = matriarch::model::Process::Up {
        pid: 43,
        since: world.now + Duration::from_millis(100),
        standby_start: true,
    };
    let done = world.later(500).postgres(postgres).tick();
    let reply = Reply::Restarted;
    assert!(done.actions.contains(&Action::Answer { id: RequestId(9), reply }), "{:?}", done.actions);
}

#[test]
fn a_second_long_action_is_refused_by_name() {
    let mut world = World::new();
    world.seen.job = Some(matriarch::model::RunningJob { job: Job::Checkpoint, since: world.now });
    let ask = Ask::Restart { at: None, filter: RestartFilter::default() };
    world.seen.requests.push(Request { id: RequestId(9), ask });
    let reply = Reply::RestartRefused(RestartRefusal::Busy(JobKind::Checkpoint));
    assert!(world.tick().actions.contains(&Action::Answer { id: RequestId(9), reply }));
}

/// Lost leadership while promoting: the promotion is cancelled.
#[test]
fn a_promotion_without_a_lease_is_cancelled() {
    let mut world = World::new();
    let job = Job::Promote { term: matriarch::model::Term(50), above: matriarch::model::Timeline(1) };
    world.seen.job = Some(matriarch::model::RunningJob { job, since: world.now });
    assert!(world.tick().actions.contains(&Action::CancelJob));
}

#[test]
fn the_lease_of_a_previous_incarnation_is_revoked_only_after_its_postgres_ended() {
    let mut world = World::new();
    world.cluster().leader = Some(super::world::leader("a", LeaseId(0xD)));
    let revoked = world.postgres(down(ControlState::InProduction)).tick();
    assert!(revoked.actions.contains(&Action::RevokeLease { lease: LeaseId(0xD) }));
    let stops = world.postgres(up(primary(1000))).tick();
    assert_eq!(jobs(&stops.actions), [JobKind::Stop]);
    assert!(!stops.actions.contains(&Action::RevokeLease { lease: LeaseId(0xD) }));
}

#[test]
fn a_silent_member_does_not_prevent_a_failover() {
    let mut world = World::new();
    world.nobody_leads().tick();
    world.later(1000);
    for member in ["b", "c"] {
        let silent = matriarch::model::PeerAnswer { reachable: false, ..answer(world.now, 5000) };
        world.seen.peers.insert(name(member), silent);
    }
    assert_eq!(jobs(&world.tick().actions), [JobKind::TakeLeadership]);
}

/// The answer to the hand-over was lost. Nothing here becomes primary before this member provably holds the key in a
/// new term, so that a late request of the old term cannot cause two primaries.
#[test]
fn a_hand_over_of_unknown_outcome_is_reclaimed_before_the_old_primary_serves_again() {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000))).tick();
    world.cluster().failover = Some(switchover(Some("c")));
    world.later(10).tick();
    world.later(5).answers("c", 990).tick();
    world.later(5).ends(JobKind::Checkpoint, Outcome::Done).tick();
    world.later(50).postgres(down(ControlState::ShutDown)).ends(JobKind::Stop, Outcome::Done).tick();
    assert_eq!(jobs(&world.later(20).answers("c", 901).tick().actions), [JobKind::HandOver]);
    let unknown = Outcome::Unknown("no answer".to_owned());
    let reclaims = world.later(70_000).ends(JobKind::HandOver, unknown).tick();
    assert_eq!(jobs(&reclaims.actions), [JobKind::ReclaimLeadership]);
    // The key was obtained again, but the last renewal is older: still nothing.
    assert_eq!(jobs(&world.later(5).ends(JobKind::ReclaimLeadership, Outcome::Done).tick().actions), []);
    world.cluster().leader.as_mut().expect("mine").term = Term(160);
    world.cluster().revision = 160;
    world.seen.lease.leading = Leading::Yes(Term(160));
    world.later(5).tick();
    assert_eq!(jobs(&world.later(5).tick().actions), [JobKind::StartStandby]);
}

/// A member that accepts connections and never answers delays a failover by one query, not for ever.
#[test]
fn a_silent_member_delays_a_failover_only_once() {
    let mut world = World::new();
    world.nobody_leads().tick();
    world.later(5).answers("b", 900);
    let asked_at = world.now - Duration::from_millis(5);
    let silent = matriarch::model::PeerAnswer { reachable: false, ..answer(asked_at, 0) };
    world.later(1010).seen.peers.insert(name("c"), silent);
    assert_eq!(jobs(&world.tick().actions), [JobKind::TakeLeadership]);
}

/// `pg_controldata` failed once under a running primary: that has no effect on the primary.
#[test]
fn an_unreadable_directory_does_not_depose_a_running_primary() {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000)));
    world.seen.postgres.data =
        matriarch::model::DataDirectory::Inaccessible { error: "fork failed".to_owned() };
    assert_eq!((jobs(&world.tick().actions), world.tick().because), (vec![], Reason::Leading));
}
