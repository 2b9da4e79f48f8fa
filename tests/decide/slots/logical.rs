//! Permanent logical slots.

use std::time::Duration;

use matriarch::decide::{Restart, needs_feedback};
use matriarch::model::{
    Action, Job, LeaderSlots, LeaderSlotsQuestion, LogicalSlotChanges, Lsn, RestartFilter, SlotFacts,
    SlotKind, Xid,
};
use serde_json::json;

use super::super::world::{World, name, primary, standby, up};
use super::{at, logical, permanent, published, tag, with_slots};

fn decoded() -> SlotKind {
    SlotKind::Logical { database: "d".to_owned(), plugin: "p".to_owned() }
}

fn decoded_at(lsn: u64) -> SlotFacts {
    SlotFacts { position: Some(Lsn(lsn)), catalog_xmin: Some(Xid(700)), ..logical("p") }
}

fn ordered(actions: &[Action]) -> LogicalSlotChanges {
    let changes = actions.iter().find_map(|action| match action {
        Action::SetLogicalSlots(changes) => Some(changes.clone()),
        _other => None,
    });
    changes.unwrap_or_default()
}

fn asked(actions: &[Action]) -> Option<LeaderSlotsQuestion> {
    actions.iter().find_map(|action| match action {
        Action::AskLeaderSlots(question) => Some(question.clone()),
        _other => None,
    })
}

/// The leader b answers at this moment.
fn told(world: &mut World, theirs: u32, held: u32, copied: &[&str]) {
    world.seen.leader_slots = Some(LeaderSlots {
        leader: name("b"),
        asked_at: world.now,
        catalog_xmin: [("lg".to_owned(), Xid(theirs))].into(),
        held: Some(Xid(held)),
        copied: copied.iter().map(|slot| (*slot).to_owned()).collect(),
    });
}

/// Member a streams from b, which publishes the slot lg at 900.
fn follower() -> World {
    let mut world = World::new();
    world.postgres(up(standby(1000)));
    permanent(&mut world, "lg", decoded());
    published(&mut world, &[("lg", 900)], &[]);
    world
}

#[test]
fn the_leader_creates_its_logical_slots() {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000)));
    with_slots(&mut world, &[("b", at(1000)), ("c", at(1000))]);
    permanent(&mut world, "lg", decoded());
    // A member streams through the physical slot of this name.
    permanent(&mut world, "c", decoded());
    let create = ordered(&world.tick().actions).create;
    assert_eq!(create, [("lg".to_owned(), decoded())].into());
    assert_eq!(ordered(&world.later(9_000).tick().actions), LogicalSlotChanges::default(), "under way");
    assert_eq!(ordered(&world.later(1_000).tick().actions).create, create);
    with_slots(&mut world, &[("b", at(1000)), ("c", at(1000)), ("lg", decoded_at(900))]);
    assert_eq!(ordered(&world.later(10_000).tick().actions), LogicalSlotChanges::default());
}

/// A slot that is not here is copied from the leader, which needs a restart; not in pause, and not again soon.
#[test]
fn a_standby_restarts_for_a_copy() {
    let mut world = follower();
    let question = asked(&world.tick().actions).expect("it asks");
    assert_eq!((question.through.as_str(), &question.slots), ("a", &vec!["lg".to_owned()]));
    assert_eq!(question.copy, ["lg"]);
    assert_eq!(asked(&world.later(9_000).tick().actions), None, "once in every loop_wait");
    told(&mut world, 700, 700, &["lg"]);
    let stops =
        |actions: &[Action]| actions.iter().any(|action| matches!(action, Action::Start(Job::Stop { .. })));
    world.seen.settings.pause = true;
    assert!(!stops(&world.tick().actions), "in pause nothing is restarted");
    world.seen.settings.pause = false;
    told(world.later(1_000), 700, 700, &["lg"]);
    assert!(stops(&world.tick().actions));
    // The restart is over, and has not helped.
    world.memory.restart = None;
    assert_eq!(asked(&world.later(60_000).tick().actions), None);
    assert!(asked(&world.later(300_000).tick().actions).is_some());
}

/// The leader is gone before the restart has begun to stop this standby: no race waits for it.
#[test]
fn a_restart_for_a_copy_ends_with_the_leader() {
    let mut world = follower();
    world.tick();
    let restart = Restart {
        id: None,
        since: world.now,
        give_up_at: world.now + Duration::from_secs(60),
        stopped: false,
        filter: RestartFilter::default(),
        for_slots: true,
    };
    world.memory.restart = Some(restart.clone());
    assert_eq!(world.nobody_leads().later(10).tick().memory.restart, None);
    world.memory.restart = Some(Restart { for_slots: false, ..restart });
    assert!(world.later(10).tick().memory.restart.is_some(), "an operator asked for this one");
}

/// Standbys do not restart all at once for a new slot: a is the first, c waits for two.
#[test]
fn standbys_restart_one_after_the_other() {
    let mut world = follower();
    world.seen.me.name = name("c");
    assert_eq!(asked(&world.tick().actions), None);
    assert_eq!(asked(&world.later(19_999).tick().actions), None);
    assert!(asked(&world.later(1).tick().actions).is_some());
}

#[test]
fn a_slot_on_a_standby_follows_the_leaders() {
    let mut world = follower();
    with_slots(&mut world, &[("lg", decoded_at(800))]);
    let advance = ordered(&world.tick().actions).advance;
    assert_eq!((advance["lg"].database.as_str(), advance["lg"].to), ("d", Lsn(900)));
    published(&mut world, &[("lg", 2000)], &[]);
    assert_eq!(ordered(&world.later(10_000).tick().actions).advance["lg"].to, Lsn(1000), "what is replayed");
    for here in [
        SlotFacts { active: true, ..decoded_at(800) },
        SlotFacts { synced: true, failover: true, ..decoded_at(800) },
    ] {
        with_slots(&mut world, &[("lg", here)]);
        let actions = world.later(10_000).tick().actions;
        let copy = asked(&actions).map(|question| question.copy).unwrap_or_default();
        assert_eq!((ordered(&actions), copy), (LogicalSlotChanges::default(), vec![]));
    }
}

/// `failover => true`: PostgreSQL 17 copies such a slot to the standbys, and stops at one of the same name that it did
/// not make. The leader does not publish it, as its own is a copy from the time before it led.
#[test]
fn a_slot_in_the_way_of_postgresqls_synchronization_is_dropped() {
    let left = || SlotFacts { failover: true, ..decoded_at(800) };
    let dropped = |change: &dyn Fn(&mut World)| {
        let mut world = follower();
        published(&mut world, &[], &[]);
        with_slots(&mut world, &[("lg", left()), ("own", left())]);
        change(&mut world);
        let actions = world.tick().actions;
        assert_eq!(ordered(&actions), LogicalSlotChanges::default());
        assert_eq!(asked(&actions).map(|question| question.copy).unwrap_or_default(), Vec::<String>::new());
        super::set(&actions).1
    };
    assert_eq!(dropped(&|_| ()), ["lg", "own"]);
    assert_eq!(dropped(&|world| published(world, &[("lg", 900)], &[])), ["lg", "own"], "it is published");
    assert_eq!(dropped(&|world| super::ignored(world, "own")), ["lg"]);
    assert_eq!(dropped(&|world| world.seen.settings.pause = true), Vec::<String>::new());
    let synced = |world: &mut World| {
        let synced = || SlotFacts { synced: true, ..left() };
        with_slots(world, &[("lg", synced()), ("own", synced())]);
    };
    assert_eq!(dropped(&synced), Vec::<String>::new(), "PostgreSQL made it");
}

/// On the primary they are what PostgreSQL synchronizes: none is dropped, and a permanent one is not made again.
#[test]
fn a_primary_keeps_slots_that_postgresql_synchronizes() {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000)));
    permanent(&mut world, "lg", decoded());
    let slot = || SlotFacts { failover: true, ..decoded_at(800) };
    with_slots(&mut world, &[("b", at(10)), ("c", at(10)), ("lg", slot()), ("own", slot())]);
    for millis in [0, 10_000_000, 10_000_000] {
        let actions = world.later(millis).tick().actions;
        assert_eq!((super::set(&actions).1, ordered(&actions)), (vec![], LogicalSlotChanges::default()));
    }
}

/// A slot of the time when this member led may be ahead of the present leader's: its reader would miss changes after
/// the next failover. One that cannot be moved is of no use, either.
#[test]
fn a_slot_that_is_of_no_use_is_copied_again() {
    let mut ahead = follower();
    with_slots(&mut ahead, &[("lg", decoded_at(950))]);
    let mut broken = follower();
    with_slots(&mut broken, &[("lg", decoded_at(800))]);
    broken.memory.slots.logical.broken.insert("lg".to_owned());
    for world in [&mut ahead, &mut broken] {
        let actions = world.tick().actions;
        assert_eq!(asked(&actions).expect("it asks").copy, ["lg"]);
    }
}

#[test]
fn members_that_never_lead_or_stream_have_no_logical_slots() {
    for tags in [json!({"nofailover": true}), json!({"nostream": true})] {
        let mut world = follower();
        tag(&mut world, "a", tags);
        assert_eq!(asked(&world.tick().actions), None);
        let feedback = |world: &World| {
            let cluster = world.seen.view.as_ref().map(|view| &view.cluster);
            needs_feedback(&world.seen.settings, &world.seen.me, cluster)
        };
        assert!(!feedback(&world));
        tag(&mut world, "c", json!({"replicatefrom": "a"}));
        assert_eq!(feedback(&world), !world.seen.me.tags.nostream(), "it passes on what c needs");
        tag(&mut world, "a", json!({}));
        assert!(feedback(&world));
        world.seen.settings.slots.permanent.clear();
        assert!(!feedback(&world));
    }
}

/// A slot is safe once the leader holds back for this standby what the slot needs. At a promotion the log names those
/// that are not.
#[test]
fn a_promotion_names_the_slots_that_are_not_safe() {
    for (theirs, held, safe) in
        [(690, 695, true), (700, 700, true), (u32::MAX, 3, true), (710, 700, false), (690, 710, false)]
    {
        let mut world = follower();
        with_slots(&mut world, &[("lg", decoded_at(900))]);
        assert!(asked(&world.tick().actions).is_some(), "it is not known to be safe");
        told(&mut world, theirs, held, &[]);
        let asks_again = asked(&world.later(10_000).tick().actions).is_some();
        assert_eq!(asks_again, !safe, "{theirs} {held}");
        world.i_lead();
        world.tick();
        let doubtful = &world.memory.slots.logical.doubtful;
        assert_eq!(doubtful.is_empty(), safe, "{theirs} {held}");
    }
    let mut world = follower();
    world.i_lead().tick();
    assert_eq!(world.memory.slots.logical.doubtful, ["lg"], "it is missing");
}
