//! Scripts of the operator: when they make a replica, and when one runs before a promotion.

use matriarch::model::{
    Action, Branch, CloneMethods, ControlFile, ControlState, DataDirectory, Job, JobKind, LeaderBranch,
    Leading, Lsn, MemberState, NoDataReason, Outcome, Reason, RunningJob, SyncMode, Term, Timeline,
    TimelineHistory,
};

use super::scenarios::jobs;
use super::sync::record;
use super::world::{SYSTEM_ID, World, control, name, standby, up, without};

/// The clone that begins, with the reason.
fn clone(world: &mut World) -> (Option<(bool, CloneMethods)>, Reason) {
    let decision = world.tick();
    let begun = decision.actions.iter().find_map(|action| match action {
        Action::Start(Job::Clone { from, methods, system_id }) => {
            assert_eq!(*system_id, Some(SYSTEM_ID));
            Some((from.is_some(), methods.clone()))
        }
        _other => None,
    });
    (begun, decision.because)
}

#[test]
fn an_empty_member_is_made_by_the_configured_methods() {
    let mut world = World::new();
    world.postgres(without(DataDirectory::Empty));
    assert_eq!(clone(&mut world).0, Some((true, CloneMethods::Configured)));
}

/// It has confirmed commits that the archive may lack.
#[test]
fn a_member_that_commits_count_on_is_copied_from_the_leader() {
    for (voters, methods) in
        [(&["a", "c"][..], CloneMethods::BasebackupOnly), (&["c"][..], CloneMethods::Configured)]
    {
        let mut world = World::new();
        world.synchronous(SyncMode::Quorum, record("b", 1, voters));
        world.postgres(without(DataDirectory::Empty));
        assert_eq!(clone(&mut world).0, Some((true, methods)), "{voters:?}");
    }
}

fn nobody_leads() -> World {
    let mut world = World::new();
    world.nobody_leads().postgres(without(DataDirectory::Empty));
    world.seen.me.scripts.replica_without_leader = true;
    world
}

const WAITS: (Option<(bool, CloneMethods)>, Reason) = (None, Reason::NoData(NoDataReason::NobodyToClone));

/// A leader that appears within a TTL is the better source.
#[test]
fn a_method_that_needs_no_leader_begins_after_a_ttl_without_one() {
    let mut world = nobody_leads();
    assert_eq!(clone(&mut world), WAITS);
    assert_eq!(clone(world.later(9_999)), WAITS);
    let begun = Some((false, CloneMethods::Configured));
    assert_eq!(clone(world.later(1)), (begun, Reason::NoData(NoDataReason::ReplicaOfNobody)));
    let mut world = nobody_leads();
    world.seen.me.scripts.replica_without_leader = false;
    clone(&mut world);
    assert_eq!(clone(world.later(60_000)), WAITS);
}

#[test]
fn a_member_that_commits_count_on_is_not_made_without_a_leader() {
    let mut world = nobody_leads();
    world.synchronous(SyncMode::Quorum, record("b", 1, &["a", "c"]));
    clone(&mut world);
    assert_eq!(clone(world.later(60_000)), WAITS);
}

/// The method that made it would make the same again.
#[test]
fn a_useless_copy_is_replaced_by_a_base_backup() {
    let copy = ControlFile { backup_label: true, ..control(ControlState::InProduction) };
    for (asked, methods) in [(None, CloneMethods::BasebackupOnly), (Some(false), CloneMethods::Configured)] {
        let mut world = World::new();
        world.postgres(without(DataDirectory::Ready(copy.clone())));
        world.memory.reinitialize = asked;
        world.memory.failures.starts = 10;
        world.memory.rejoin.clone_failures = 1;
        world.memory.rejoin.rejoin_alone_failed = true;
        world.seen.settings.remove_data_directory_on_diverged_timelines = true;
        let branch = Branch { history: TimelineHistory::default(), timeline: Timeline(1), end: None };
        let (asked_at, answer) = (world.now, Ok(branch));
        let told = LeaderBranch { name: name("b"), asked_at, answer, has_slot: true, oldest: Lsn(0) };
        world.seen.leader_branch = Some(told);
        assert_eq!(clone(&mut world).0, Some((true, methods)), "{asked:?}");
    }
}

/// I lead, and my standby is ready for its promotion.
fn to_be_promoted() -> World {
    let mut world = World::new();
    world.i_lead().postgres(up(standby(1000)));
    world.seen.me.scripts.pre_promote = true;
    world
}

/// In a new term.
fn leads_again(world: &mut World) {
    world.i_lead().cluster().revision = 200;
    world.seen.lease.leading = Leading::Yes(Term(150));
    world.cluster().leader.as_mut().expect("I lead").term = Term(150);
}

fn outcome(world: &mut World) -> (Vec<JobKind>, Reason) {
    let decision = world.tick();
    (jobs(&decision.actions), decision.because)
}

#[test]
fn pre_promote_runs_once_in_a_term_before_the_promotion() {
    let mut world = to_be_promoted();
    assert_eq!(outcome(&mut world), (vec![JobKind::PrePromote], Reason::PrePromote));
    world.later(100).ends(JobKind::PrePromote, Outcome::Done);
    assert_eq!(outcome(&mut world), (vec![JobKind::Promote], Reason::Promoting));
    world.later(100).ends(JobKind::Promote, Outcome::Failed("late".to_owned()));
    world.tick();
    assert_eq!(outcome(world.later(5_000)), (vec![JobKind::Promote], Reason::Promoting));
    leads_again(&mut world);
    assert_eq!(outcome(world.later(5_000)), (vec![JobKind::PrePromote], Reason::PrePromote));
}

/// The other members have one TTL for themselves.
#[test]
fn after_a_failed_pre_promote_another_member_may_lead() {
    let mut world = to_be_promoted();
    world.tick();
    world.later(100).ends(JobKind::PrePromote, Outcome::Failed("exit status: 1".to_owned()));
    assert_eq!(outcome(&mut world), (vec![JobKind::ReleaseLeadership], Reason::PrePromoteFailed));
    world.ends(JobKind::ReleaseLeadership, Outcome::Done);
    world.nobody_leads().seen.lease.leading = Leading::No;
    world.later(100).answers("b", 1000).answers("c", 1000);
    assert_eq!(outcome(&mut world).0, []);
    assert!(world.memory.stands_back(world.now));
}

/// Without the leadership, or at the end of the supervisor, it serves no purpose.
#[test]
fn pre_promote_ends_with_the_leadership() {
    let cancelled = |world: &mut World| world.tick().actions.contains(&Action::CancelJob);
    let running = || {
        let mut world = to_be_promoted();
        world.tick();
        let job = Job::PrePromote { term: Term(50) };
        world.seen.job = Some(RunningJob { job, since: world.now });
        world
    };
    assert!(!cancelled(running().later(100)));
    let mut world = running();
    world.seen.shutting_down = true;
    assert!(cancelled(world.later(100)));
    let mut world = running();
    world.nobody_leads().seen.lease.leading = Leading::No;
    assert!(cancelled(world.later(100)));
    world.seen.job = None;
    world.later(100).ends(JobKind::PrePromote, Outcome::Cancelled);
    leads_again(&mut world);
    assert_eq!(outcome(&mut world), (vec![JobKind::PrePromote], Reason::PrePromote));
}

#[test]
fn a_bootstrap_by_a_script_is_published() {
    let mut world = World::new();
    world.nobody_leads().postgres(without(DataDirectory::Empty)).seen.me.scripts.custom_bootstrap = true;
    world.seen.job = Some(RunningJob { job: Job::Bootstrap { seen: 1 }, since: world.now });
    let (record, ..) = world.tick().memory.published.expect("it is published");
    assert_eq!(record.state, MemberState::RunningCustomBootstrapScript);
}
