//! Changes to the replication slots of a running server.

use tokio_postgres::Client;

use super::Error;
use super::handle::PostgresInner;
use super::sql;
use crate::model::SlotChanges;

const DROP: &str = "
    SELECT restart_lsn::text, pg_drop_replication_slot(slot_name) FROM pg_replication_slots
     WHERE slot_name = $1 AND NOT active";
const CREATE: &str = "
    SELECT pg_create_physical_replication_slot($1::text::name, true)
     WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1::text)";
const ADVANCE: &str = "
    SELECT pg_replication_slot_advance(slot_name, $2::text::pg_lsn) FROM pg_replication_slots
     WHERE slot_name = $1 AND slot_type = 'physical' AND NOT active AND restart_lsn < $2::text::pg_lsn";

/// Carries out all changes. A slot that cannot be changed does not prevent the change of others; the first error is
/// returned.
pub(super) async fn set(inner: &PostgresInner, changes: &SlotChanges) -> Result<(), Error> {
    sql::kept(inner, async |client| {
        let mut done = Ok(());
        for slot in &changes.drop {
            done = done.and(dropped(client, slot).await);
        }
        for slot in &changes.create {
            let created = client.execute(CREATE, &[slot]).await;
            done = done.and(created.map(|_| ()).map_err(Error::sql("create a replication slot")));
        }
        for (slot, lsn) in &changes.advance {
            let advanced = client.execute(ADVANCE, &[slot, &lsn.to_string()]).await;
            done = done.and(advanced.map(|_| ()).map_err(Error::sql("advance a replication slot")));
        }
        done
    })
    .await
}

async fn dropped(client: &Client, slot: &String) -> Result<(), Error> {
    let row = client.query_opt(DROP, &[slot]).await.map_err(Error::sql("drop a replication slot"))?;
    if let Some(row) = row {
        let restart_lsn = row.get::<_, Option<&str>>(0).unwrap_or("nowhere");
        tracing::info!(slot, restart_lsn, "dropped a replication slot");
    }
    Ok(())
}
