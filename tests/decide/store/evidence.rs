//! Evidence that a store was restored although its revision is not lower, and its effect on a member that was away.

use matriarch::model::{
    ClusterStatus, FailoverKey, FailoverRequest, Leading, Lsn, Outcome, Reason, StoreChange, StoreMark,
    StoreReason, SyncMode, Term,
};

use super::super::sync::record;
use super::super::world::{MY_LEASE, World, leader, name};
use super::{JobKind, generations, jobs};

/// The first member that writes raises a restored revision again, before any member has recorded that it fell.
#[test]
fn a_contradiction_stands_until_a_generation_explains_it() {
    let mut world = World::b_leads_in_quorum_mode();
    world.is_restored(40).later(5).tick();
    (world.cluster().revision, world.cluster().listed) = (5000, 5000);
    (world.cluster().leader, world.cluster().sync) = (None, None);
    let noticed = world.later(1000).tick();
    assert!(matches!(noticed.because, Reason::Store(StoreReason::WentBack(_))), "{}", noticed.because);
    let begun = generations(&noticed.actions);
    let explained = world.later(5).generation_begins(&begun[0]).tick();
    assert!(!matches!(explained.because, Reason::Store(StoreReason::WentBack(_))), "{}", explained.because);
}

/// Nothing is ever removed from the key `generation`: if content is missing, it belongs to another store.
#[test]
fn a_generation_that_is_gone_is_noticed() {
    let mut world = World::b_leads_in_quorum_mode();
    let begun = generations(&world.is_restored(40).later(5).tick().actions);
    world.later(5).generation_begins(&begun[0]).tick();
    world.cluster().generation = None;
    (world.cluster().revision, world.cluster().listed) = (5000, 5000);
    let change = StoreChange::GenerationGone;
    assert_eq!(world.later(5).tick().because, Reason::Store(StoreReason::WentBack(change)));
}

/// A member that was away since before the snapshot sees no contradiction; other members report the newest revision
/// that they saw.
#[test]
fn a_member_that_was_away_is_denied_what_others_know_better() {
    for (heard, promotes) in [(100, true), (101, false)] {
        let mut world = World::b_leads_in_quorum_mode();
        world.synchronous(SyncMode::Quorum, record("b", 0, &["a"]));
        world.nobody_leads().tick();
        world.later(5).answers("b", 900).answers("c", 900);
        let store = StoreMark { cluster_id: world.cluster().cluster_id, revision: heard };
        world.seen.peers.get_mut(&name("c")).expect("it has answered").store = store;
        let taken = world.tick();
        assert_eq!(jobs(&taken.actions), [JobKind::TakeLeadership], "{}", taken.because);
        let mut mine = leader("a", MY_LEASE);
        mine.term = Term(101);
        world.cluster().leader = Some(mine);
        (world.cluster().revision, world.cluster().listed) = (101, 101);
        world.seen.lease.leading = Leading::Yes(Term(101));
        let decision = world.later(5).tick();
        let change = StoreChange::RevisionFell { before: heard, now: 101 };
        let denied = decision.because == Reason::Store(StoreReason::WentBack(change));
        let begun = generations(&decision.actions).len();
        assert_eq!((denied, begun), (!promotes, usize::from(!promotes)), "{}", decision.because);
    }
}

/// The answer to the write is lost, and members are queried again. By then they may have seen a newer revision than the
/// one written first, and that may be the revision under which this member leads.
#[test]
fn sightings_after_the_first_write_deny_nothing() {
    let mut world = World::b_leads_in_quorum_mode();
    world.synchronous(SyncMode::Quorum, record("b", 0, &["a"]));
    world.nobody_leads().tick();
    let cluster_id = world.cluster().cluster_id;
    for seen in [100, 140] {
        world.later(5).answers("b", 900).answers("c", 900);
        let store = StoreMark { cluster_id, revision: seen };
        world.seen.peers.get_mut(&name("c")).expect("it has answered").store = store;
        let taken = world.tick();
        assert_eq!(jobs(&taken.actions), [JobKind::TakeLeadership], "{}", taken.because);
        world.ends(JobKind::TakeLeadership, Outcome::Unknown("no answer in time".to_owned()));
    }
    let mut mine = leader("a", MY_LEASE);
    mine.term = Term(101);
    world.cluster().leader = Some(mine);
    (world.cluster().revision, world.cluster().listed) = (141, 141);
    world.seen.lease.leading = Leading::Yes(Term(101));
    let decision = world.later(5).tick();
    assert_eq!(generations(&decision.actions), [], "{}", decision.because);
}

/// A switchover that was requested in the meantime names a member with less WAL: it does not go first, and no member
/// waits for it.
#[test]
fn a_candidate_that_holds_less_is_not_waited_for() {
    let mut world = World::b_leads_in_quorum_mode();
    let begun = generations(&world.is_restored(40).later(5).tick().actions);
    world.later(5).generation_begins(&begun[0]);
    world.cluster().failover = Some(FailoverKey {
        request: FailoverRequest {
            leader: Some(name("b")),
            candidate: Some(name("c")),
            ..Default::default()
        },
        mod_revision: 43,
    });
    (world.cluster().revision, world.cluster().listed) = (43, 43);
    world.tick();
    world.later(5).answers("b", 900).answers("c", 900);
    let decision = world.tick();
    assert_eq!(jobs(&decision.actions), [JobKind::TakeLeadership], "{}", decision.because);
}

/// The position in the restored store belongs to another history. A member that answers that it holds no more WAL bars
/// no candidate; a silent one may hold it.
#[test]
fn the_lag_limit_bars_only_while_somebody_is_silent() {
    let mut world = World::new();
    world.tick();
    let begun = generations(&world.later(5).is_lost_without_record().tick().actions);
    world.later(5).generation_begins(&begun[0]);
    world.cluster().status = Some(ClusterStatus { optime: Some(Lsn(1 << 40)), ..ClusterStatus::default() });
    world.tick();
    let ttl = world.seen.settings.ttl.as_millis() as u64;
    world.later(ttl).answers("b", 900).answers("c", 900).tick();
    world.seen.peers.get_mut(&name("c")).expect("it has answered").reachable = false;
    let barred = world.tick();
    assert!(matches!(barred.because, Reason::TooFarBehind { .. }), "{}", barred.because);
    world.later(ttl).answers("b", 900).answers("c", 900);
    let proved = world.tick();
    assert_eq!(jobs(&proved.actions), [JobKind::TakeLeadership], "{}", proved.because);
}
