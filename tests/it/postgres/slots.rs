//! Slots on a standby.

use matriarch::model::{Lsn, SlotChanges};
use matriarch::postgres::Postgres;

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
