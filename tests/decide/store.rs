//! etcd's store went back in time, was emptied or replaced: no action may rest on its content.

use matriarch::model::{
    Action, ControlState, FailoverKey, FailoverRequest, GenerationKey, GenerationWrite, Job, JobKind,
    Leading, Reason, StoreChange, StoreGeneration, StoreReason, SyncKey, SyncMode, Term, UnfencedKey,
};

use super::sync::record;
use super::world::{MY_LEASE, SYSTEM_ID, THEIR_LEASE, World, down, leader, name, primary, standby, up};

mod claims;
mod evidence;
mod failsafe;
mod unfenced;

fn jobs(actions: &[Action]) -> Vec<JobKind> {
    let job = |action: &Action| match action {
        Action::Start(job) => Some(job.kind()),
        _ => None,
    };
    actions.iter().filter_map(job).collect()
}

fn generations(actions: &[Action]) -> Vec<GenerationWrite> {
    let write = |action: &Action| match action {
        Action::WriteGeneration(write) => Some(write.clone()),
        _ => None,
    };
    actions.iter().filter_map(write).collect()
}

impl World {
    /// b leads in quorum mode in term 50; one of a and c confirms; a no longer streams.
    fn b_leads_in_quorum_mode() -> World {
        let mut world = World::new();
        world.synchronous(SyncMode::Quorum, record("b", 1, &["a", "c"]));
        world.receives_nothing().tick();
        world
    }

    /// etcd is restored from a snapshot of the time when a led, under the lease that a still holds.
    fn is_restored(&mut self, revision: i64) -> &mut World {
        let mut key = leader("a", MY_LEASE);
        key.term = Term(30);
        self.cluster().leader = Some(key);
        (self.cluster().revision, self.cluster().listed) = (revision, revision);
        self.cluster().sync = Some(SyncKey { record: record("a", 1, &["b", "c"]), mod_revision: 31 });
        self.seen.lease.leading = Leading::Yes(Term(30));
        self
    }

    /// The keys after the transaction.
    fn generation_begins(&mut self, write: &GenerationWrite) -> &mut World {
        let GenerationWrite::Begin { record, unfenced, .. } = write else { panic!("{write:?}") };
        let revision = self.cluster().revision + 1;
        let cluster = self.cluster();
        if !unfenced.is_empty() {
            cluster.unfenced = Some(UnfencedKey { primaries: unfenced.clone(), mod_revision: revision });
        }
        (cluster.leader, cluster.sync, cluster.failover) = (None, None, None);
        cluster.generation = Some(GenerationKey { record: record.clone(), mod_revision: revision });
        (cluster.revision, cluster.listed) = (revision, revision);
        self.seen.lease.leading = Leading::No;
        self
    }
}

/// A snapshot is taken while a leads. b takes over, and c confirms the commits that b acknowledges. etcd is restored: a
/// finds the key under its own valid lease, and the record of synchronous replication names it.
#[test]
fn a_leader_key_of_a_restored_store_promotes_nobody() {
    let mut world = World::b_leads_in_quorum_mode();
    let noticed = world.is_restored(40).later(5).tick();
    let change = StoreChange::RevisionFell { before: 100, now: 40 };
    assert_eq!(
        (jobs(&noticed.actions), noticed.because),
        (vec![], Reason::Store(StoreReason::WentBack(change)))
    );
    let writes = generations(&noticed.actions);
    let GenerationWrite::Begin { over, record, .. } = &writes[0] else { panic!("{writes:?}") };
    assert_eq!((*over, record.settled), ([30, 31, 0, 0], false));
    assert_eq!(record.promised, ["a", "b", "c"].map(name).into());
    assert_eq!(generations(&world.later(5).tick().actions), [], "one write at a time");

    world.later(5).generation_begins(&writes[0]).tick();
    world.later(5).answers("c", 2000).answers("b", 900);
    let decision = world.tick();
    assert_eq!(jobs(&decision.actions), []);
    assert!(matches!(decision.because, Reason::MemberAhead { .. }), "{}", decision.because);
    world.later(5).answers("c", 1000).answers("b", 900);
    world.seen.peers.get_mut(&name("b")).expect("it has answered").reachable = false;
    assert_eq!(world.tick().because, Reason::Store(StoreReason::Unsettled { missing: vec![name("b")] }));
    world.later(5).answers("c", 1000).answers("b", 900);
    assert_eq!(jobs(&world.tick().actions), [JobKind::TakeLeadership]);
}

/// The store does not know the timelines that were begun after the snapshot, and a member that knows them may be
/// silent.
#[test]
fn a_promotion_in_an_unsettled_store_passes_over_timelines() {
    let mut world = World::b_leads_in_quorum_mode();
    world.seen.settings.sync.mode = SyncMode::Off;
    let begun = generations(&world.is_restored(40).later(5).tick().actions);
    world.later(5).generation_begins(&begun[0]).tick();
    let mut mine = leader("a", MY_LEASE);
    mine.term = Term(42);
    world.cluster().leader = Some(mine);
    (world.cluster().revision, world.cluster().listed) = (42, 42);
    world.seen.lease.leading = Leading::Yes(Term(42));
    let promoted = world.later(5).tick();
    let above = promoted.actions.iter().find_map(|action| match action {
        Action::Start(Job::Promote { above, .. }) => Some(above.0),
        _ => None,
    });
    assert!(above.is_some_and(|above| 16 < above), "{:?}", promoted.actions);
}

/// The restored revision was raised, or has caught up with the seen one: the key still shows an old write.
#[test]
fn a_revision_that_caught_up_hides_nothing() {
    let mut world = World::b_leads_in_quorum_mode();
    let noticed = world.is_restored(1_000_000).later(5).tick();
    let change = StoreChange::KeyReturned { key: "leader".to_owned(), revision: 30 };
    assert_eq!(
        (jobs(&noticed.actions), noticed.because),
        (vec![], Reason::Store(StoreReason::WentBack(change)))
    );
}

/// The next list shows changes that a watch has missed: they are not writes of another store.
#[test]
fn a_write_that_a_watch_has_missed_voids_nothing() {
    let mut world = World::new();
    world.tick();
    world.cluster().revision = 130;
    world.later(5).tick();
    let cluster = world.cluster();
    cluster.leader.as_mut().expect("b leads").term = Term(120);
    (cluster.revision, cluster.listed) = (140, 140);
    assert_eq!(generations(&world.later(5).tick().actions), []);
}

#[test]
fn another_etcd_behind_the_same_address_is_noticed() {
    let mut world = World::b_leads_in_quorum_mode();
    world.is_restored(1_000_000).cluster().cluster_id = 7;
    let change = StoreChange::OtherCluster { before: 0xE7CD, now: 7 };
    assert_eq!(world.later(5).tick().because, Reason::Store(StoreReason::WentBack(change)));
}

/// An operator has put keys back from a copy: the leader key is on no lease, and would stay for ever.
#[test]
fn a_leader_key_without_a_lease_is_void() {
    let mut world = World::new();
    world.tick();
    let key = world.cluster().leader.as_mut().expect("b leads");
    (key.lease, key.term) = (None, Term(101));
    (world.cluster().revision, world.cluster().listed) = (101, 101);
    let noticed = world.later(5).tick();
    let change = StoreChange::LeaderWithoutLease;
    assert_eq!(
        (jobs(&noticed.actions), noticed.because),
        (vec![], Reason::Store(StoreReason::WentBack(change)))
    );
}

/// The key `sync` was put back from a copy after the generation had begun: its promise counts for no member, and a
/// switchover is void too.
#[test]
fn a_restored_sync_key_confirms_no_member() {
    let mut world = World::b_leads_in_quorum_mode();
    let begun = generations(&world.is_restored(40).later(5).tick().actions);
    world.later(5).generation_begins(&begun[0]).tick();
    world.cluster().sync = Some(SyncKey { record: record("a", 1, &["b", "c"]), mod_revision: 42 });
    world.cluster().failover = Some(FailoverKey {
        request: FailoverRequest {
            leader: Some(name("b")),
            candidate: Some(name("a")),
            ..Default::default()
        },
        mod_revision: 43,
    });
    (world.cluster().revision, world.cluster().listed) = (43, 43);
    world.later(5).tick();
    world.later(5).answers("c", 2000).answers("b", 900);
    let decision = world.tick();
    assert_eq!(jobs(&decision.actions), []);
    assert!(matches!(decision.because, Reason::MemberAhead { .. }), "{}", decision.because);
}

/// Other members have begun the generation: a member that comes later begins no other one, and has the explanation of
/// its contradiction.
#[test]
fn a_generation_explains_what_a_late_member_finds() {
    let mut world = World::b_leads_in_quorum_mode();
    let begun = generations(&world.is_restored(40).later(5).tick().actions);
    let mut late = World::b_leads_in_quorum_mode();
    late.is_restored(40).generation_begins(&begun[0]);
    assert_eq!(generations(&late.later(5).tick().actions), []);
    // A second restore, from the same snapshot: the known generation does not explain it.
    late.cluster().generation = None;
    assert_eq!(generations(&late.is_restored(40).later(5).tick().actions).len(), 1);
}

/// A running primary finds the store emptied: it continues to lead only when it is proved to have the newest data, and
/// reports that.
#[test]
fn a_running_primary_is_proved_before_it_leads_on() {
    let mut world = World::new();
    world.synchronous(SyncMode::Quorum, record("a", 1, &["b", "c"])).i_lead();
    world.postgres(up(primary(1000))).tick();
    let cluster = world.cluster();
    (cluster.leader, cluster.sync, cluster.initialize, cluster.revision) = (None, None, None, 2);
    world.seen.lease.leading = Leading::No;
    let noticed = world.later(5).tick();
    assert_eq!(jobs(&noticed.actions), []);
    let writes = generations(&noticed.actions);
    let silent = world.later(5).generation_begins(&writes[0]).tick();
    assert_eq!(silent.because, Reason::Store(StoreReason::Unsettled { missing: vec![name("b"), name("c")] }));
    world.later(5).answers("b", 900).answers("c", 1000);
    assert_eq!(jobs(&world.tick().actions), [JobKind::TakeLeadership]);

    let mut taken = leader("a", MY_LEASE);
    taken.term = Term(4);
    world.cluster().leader = Some(taken);
    (world.cluster().revision, world.seen.lease.leading) = (4, Leading::Yes(Term(4)));
    assert_eq!(generations(&world.later(5).tick().actions), [], "nobody is promised anything yet");
    world.cluster().sync = Some(SyncKey { record: record("a", 1, &["b", "c"]), mod_revision: 5 });
    (world.cluster().revision, world.cluster().listed) = (5, 5);
    assert_eq!(
        generations(&world.later(5).tick().actions),
        [],
        "without the key initialize nobody may lead after me"
    );
    world.cluster().initialize = Some(SYSTEM_ID.to_string());
    let settled = generations(&world.later(5).tick().actions);
    assert!(
        matches!(&settled[..], [GenerationWrite::Settle { term: Term(4), over: 3, record }] if record.settled)
    );
}

/// An operator makes a member the leader without the members that do not come back.
#[test]
fn a_failover_overrides_what_is_unsettled_when_no_old_lease_can_live() {
    let mut world = World::b_leads_in_quorum_mode();
    let begun = generations(&world.is_restored(40).later(5).tick().actions);
    world.later(5).generation_begins(&begun[0]).tick();
    world.cluster().failover = Some(FailoverKey {
        request: FailoverRequest { candidate: Some(name("a")), ..Default::default() },
        mod_revision: 43,
    });
    assert_eq!(world.later(5).tick().because, Reason::Store(StoreReason::OldLeases));
    world.later(world.seen.settings.ttl.as_millis() as u64);
    assert_eq!(jobs(&world.tick().actions), [JobKind::TakeLeadership]);
}

/// Without synchronous replication the wait is limited, but lasts at least one TTL, so that no lease of the old store
/// remains.
#[test]
fn without_a_promise_silent_members_are_waited_for_a_ttl() {
    let mut world = World::new();
    world.tick();
    let begun = generations(&world.later(5).is_lost_without_record().tick().actions);
    world.later(5).generation_begins(&begun[0]).tick();
    world.later(5).answers("c", 1000).answers("b", 900);
    world.seen.peers.get_mut(&name("b")).expect("it has answered").reachable = false;
    assert_eq!(world.tick().because, Reason::Store(StoreReason::Unsettled { missing: vec![name("b")] }));
    world.later(world.seen.settings.ttl.as_millis() as u64).answers("c", 1000).answers("b", 900);
    world.seen.peers.get_mut(&name("b")).expect("it has answered").reachable = false;
    assert_eq!(jobs(&world.tick().actions), [JobKind::TakeLeadership]);
}

impl World {
    fn is_lost_without_record(&mut self) -> &mut World {
        (self.cluster().leader, self.cluster().revision) = (None, 40);
        self
    }
}

/// An emptied store shows no members: the members that were there before are waited for all the same.
#[test]
fn members_of_whom_an_emptied_store_knows_nothing_are_waited_for() {
    let mut world = World::new();
    world.tick();
    let cluster = world.cluster();
    (cluster.leader, cluster.initialize, cluster.revision) = (None, None, 2);
    cluster.members.clear();
    let begun = generations(&world.later(5).tick().actions);
    let waits = world.later(5).generation_begins(&begun[0]).tick();
    let missing = vec![name("b"), name("c")];
    assert_eq!(
        (jobs(&waits.actions), &waits.because),
        (vec![], &Reason::Store(StoreReason::Unsettled { missing }))
    );
    let ttl = world.seen.settings.ttl.as_millis() as u64;
    assert_eq!(jobs(&world.later(ttl).tick().actions), [JobKind::TakeLeadership]);
}

/// If one of them reports that it has no data, its data is not waited for. Two such members would be all there are.
#[test]
fn a_member_that_lost_its_data_is_not_waited_for() {
    let mut world = World::b_leads_in_quorum_mode();
    let begun = generations(&world.is_restored(40).later(5).tick().actions);
    world.later(5).generation_begins(&begun[0]).tick();
    let lost = |world: &mut World, text: &str| {
        let answer = world.seen.peers.get_mut(&name(text)).expect("it has answered");
        (answer.reachable, answer.no_data) = (false, true);
    };
    world.later(5).answers("c", 900).answers("b", 900);
    lost(&mut world, "b");
    lost(&mut world, "c");
    let both = Reason::Store(StoreReason::Unsettled { missing: vec![name("b"), name("c")] });
    assert_eq!(world.tick().because, both);
    world.later(5).answers("c", 900).answers("b", 900);
    lost(&mut world, "b");
    assert_eq!(jobs(&world.tick().actions), [JobKind::TakeLeadership]);
}

/// Seen facts count only for the data with which they were seen: an empty volume does not void the store of the cluster
/// that it joins.
#[test]
fn a_member_without_data_voids_nothing() {
    let mut world = World::b_leads_in_quorum_mode();
    world.postgres(super::world::without(matriarch::model::DataDirectory::Empty));
    world.cluster().leader = Some(leader("b", THEIR_LEASE));
    world.cluster().revision = 40;
    let joined = world.later(5).tick();
    assert_eq!(generations(&joined.actions), []);
    assert!(matches!(&joined.actions[0], Action::Start(Job::Clone { .. })), "{:?}", joined.actions);
}

/// Nor does such a member make a new cluster in an emptied store: members with data rebuild the previous one.
#[test]
fn a_member_without_data_makes_no_new_cluster_in_an_emptied_store() {
    let mut world = World::b_leads_in_quorum_mode();
    world.postgres(super::world::without(matriarch::model::DataDirectory::Empty));
    let cluster = world.cluster();
    (cluster.leader, cluster.sync, cluster.initialize, cluster.revision) = (None, None, None, 2);
    cluster.members.clear();
    let waits = world.later(5).tick();
    let change = StoreChange::RevisionFell { before: 100, now: 2 };
    assert_eq!((generations(&waits.actions), jobs(&waits.actions)), (vec![], vec![]));
    assert_eq!(waits.because, Reason::Store(StoreReason::WentBack(change)));
}

/// The store is emptied, and only standbys are left: the newest rebuilds it once all have answered.
#[test]
fn a_standby_rebuilds_an_emptied_store() {
    let mut world = World::b_leads_in_quorum_mode();
    let cluster = world.cluster();
    (cluster.leader, cluster.sync, cluster.initialize, cluster.revision) = (None, None, None, 2);
    world.postgres(down(ControlState::ShutDownInRecovery));
    let begun = generations(&world.later(5).tick().actions);
    let starts = world.later(5).generation_begins(&begun[0]).tick();
    assert_eq!(jobs(&starts.actions), [JobKind::StartStandby]);
    let mut mine = standby(1000);
    if let matriarch::model::Standby::Yes { receiver, .. } = &mut mine.standby {
        *receiver = None;
    }
    world.postgres(up(mine)).later(5).answers("b", 900).answers("c", 1000);
    assert_eq!(jobs(&world.tick().actions), [JobKind::TakeLeadership]);
}

/// An unreadable value counts as a generation too, one that is not confirmed.
#[test]
fn a_generation_is_unsettled_until_it_says_otherwise() {
    assert!(!StoreGeneration::default().settled);
}
