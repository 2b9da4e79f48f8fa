//! Slots: those of members, permanent ones, and those that no member needs.

use std::collections::BTreeMap;
use std::time::Duration;

use matriarch::model::{
    Action, ClusterStatus, Lsn, SlotChanges, SlotFacts, SlotKind, SlotPattern, SqlFacts, Tags,
};
use serde_json::json;

mod logical;

use super::world::{World, name, primary, standby, up};

fn sql(world: &mut World) -> &mut SqlFacts {
    world.seen.postgres.sql.as_mut().expect("it runs")
}

fn with_slots(world: &mut World, slots: &[(&str, SlotFacts)]) {
    sql(world).slots =
        slots.iter().map(|(name, facts)| ((*name).to_owned(), facts.clone())).collect::<BTreeMap<_, _>>();
}

fn at(lsn: u64) -> SlotFacts {
    SlotFacts {
        kind: "physical".to_owned(),
        position: Some(Lsn(lsn)),
        restart: Some(Lsn(lsn)),
        ..SlotFacts::default()
    }
}

fn physical() -> SlotFacts {
    at(1)
}

fn logical(plugin: &str) -> SlotFacts {
    let (database, plugin) = (Some("d".to_owned()), Some(plugin.to_owned()));
    SlotFacts { kind: "logical".to_owned(), database, plugin, ..physical() }
}

fn permanent(world: &mut World, slot: &str, kind: SlotKind) {
    world.seen.settings.slots.permanent.insert(slot.to_owned(), kind);
}

fn ignored(world: &mut World, slot: &str) {
    let pattern = SlotPattern { name: Some(slot.to_owned()), ..SlotPattern::default() };
    world.seen.settings.slots.ignored.push(pattern);
}

fn tag(world: &mut World, member: &str, tags: serde_json::Value) {
    let tags: Tags = serde_json::from_value(tags).expect("tags");
    if member == "a" {
        world.seen.me.tags = tags;
    } else {
        let key = world.cluster().members.get_mut(&name(member)).expect("a member");
        key.record.tags = tags;
    }
}

/// What the leader b publishes.
fn published(world: &mut World, slots: &[(&str, u64)], retain: &[&str]) {
    world.cluster().status = Some(ClusterStatus {
        optime: Some(Lsn(1000)),
        slots: Some(slots.iter().map(|(slot, lsn)| ((*slot).to_owned(), Lsn(*lsn))).collect()),
        retain_slots: Some(retain.iter().map(|slot| (*slot).to_owned()).collect()),
        ..ClusterStatus::default()
    });
}

fn changes(actions: &[Action]) -> SlotChanges {
    let changes = actions.iter().find_map(|action| match action {
        Action::SetSlots(changes) => Some(changes.clone()),
        _other => None,
    });
    changes.unwrap_or_default()
}

fn set(actions: &[Action]) -> (Vec<String>, Vec<String>) {
    let changes = changes(actions);
    (changes.create, changes.drop)
}

fn status(actions: &[Action]) -> ClusterStatus {
    let status = actions.iter().find_map(|action| match action {
        Action::PublishStatus { status, .. } => Some(status.clone()),
        _other => None,
    });
    status.expect("a leader publishes it")
}

/// Without slots nothing moves the members' slots on a standby: they would retain WAL for ever. Others stay.
#[test]
fn a_standby_without_slots_leaves_none_of_members() {
    let mut world = World::new();
    world.postgres(up(standby(1000))).seen.settings.use_slots = false;
    let slots = [("c", physical()), ("barman", physical()), ("b", SlotFacts { active: true, ..physical() })];
    with_slots(&mut world, &slots);
    assert_eq!(set(&world.tick().actions), (vec![], vec!["c".to_owned()]));
}

/// Barman's slot on a former primary is dropped after `loop_wait`, and so is the slot of a member that the leader has
/// none for. Slots that are in use, that a setting names, or that PostgreSQL manages stay.
#[test]
fn a_standby_drops_unused_slots_after_loop_wait() {
    let mut world = World::new();
    world.postgres(up(standby(1000)));
    permanent(&mut world, "kept", SlotKind::Physical);
    ignored(&mut world, "ignored");
    let slots = [
        ("barman", physical()),
        ("c", physical()),
        ("ignored", physical()),
        ("kept", physical()),
        ("synced", SlotFacts { synced: true, kind: "logical".to_owned(), ..SlotFacts::default() }),
        ("used", SlotFacts { active: true, ..physical() }),
    ];
    with_slots(&mut world, &slots);
    assert_eq!(changes(&world.tick().actions), SlotChanges::default());
    assert_eq!(changes(&world.later(9_000).tick().actions), SlotChanges::default());
    world.seen.settings.pause = true;
    assert_eq!(
        changes(&world.later(2_000).tick().actions),
        SlotChanges::default(),
        "in pause nothing is dropped"
    );
    world.seen.settings.pause = false;
    assert_eq!(changes(&world.later(1).tick().actions), SlotChanges::default(), "the time begins anew");
    assert_eq!(set(&world.later(10_000).tick().actions), (vec![], vec!["barman".to_owned(), "c".to_owned()]));
}

/// On the primary the slot's owner has `member_slots_ttl` to come back, as a member has.
#[test]
fn a_primary_drops_unused_slots_after_member_slots_ttl() {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000)));
    let members = [("b", physical()), ("c", physical()), ("barman", physical())];
    with_slots(&mut world, &members);
    assert_eq!(set(&world.tick().actions), (vec![], vec![]));
    assert_eq!(set(&world.later(1_799_000).tick().actions).1, Vec::<String>::new());
    assert_eq!(set(&world.later(1_000).tick().actions).1, ["barman"]);
}

/// The slots that the former leader retained are kept for the full time again, whatever this one remembers of them from
/// a time before.
#[test]
fn a_new_leader_keeps_what_the_former_one_retained() {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000)));
    published(&mut world, &[], &["a", "gone"]);
    let slots = [("b", physical()), ("c", physical()), ("gone", physical())];
    with_slots(&mut world, &slots);
    world.tick();
    world.cluster().leader = Some(super::world::leader("b", super::world::THEIR_LEASE));
    world.seen.lease.leading = matriarch::model::Leading::No;
    world.postgres(up(standby(1000))).later(1_700_000).tick();
    world.i_lead().postgres(up(primary(1000)));
    with_slots(&mut world, &slots);
    assert_eq!(changes(&world.tick().actions), SlotChanges::default());
    assert_eq!(changes(&world.later(1_800_000).tick().actions), SlotChanges::default());
    assert_eq!(set(&world.later(1).tick().actions).1, ["gone"]);
}

/// Nothing can stream through an invalidated slot of a member, not even a new clone: the slot is created anew. So is
/// one that retains nothing, and one of another kind.
#[test]
fn an_unusable_slot_of_a_member_is_created_anew() {
    for unusable in [
        SlotFacts { lost: true, ..physical() },
        SlotFacts { restart: None, ..physical() },
        SlotFacts { kind: "logical".to_owned(), ..physical() },
    ] {
        let mut world = World::new();
        world.i_lead().postgres(up(primary(1000)));
        with_slots(&mut world, &[("b", physical()), ("c", unusable.clone())]);
        assert_eq!(set(&world.tick().actions), (vec!["c".to_owned()], vec!["c".to_owned()]));
        with_slots(&mut world, &[("b", physical()), ("c", SlotFacts { active: true, ..unusable.clone() })]);
        assert_eq!(set(&world.later(5_000).tick().actions), (vec![], vec![]), "in use");
        with_slots(&mut world, &[("b", physical()), ("c", unusable)]);
        ignored(&mut world, "c");
        assert_eq!(set(&world.later(5_000).tick().actions), (vec![], vec![]), "never touched");
    }
}

/// A standby that may lead one day has the slots that the leader publishes, and moves them to where the leader's are,
/// but no further than it has replayed. It has none for a member that the leader has none for: nothing would move it.
#[test]
fn a_standby_keeps_the_slots_of_its_leader() {
    let mut world = World::new();
    world.postgres(up(standby(1000)));
    permanent(&mut world, "barman", SlotKind::Physical);
    permanent(&mut world, "a", SlotKind::Physical);
    published(&mut world, &[("a", 1), ("away", 700), ("b", 1500), ("barman", 900)], &["away"]);
    let first = changes(&world.tick().actions);
    assert_eq!(first.create, ["b", "barman"], "the absent member's is kept where it is, and not made");
    let lagging = [
        ("away", at(500)),
        ("b", at(500)),
        ("barman", SlotFacts { active: true, ..at(500) }),
        ("c", SlotFacts { has_xmin: true, ..at(500) }),
    ];
    with_slots(&mut world, &lagging);
    published(&mut world, &[("a", 1), ("away", 400), ("b", 1500), ("barman", 900), ("c", 800)], &["away"]);
    let next = changes(&world.later(3_000).tick().actions);
    assert_eq!(next.advance, [("b".to_owned(), Lsn(1000))].into());
    // A slot with xmin would hold back vacuum on the leader.
    assert_eq!((next.drop, next.create), (vec!["c".to_owned()], vec!["c".to_owned()]));
}

/// A member that may still be pointed at this one, from the time when this one led, may have WAL that was rewound here.
/// A walsender lets it in where the histories parted within a segment: only the missing slot keeps it away. (Seed 1051:
/// a member that was cut off from etcd went on with a former leader that had been rewound.)
#[test]
fn a_standby_makes_no_slot_for_a_member_of_another_timeline() {
    for (timeline, created) in [(Some(1), true), (Some(2), false), (None, false)] {
        let mut world = World::new();
        world.postgres(up(standby(1000)));
        published(&mut world, &[("c", 800)], &["c"]);
        let key = world.cluster().members.get_mut(&name("c")).expect("a member");
        key.record.timeline = timeline.map(matriarch::model::Timeline);
        assert_eq!(changes(&world.tick().actions).create == ["c"], created, "{timeline:?}");
        with_slots(&mut world, &[("c", at(500))]);
        let advance = changes(&world.later(3_000).tick().actions).advance;
        assert_eq!(advance, [("c".to_owned(), Lsn(800))].into(), "one that is here is kept");
    }
}

#[test]
fn slots_that_nothing_moves_do_not_stay_on_a_standby() {
    let slots = [("away", at(500)), ("c", at(500)), ("kept", at(500))];
    let dropped = ["away", "c", "kept"].map(str::to_owned);
    let mut base = World::new();
    base.postgres(up(standby(500)));
    permanent(&mut base, "kept", SlotKind::Physical);
    published(&mut base, &[("away", 500), ("c", 500), ("kept", 500)], &["away"]);
    with_slots(&mut base, &slots);
    assert_eq!(changes(&base.tick().actions), SlotChanges::default(), "they are published");
    base.tick();
    // This member is never to lead.
    tag(&mut base, "a", json!({"nofailover": true}));
    assert_eq!(set(&base.tick().actions).1, ["kept"], "it was permanent here");
    assert_eq!(set(&base.later(10_000).tick().actions).1, ["kept", "away", "c"]);

    let mut world = World::new();
    world.postgres(up(standby(500)));
    world.seen.settings.member_slots_ttl = Duration::ZERO;
    permanent(&mut world, "kept", SlotKind::Physical);
    published(&mut world, &[("away", 500), ("c", 500), ("kept", 500)], &["away"]);
    with_slots(&mut world, &slots);
    world.tick();
    assert_eq!(set(&world.later(9_999).tick().actions).1, Vec::<String>::new());
    world.seen.view.as_mut().expect("a view").seen_at = world.now;
    assert_eq!(set(&world.later(1).tick().actions).1, dropped[..2]);

    // etcd has not answered for long.
    let mut world = World::new();
    world.postgres(up(standby(500)));
    published(&mut world, &[("away", 500), ("c", 500)], &["away"]);
    with_slots(&mut world, &slots[..2]);
    assert_eq!(changes(&world.later(1_799_999).tick().actions), SlotChanges::default());
    world.later(1).tick();
    assert_eq!(set(&world.later(10_000).tick().actions).1, dropped[..2]);
}

/// A member that cascades from another has a slot on the leader, too, which follows the member's own position; on its
/// source it moves its slot itself. A member without streaming has none.
#[test]
fn the_slot_of_a_cascading_member_follows_it_on_the_leader() {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000)));
    tag(&mut world, "b", json!({"nostream": true}));
    tag(&mut world, "c", json!({"replicatefrom": "b"}));
    world.cluster().members.get_mut(&name("c")).expect("a member").record.xlog_location = Some(Lsn(800));
    assert_eq!(changes(&world.tick().actions).create, ["c"]);
    with_slots(&mut world, &[("c", at(600))]);
    assert_eq!(changes(&world.later(3_000).tick().actions).advance, [("c".to_owned(), Lsn(800))].into());

    let mut world = World::new();
    world.postgres(up(standby(1000)));
    tag(&mut world, "c", json!({"replicatefrom": "a"}));
    published(&mut world, &[("b", 900), ("c", 900)], &[]);
    with_slots(&mut world, &[("b", at(900)), ("c", at(600))]);
    assert_eq!(changes(&world.tick().actions), SlotChanges::default());
}

/// A permanent slot is made on the leader and stays; taken out of the settings it goes at once, if nobody uses it.
#[test]
fn a_permanent_slot_is_created_and_goes_with_its_setting() {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000)));
    permanent(&mut world, "a", SlotKind::Physical);
    permanent(&mut world, "barman", SlotKind::Physical);
    permanent(&mut world, "used", SlotKind::Physical);
    world.seen.settings.pause = true;
    with_slots(&mut world, &[("b", physical()), ("c", physical())]);
    assert_eq!(set(&world.tick().actions), (vec!["barman".to_owned(), "used".to_owned()], vec![]));
    let used = SlotFacts { active: true, ..physical() };
    let all = [("b", physical()), ("barman", physical()), ("c", physical()), ("used", used)];
    with_slots(&mut world, &all);
    assert_eq!(changes(&world.later(9_999_000).tick().actions), SlotChanges::default());
    world.seen.settings.slots.permanent.clear();
    assert_eq!(changes(&world.later(1_000).tick().actions), SlotChanges::default(), "not in pause");
    world.seen.settings.pause = false;
    assert_eq!(set(&world.later(1_000).tick().actions), (vec![], vec!["barman".to_owned()]));
}

/// To the letter of Patroni: physical slots by their oldest WAL, my own name by my position, nothing that PostgreSQL 17
/// has synchronized; and of the slots that are kept for members, those that no setting keeps.
#[test]
fn the_leader_publishes_its_slots() {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000)));
    permanent(&mut world, "b", SlotKind::Physical);
    permanent(&mut world, "lg", SlotKind::Logical { database: "d".to_owned(), plugin: "p".to_owned() });
    permanent(&mut world, "c", SlotKind::Logical { database: "d".to_owned(), plugin: "p".to_owned() });
    let synced = SlotFacts { failover: true, synced: true, ..logical("p") };
    let slots = [("b", at(10)), ("c", at(20)), ("lg", logical("p")), ("other", at(30)), ("synced", synced)];
    with_slots(&mut world, &slots);
    let status_of = |world: &mut World| status(&world.later(10_000).tick().actions);
    let first = status_of(&mut world);
    let slots = |slots: &[(&str, u64)]| {
        Some(slots.iter().map(|(slot, lsn)| ((*slot).to_owned(), Lsn(*lsn))).collect::<BTreeMap<_, _>>())
    };
    assert_eq!(first.slots, slots(&[("a", 1000), ("b", 10), ("c", 20), ("lg", 1), ("other", 30)]));
    assert_eq!(first.retain_slots, Some(vec!["c".to_owned()]));
    world.seen.settings.member_slots_ttl = Duration::ZERO;
    let second = status_of(&mut world);
    assert_eq!((second.slots, second.retain_slots), (slots(&[("b", 10), ("lg", 1)]), None));
}
