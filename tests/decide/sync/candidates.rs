//! Which standbys become synchronous: their order, and how far behind one may be.

use matriarch::model::{CommitWait, Lsn, MemberKey, SyncMode, SyncState, Walsender};
use serde_json::{Value, json};

use super::super::world::{World, name, primary, up};
use super::{names, record, streams};

/// The position of the leader.
const LEADER: u64 = 2000;

/// A standby: its name, its tags, and its position.
type Candidate = (&'static str, Value, u64);

fn plain(member: &'static str, flushed: u64) -> Candidate {
    (member, json!({}), flushed)
}

/// a leads in this mode, and these standbys stream from it.
fn leading(mode: SyncMode, standbys: &[Candidate]) -> World {
    let mut world = World::new();
    world.synchronous(mode, record("a", 0, &[])).i_lead().postgres(up(primary(LEADER)));
    let example: MemberKey = world.cluster().members[&name("c")].clone();
    world.cluster().members.retain(|member, _| *member == name("a"));
    for (member, tags, _) in standbys {
        let mut key = example.clone();
        key.record.tags.0 = tags.as_object().expect("tags").clone();
        world.cluster().members.insert(name(member), key);
    }
    let sql = world.seen.postgres.sql.as_mut().expect("it answers");
    sql.sync.walsenders = standbys.iter().map(|(member, _, flushed)| streams(member, *flushed)).collect();
    world
}

impl World {
    fn walsender(&mut self, member: &str) -> &mut Walsender {
        let sql = self.seen.postgres.sql.as_mut().expect("it answers");
        sql.sync.walsenders.iter_mut().find(|standby| standby.name == member).expect("it streams")
    }

    /// The names that the leader sets first; `None`: it stays without.
    fn chosen(&mut self) -> Option<String> {
        self.names_in_effect("").tick();
        let decision = self.written(Some(record("a", 0, &[])), 201).names_in_effect("").tick();
        names(&decision.actions).pop().flatten()
    }

    fn maximum_lag(mut self, limit: Option<u64>) -> World {
        self.seen.settings.sync.maximum_lag = limit;
        self
    }
}

fn chosen_of(standbys: &[Candidate]) -> Option<String> {
    leading(SyncMode::On, standbys).chosen()
}

/// An operator's preference counts before everything that PostgreSQL reports.
#[test]
fn the_highest_sync_priority_is_chosen_first() {
    let preferred = |tags: Value| ("c", tags, 1000);
    assert_eq!(chosen_of(&[plain("b", 2000), preferred(json!({"sync_priority": 2}))]).as_deref(), Some("c"));
    assert_eq!(
        chosen_of(&[plain("b", 2000), preferred(json!({"sync_priority": "2"}))]).as_deref(),
        Some("c")
    );
    assert_eq!(chosen_of(&[plain("b", 2000), preferred(json!({"sync_priority": 1}))]).as_deref(), Some("b"));
    let both = [("b", json!({"sync_priority": 2}), 2000), ("c", json!({"sync_priority": 3}), 1000)];
    assert_eq!(chosen_of(&both).as_deref(), Some("c"));

    let mut world = leading(SyncMode::On, &[plain("b", 2000), preferred(json!({"sync_priority": 2}))]);
    world.walsender("b").sync = SyncState::Sync;
    world.walsender("c").sync = SyncState::Async;
    assert_eq!(world.chosen().as_deref(), Some("c"), "also before a standby that is synchronous now");
}

/// Of two standbys with the same priority, the synchronous one stays, although the other is ahead for a moment.
#[test]
fn among_equal_priorities_the_sync_state_decides() {
    let order = [SyncState::Sync, SyncState::Quorum, SyncState::Potential, SyncState::Async];
    for pair in order.windows(2) {
        let mut world = leading(SyncMode::On, &[plain("b", 2000), plain("c", 1000)]);
        world.walsender("b").sync = pair[1];
        world.walsender("c").sync = pair[0];
        assert_eq!(world.chosen().as_deref(), Some("c"), "{pair:?}");
    }
}

#[test]
fn among_equal_sync_states_the_position_decides_and_then_the_name() {
    assert_eq!(chosen_of(&[plain("b", 1000), plain("c", 2000)]).as_deref(), Some("c"));
    assert_eq!(chosen_of(&[plain("c", 2000), plain("b", 2000)]).as_deref(), Some("b"));
}

/// A commit that such a member alone confirmed would have no member that can lead with it.
#[test]
fn a_member_that_must_not_lead_is_chosen_last() {
    let mut last = leading(
        SyncMode::On,
        &[("b", json!({"nofailover": true, "sync_priority": 9}), 2000), plain("c", 1000)],
    );
    last.walsender("b").sync = SyncState::Sync;
    last.walsender("c").sync = SyncState::Async;
    assert_eq!(last.chosen().as_deref(), Some("c"));
    assert_eq!(
        chosen_of(&[("b", json!({"nofailover": true}), 2000)]).as_deref(),
        Some("b"),
        "no other is left"
    );

    // In mode quorum it only fills up the wanted count.
    let standbys = [("b", json!({"nofailover": true}), 2000), plain("c", 2000)];
    assert_eq!(leading(SyncMode::Quorum, &standbys).chosen().as_deref(), Some("ANY 1 (c)"));
    let mut two = leading(SyncMode::Quorum, &standbys);
    two.seen.settings.sync.node_count = 2;
    assert_eq!(two.chosen().as_deref(), Some("ANY 2 (b,c)"));
}

#[test]
fn a_member_that_is_never_synchronous_is_not_chosen() {
    for tags in [json!({"nosync": true}), json!({"sync_priority": 0}), json!({"sync_priority": -1})] {
        assert_eq!(chosen_of(&[("b", tags.clone(), 2000)]), None, "{tags}");
    }
    let explicit = json!({"nosync": false, "sync_priority": 0});
    assert_eq!(chosen_of(&[("b", explicit, 2000)]).as_deref(), Some("b"), "nosync wins over the priority");
}

/// `synchronous_node_count` standbys are chosen, the best ones.
#[test]
fn the_best_of_several_are_chosen() {
    let standbys = [plain("b", 1000), plain("c", 2000), ("d", json!({"sync_priority": 2}), 500)];
    let mut world = leading(SyncMode::On, &standbys);
    world.seen.settings.sync.node_count = 2;
    assert_eq!(world.chosen().as_deref(), Some("2 (c,d)"));
}

/// `maximum_lag_on_syncnode`: a standby that is too far behind the furthest one is not chosen, however much it is
/// preferred. Behind by exactly the limit is not too far.
#[test]
fn a_standby_beyond_the_maximum_lag_is_not_chosen() {
    let standbys = |behind: u64| [plain("b", 1500), ("c", json!({"sync_priority": 2}), 1500 - behind)];
    let chosen = |behind, limit| leading(SyncMode::On, &standbys(behind)).maximum_lag(limit).chosen();
    assert_eq!(chosen(1500, None).as_deref(), Some("c"), "the limit is off");
    assert_eq!(chosen(100, Some(100)).as_deref(), Some("c"), "the limit is reached");
    assert_eq!(chosen(101, Some(100)).as_deref(), Some("b"), "a byte more");
}

/// Several standbys are compared with each other: all of them may be behind the leader, and one is better than none.
#[test]
fn several_standbys_are_compared_with_the_furthest_of_them() {
    let standbys = [plain("b", 1000), plain("c", 1000)];
    assert_eq!(leading(SyncMode::On, &standbys).maximum_lag(Some(100)).chosen().as_deref(), Some("b"));
    // A standby that is never synchronous is not compared.
    let standbys = [plain("b", 1000), plain("c", 1050), ("d", json!({"nosync": true}), LEADER)];
    assert_eq!(leading(SyncMode::On, &standbys).maximum_lag(Some(100)).chosen().as_deref(), Some("c"));
}

/// The only standby is compared with the leader's own position.
#[test]
fn the_only_standby_is_compared_with_the_leader() {
    let chosen = |flushed| leading(SyncMode::On, &[plain("b", flushed)]).maximum_lag(Some(100)).chosen();
    assert_eq!(chosen(LEADER - 100).as_deref(), Some("b"));
    assert_eq!(chosen(LEADER - 101), None);
    assert_eq!(chosen(LEADER + 1).as_deref(), Some("b"), "its position is the newer observation");
}

/// The position is the one that commits wait for.
#[test]
fn the_lag_is_that_of_the_position_commits_wait_for() {
    for (wait, chosen) in [(CommitWait::Flushed, Some("b")), (CommitWait::Replayed, None)] {
        let mut world = leading(SyncMode::On, &[plain("b", LEADER)]).maximum_lag(Some(100));
        world.walsender("b").replayed = Some(Lsn(1000));
        world.seen.postgres.sql.as_mut().expect("it answers").sync.wait = wait;
        assert_eq!(world.chosen().as_deref(), chosen, "{wait:?}");
    }
}
