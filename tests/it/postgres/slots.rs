//! Slots on a standby, and at a start.

use matriarch::model::{Lsn, SlotChanges};
use matriarch::postgres::Postgres;

use super::herd::Herd;
use super::{start, stop};

/// A slot on a standby follows what the leader publishes, but no further than the standby itself has come. One that
/// cannot be moved does not prevent that.
pub(super) async fn move_on_a_standby(standby: &Postgres) {
    let create = SlotChanges { create: vec!["c".to_owned(), "d".to_owned()], ..SlotChanges::default() };
    standby.set_slots(&create).await.expect("create slots");
    let end = standby.sql_facts().await.expect("facts").lsn();
    let to = |slot: &str, lsn: u64| (slot.to_owned(), Lsn(lsn));
    let advance = [to("absent", 1 << 40), to("c", end.0), to("d", 1)].into();
    standby.set_slots(&SlotChanges { advance, ..SlotChanges::default() }).await.expect("advance slots");
    let facts = standby.sql_facts().await.expect("facts");
    assert_eq!(facts.slots["c"].restart, Some(end));
    assert!(facts.slots["d"].restart.is_some_and(|restart| Lsn(1) < restart), "{facts:?}");
    let drop = SlotChanges { drop: vec!["c".to_owned(), "d".to_owned()], ..SlotChanges::default() };
    standby.set_slots(&drop).await.expect("drop slots");
    assert!(standby.sql_facts().await.expect("facts").slots.is_empty());
}

/// PostgreSQL does not start with more slots than `max_replication_slots`: every member has slots, so a lower value
/// would keep the whole cluster down.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_makes_room_for_the_slots_that_are_there() {
    let herd = Herd::new("room");
    let member = herd.primary("a").await;
    let create = ["b", "c", "d"].map(str::to_owned).to_vec();
    member.set_slots(&SlotChanges { create, ..SlotChanges::default() }).await.expect("create slots");
    stop(&member).await;
    let mut parameters = member.parameters();
    parameters.command_line.push(("max_replication_slots".to_owned(), "2".to_owned()));
    member.apply(parameters).await.expect("apply");
    start(&member, None).await;
    assert_eq!(member.sql_facts().await.expect("facts").slots.len(), 3);
}
