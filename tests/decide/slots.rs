//! Slots that no member needs: dropped when unused for a while, and kept if a setting names them.

use std::collections::BTreeMap;

use matriarch::model::{Action, Lsn, SlotFacts, SlotPattern};

use super::world::{World, primary, standby, up};

fn with_slots(world: &mut World, slots: &[(&str, SlotFacts)]) {
    let sql = world.seen.postgres.sql.as_mut().expect("it runs");
    sql.slots =
        slots.iter().map(|(name, facts)| ((*name).to_owned(), facts.clone())).collect::<BTreeMap<_, _>>();
}

fn physical() -> SlotFacts {
    SlotFacts { kind: "physical".to_owned(), restart: Some(Lsn(1)), ..SlotFacts::default() }
}

fn set(actions: &[Action]) -> (Vec<String>, Vec<String>) {
    let set = actions.iter().find_map(|action| match action {
        Action::SetSlots { create, drop } => Some((create.clone(), drop.clone())),
        _other => None,
    });
    set.unwrap_or_default()
}

/// Barman's slot on a former primary is dropped after `loop_wait`; the slot of a member that this one does not serve,
/// at once. Slots that are in use, that a setting names, or that PostgreSQL manages stay.
#[test]
fn a_standby_drops_unused_slots_after_loop_wait() {
    let mut world = World::new();
    world.postgres(up(standby(1000)));
    world.seen.settings.slots.permanent.insert("kept".to_owned());
    let pattern = SlotPattern { name: Some("ignored".to_owned()), ..SlotPattern::default() };
    world.seen.settings.slots.ignored.push(pattern);
    let slots = [
        ("barman", physical()),
        ("c", physical()),
        ("ignored", physical()),
        ("kept", physical()),
        ("synced", SlotFacts { synced: true, kind: "logical".to_owned(), ..SlotFacts::default() }),
        ("used", SlotFacts { active: true, ..physical() }),
    ];
    with_slots(&mut world, &slots);
    assert_eq!(set(&world.tick().actions).1, ["c"]);
    with_slots(&mut world, &slots);
    world.seen.postgres.sql.as_mut().expect("it runs").slots.remove("c");
    assert_eq!(set(&world.later(9_000).tick().actions).1, Vec::<String>::new());
    world.seen.settings.pause = true;
    assert_eq!(
        set(&world.later(2_000).tick().actions).1,
        Vec::<String>::new(),
        "in pause nothing is dropped"
    );
    world.seen.settings.pause = false;
    assert_eq!(set(&world.later(1).tick().actions).1, Vec::<String>::new(), "the time begins anew");
    assert_eq!(set(&world.later(10_000).tick().actions).1, ["barman"]);
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

/// Nothing can stream through an invalidated slot of a member, not even a new clone: the slot is created anew.
#[test]
fn a_lost_slot_of_a_member_is_created_anew() {
    let mut world = World::new();
    world.i_lead().postgres(up(primary(1000)));
    with_slots(&mut world, &[("b", physical()), ("c", SlotFacts { lost: true, ..physical() })]);
    assert_eq!(set(&world.tick().actions), (vec!["c".to_owned()], vec!["c".to_owned()]));
}
