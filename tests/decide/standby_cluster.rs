//! Scenarios: a standby cluster, whose leader follows a remote primary.

mod members;

use std::time::Duration;

use matriarch::decide::Decision;
use matriarch::model::{
    Action, Branch, CloneMethods, ControlState, DataDirectory, FailoverKey, FailoverRequest, FollowTarget,
    Job, JobKind, LeaderBranch, LivenessVerdict, Lsn, MemberState, NoDataReason, Outcome, PodEnd, PodRole,
    Reason, Reply, Request, RequestId, Role, RunningJob, StandbyCluster, StandbyClusterReason, StopMode,
    Switch, Term, Timeline, TimelineHistory,
};

use super::world::{World, answer, down, name, no_connection, primary, promoting, standby, up, without};

const REMOTE: &str = "the remote primary r:5432";

fn remote() -> FollowTarget {
    FollowTarget { name: name(REMOTE), conn_url: "postgres://r:5432/".to_owned(), slot: None }
}

/// The section is in force; `b` leads, and runs as the standby leader.
fn world() -> World {
    let mut world = World::new();
    world.seen.settings.standby_cluster = StandbyCluster::following(&[("r".to_owned(), 5432)], None);
    record_of_b(&mut world, Role::StandbyLeader);
    world
}

fn record_of_b(world: &mut World, role: Role) {
    let b = &mut world.cluster().members.get_mut(&name("b")).expect("it is there").record;
    (b.role, b.state) = (role, MemberState::Running);
}

/// The history of a primary (no `end`) or of a standby.
fn branch(switches: &[(u32, u64)], timeline: u32, end: Option<u64>) -> Branch {
    let switch = |&(timeline, lsn): &(u32, u64)| Switch {
        timeline: Timeline(timeline),
        lsn: Lsn(lsn),
        reason: String::new(),
    };
    let history = TimelineHistory(switches.iter().map(switch).collect());
    Branch { history, timeline: Timeline(timeline), end: end.map(Lsn) }
}

/// A tick a little later, after `source` told its history.
fn told(world: &mut World, source: &str, branch: Branch) -> Decision {
    world.later(100);
    let told = LeaderBranch {
        name: name(source),
        asked_at: world.now,
        answer: Ok(branch),
        has_slot: true,
        oldest: Lsn(0),
    };
    world.seen.leader_branch = Some(told);
    world.tick()
}

/// `source` did not let this member in, and some time passes.
fn untold(world: &mut World, source: &str) {
    let told = LeaderBranch {
        name: name(source),
        asked_at: world.now,
        answer: Err("password authentication failed".to_owned()),
        has_slot: false,
        oldest: Lsn(0),
    };
    world.seen.leader_branch = Some(told);
    world.later(600);
}

fn job(decision: &Decision) -> Option<&Job> {
    decision.actions.iter().find_map(|action| match action {
        Action::Start(job) => Some(job),
        _other => None,
    })
}

fn runs(world: &mut World, job: Job) {
    world.seen.job = Some(RunningJob { job, since: world.now });
}

fn published(decision: &Decision) -> Option<Role> {
    decision.memory.published.as_ref().map(|(record, ..)| record.role)
}

/// The section was added to the configuration of a running cluster. In pause, too.
#[test]
fn a_primary_stops_cleanly_whatever_is_under_way() {
    for pause in [false, true] {
        let mut world = world();
        world.i_lead().postgres(up(primary(1000)));
        world.seen.settings.pause = pause;
        let decision = world.tick();
        assert!(matches!(job(&decision), Some(Job::Stop { mode: StopMode::Fast, .. })), "{decision:?}");
        assert_eq!(decision.because, Reason::StandbyCluster(StandbyClusterReason::StoppingPrimary));
        runs(&mut world, Job::Checkpoint);
        assert!(world.tick().actions.contains(&Action::CancelJob));
        runs(&mut world, Job::Stop { mode: StopMode::Fast, within: Duration::from_secs(60) });
        let decision = world.tick();
        assert!(!decision.actions.contains(&Action::CancelJob) && job(&decision).is_none(), "{decision:?}");
    }
}

/// The signal of a promotion may have been sent before the section came.
#[test]
fn a_promotion_under_way_is_cancelled_and_its_postgres_stopped() {
    let mut world = world();
    world.i_lead();
    runs(&mut world, Job::Promote { term: Term(50), above: Timeline(1) });
    assert!(world.tick().actions.contains(&Action::CancelJob));
    world.seen.job = None;
    world.postgres(promoting(1000));
    assert!(matches!(job(&world.tick()), Some(Job::Stop { mode: StopMode::Fast, .. })));
}

#[test]
fn a_stopped_primary_starts_behind_the_remote_primary() {
    let mut world = world();
    world.i_lead().postgres(down(ControlState::ShutDown));
    world.memory.demoted = true;
    let decision = world.tick();
    let position = decision.actions.iter().find_map(|action| match action {
        Action::PublishStatus { status, .. } => status.optime,
        _other => None,
    });
    assert_eq!(position, Some(Lsn(900)), "the shutdown checkpoint");
    assert!(decision.actions.contains(&Action::AskLeaderBranch { from: remote() }), "{decision:?}");
    let decision = told(&mut world, REMOTE, branch(&[], 1, None));
    let follow = Some(remote());
    assert!(
        matches!(job(&decision), Some(Job::StartStandby { follow: to, lowers: false, .. }) if *to == follow),
        "{decision:?}"
    );
}

/// The remote primary was promoted before it had all WAL of this member.
#[test]
fn a_stopped_primary_is_rewound_to_the_remote_primary() {
    let mut world = world();
    world.i_lead().postgres(down(ControlState::ShutDown));
    world.tick();
    let decision = told(&mut world, REMOTE, branch(&[(1, 500)], 2, None));
    let rewind = Job::Rewind { from: remote(), fork: (Timeline(1), Lsn(500)) };
    assert_eq!(job(&decision), Some(&rewind), "{decision:?}");
}

/// A crashed one recovers first, as behind any leader; without a remote primary the archive is all there is.
#[test]
fn an_archive_alone_needs_no_comparison() {
    let mut world = world();
    world.seen.settings.standby_cluster = Some(StandbyCluster::default());
    world.i_lead().postgres(down(ControlState::ShutDown));
    let decision = world.tick();
    assert!(
        matches!(job(&decision), Some(Job::StartStandby { follow: None, lowers: false, .. })),
        "{decision:?}"
    );
    world.postgres(up(standby(1000))).receives_nothing();
    world.later(100);
    assert_eq!(world.tick().because, Reason::StandbyCluster(StandbyClusterReason::LeadsBehindArchive));
}

#[test]
fn the_leader_follows_the_remote_primary_and_is_not_promoted() {
    let mut world = world();
    world.i_lead().receives_nothing();
    let decision = world.tick();
    assert!(decision.actions.contains(&Action::AskLeaderBranch { from: remote() }), "{decision:?}");
    assert_eq!((job(&decision), published(&decision)), (None, Some(Role::StandbyLeader)));
    assert_eq!(decision.pod, Some(PodRole::StandbyLeader(Term(50))));
    let decision = told(&mut world, REMOTE, branch(&[], 1, None));
    assert!(decision.actions.contains(&Action::Follow(Some(remote()))), "{decision:?}");
    world.postgres(up(standby(1000))).later(100);
    let decision = world.tick();
    let leads = StandbyClusterReason::Leads { remote: name(REMOTE) };
    assert_eq!(decision.because, Reason::StandbyCluster(leads));
    assert_eq!(job(&decision), None);
}

/// It admits this member to replication, and to nothing else.
#[test]
fn a_remote_primary_that_does_not_tell_its_history_is_followed() {
    for (leads, source) in [(true, REMOTE), (false, "b")] {
        let mut world = world();
        if leads {
            world.i_lead();
        }
        world.receives_nothing();
        let mut follows = false;
        for _ in 0..30 {
            let decision = world.tick();
            follows |= decision.actions.contains(&Action::Follow(Some(remote())));
            untold(&mut world, source);
        }
        assert_eq!(follows, leads, "behind a member nothing goes without its history");
    }
}

/// A base backup, whose control file is that of the running primary.
#[test]
fn a_copy_of_a_remote_primary_that_does_not_tell_its_history_is_started() {
    let mut world = world();
    let mut copy = down(ControlState::InProduction);
    if let DataDirectory::Ready(control) = &mut copy.data {
        control.backup_label = true;
    }
    world.nobody_leads().postgres(copy);
    let mut starts = false;
    for _ in 0..30 {
        let decision = world.tick();
        let follow = Some(remote());
        starts |= matches!(job(&decision), Some(Job::StartStandby { follow: to, .. }) if *to == follow);
        untold(&mut world, REMOTE);
    }
    assert!(starts);
}

/// etcd was emptied, and PostgreSQL is down everywhere.
#[test]
fn without_a_cluster_in_etcd_it_starts_for_its_readers() {
    let mut world = world();
    world.cluster().initialize = None;
    world.nobody_leads().postgres(down(ControlState::ShutDownInRecovery));
    let decision = world.tick();
    assert!(
        matches!(job(&decision), Some(Job::StartStandby { follow: None, lowers: false, .. })),
        "{decision:?}"
    );
}

/// It does not depend on etcd whether the remote primary is the right source.
#[test]
fn the_leader_stays_with_a_silent_remote_primary() {
    let mut world = world();
    world.i_lead().receives_nothing();
    world.tick();
    told(&mut world, REMOTE, branch(&[], 1, None));
    for _ in 0..5 {
        let decision = told(&mut world, REMOTE, branch(&[], 1, None));
        assert!(!decision.actions.contains(&Action::Follow(None)), "{decision:?}");
    }
}

#[test]
fn without_the_section_the_leader_is_promoted() {
    let mut world = world();
    world.i_lead();
    world.tick();
    world.seen.settings.standby_cluster = None;
    let decision = world.later(100).tick();
    assert_eq!(job(&decision).map(Job::kind), Some(JobKind::Promote), "{decision:?}");
    assert_eq!(decision.because, Reason::Promoting);
}

/// The key `history` is that of a former life of the cluster.
#[test]
fn the_last_standby_leader_loses_nothing_by_its_promotion() {
    let mut world = world();
    let line = serde_json::json!([{ "parent": 1, "lsn": 10, "reason": "", "at": null, "promoted": null }]);
    world.cluster().history = serde_json::from_value(line).expect("a line");
    world.cluster().status.as_mut().expect("a status").optime = Some(Lsn(5 << 20));
    world.i_lead().postgres(up(standby(5 << 20)));
    world.tick();
    world.seen.settings.standby_cluster = None;
    assert_eq!(world.later(100).tick().because, Reason::Promoting);
}

fn empty() -> World {
    let mut world = world();
    world.cluster().initialize = None;
    world.cluster().members.retain(|member, _| *member == name("a"));
    world.nobody_leads().postgres(without(DataDirectory::Empty));
    world.seen.me.wait_for_members = Duration::ZERO;
    world
}

#[test]
fn a_new_standby_cluster_is_a_copy_of_the_remote_primary() {
    let mut world = empty();
    let decision = world.tick();
    let copies = |methods| Job::BootstrapStandby { seen: 100, from: Some(remote()), methods };
    assert_eq!(job(&decision), Some(&copies(CloneMethods::BasebackupOnly)), "{decision:?}");
    runs(&mut world, copies(CloneMethods::BasebackupOnly));
    let state = world.tick().memory.published.map(|(record, ..)| record.state);
    assert_eq!(state, Some(MemberState::CreatingReplica));
    world.seen.job = None;
    world.ends(JobKind::Bootstrap, Outcome::Failed("connection refused".to_owned())).later(100);
    let decision = world.tick();
    assert!(!decision.actions.iter().any(|action| matches!(action, Action::Exit(_))), "{decision:?}");
    assert_eq!(job(&decision), None, "not at once");
    let named = CloneMethods::Named(vec!["wal_g".to_owned()]);
    let section = world.seen.settings.standby_cluster.as_mut().expect("in force");
    section.methods = vec!["wal_g".to_owned()];
    let decision = world.later(6000).tick();
    assert_eq!(job(&decision), Some(&copies(named)), "{decision:?}");
}

#[test]
fn a_member_without_data_and_without_a_leader_copies_the_remote_primary() {
    let mut world = world();
    world.nobody_leads().postgres(without(DataDirectory::Empty));
    assert_eq!(world.tick().because, Reason::NoData(NoDataReason::NobodyToClone));
    let decision = world.later(11_000).tick();
    assert!(
        matches!(job(&decision), Some(Job::Clone { from: Some(from), .. }) if *from == remote()),
        "{decision:?}"
    );
}

/// A switchover moves the key. Nothing is stopped, and nothing is promoted.
#[test]
fn a_hand_over_stops_nothing() {
    let mut world = world();
    let mut sql = standby(1000);
    sql.sync = primary(1000).sync;
    world.i_lead().postgres(up(sql));
    let request =
        FailoverRequest { leader: Some(name("a")), candidate: Some(name("c")), ..FailoverRequest::default() };
    world.cluster().failover = Some(FailoverKey { request, mod_revision: 60 });
    world.tick();
    let asked = answer(world.later(10).now, 1000);
    let identity = world.seen.identity_of(&name("c")).expect("a view");
    world.seen.peers.insert(name("c"), matriarch::model::PeerAnswer { identity, ..asked });
    let decision = world.tick();
    assert!(
        matches!(job(&decision), Some(Job::HandOver { to, term: Term(50), .. }) if *to == name("c")),
        "{decision:?}"
    );
}

#[test]
fn a_restart_of_the_standby_leader_is_answered() {
    let mut world = world();
    world.i_lead();
    let ask = matriarch::model::Ask::Restart {
        at: None,
        filter: matriarch::model::RestartFilter {
            role: Some("standby_leader".to_owned()),
            ..Default::default()
        },
    };
    world.seen.requests.push(Request { id: RequestId(7), ask });
    world.later(100);
    let decision = world.tick();
    assert!(matches!(job(&decision), Some(Job::Stop { .. })), "{decision:?}");
    world.later(1000);
    let mut restarted = up(standby(1000));
    restarted.process = matriarch::model::Process::Up { pid: 43, since: world.now, standby_start: true };
    world.postgres(restarted);
    let decision = world.later(10).tick();
    let answered = Action::Answer { id: RequestId(7), reply: Reply::Restarted };
    assert!(decision.actions.contains(&answered), "{decision:?}");
}

/// What ends leadership does so in a standby cluster as well; a watchdog is for primaries.
#[test]
fn a_standby_leader_releases_the_key_when_its_pod_ends() {
    let mut world = world();
    world.i_lead().seen.watchdog_failed = true;
    assert_eq!(job(&world.tick()), None);
    world.seen.pod_end = Some(PodEnd::Deleting);
    let decision = world.later(100).tick();
    assert_eq!(job(&decision).map(Job::kind), Some(JobKind::ReleaseLeadership), "{decision:?}");
}

/// A postmaster that forks no more is stopped, and the key goes to a member that can lead.
#[test]
fn a_standby_leader_that_is_dead_gives_the_key_away() {
    let mut world = world();
    let mut postgres = up(standby(1000));
    postgres.liveness.verdict = LivenessVerdict::Dead(no_connection());
    world.i_lead().postgres(postgres.clone());
    let decision = world.tick();
    assert!(matches!(job(&decision), Some(Job::Stop { mode: StopMode::Immediate, .. })), "{decision:?}");
    world.postgres(down(ControlState::InArchiveRecovery)).ends(JobKind::Stop, Outcome::Done).later(100);
    world.answers("b", 1000).answers("c", 1000);
    let decision = world.tick();
    assert_eq!(job(&decision).map(Job::kind), Some(JobKind::ReleaseLeadership), "{decision:?}");
    // One that only follows is no one's business.
    let mut world = World::new();
    world.seen.settings.standby_cluster = StandbyCluster::following(&[("r".to_owned(), 5432)], None);
    let decision = world.postgres(postgres).tick();
    assert_eq!(job(&decision), None, "{decision:?}");
}
