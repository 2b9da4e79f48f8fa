//! Logical slots of the running server: created on a primary, moved forward on a standby. Each statement needs a
//! connection to the slot's own database, and may take long: creating one waits for the transactions that run, and
//! moving one reads the WAL in between.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::handle::PostgresInner;
use super::{Error, session};
use crate::model::{LogicalSlotChanges, Lsn, SlotKind};
use crate::os::clock;
use crate::os::error_chain::ErrorChain;

/// Enforced by the server. What was not done by then is ordered again.
const OPTIONS: &str = "-c statement_timeout=60000 -c default_transaction_read_only=off";
const STATEMENT_WITHIN: Duration = Duration::from_secs(65);
/// A slot moves in steps: what one step has reached stays, even if the next one fails.
const STEP_BYTES: u64 = 256 << 20;
/// No more steps begin after this, so that other slots have their turn.
const STEPS_WITHIN: Duration = Duration::from_secs(30);
const CREATE: &str = "
    SELECT pg_create_logical_replication_slot($1::text::name, $2::text::name)
     WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1::text)";
const POSITION: &str = "
    SELECT confirmed_flush_lsn::text FROM pg_replication_slots
     WHERE slot_name = $1 AND slot_type = 'logical' AND NOT active";

/// Carries out all changes, and returns the slots that cannot be moved any more. A slot that cannot be changed does not
/// prevent the change of others.
pub(super) async fn set(inner: &PostgresInner, changes: &LogicalSlotChanges) -> Vec<String> {
    for (slot, kind) in &changes.create {
        let SlotKind::Logical { database, plugin } = kind else { continue };
        match created(inner, slot, database, plugin).await {
            Ok(()) => tracing::info!(slot, database, plugin, "created a logical replication slot"),
            Err(error) => tracing::warn!(slot, error = error.chain(), "could not create a logical slot"),
        }
    }
    let mut broken = Vec::new();
    for (slot, advance) in &changes.advance {
        if let Err(error) = advanced(inner, slot, &advance.database, advance.to).await {
            tracing::warn!(slot, to = %advance.to, error = error.chain(), "could not advance a logical slot");
            if is_broken(&error) {
                broken.push(slot.clone());
            }
        }
    }
    broken
}

async fn created(inner: &PostgresInner, slot: &String, database: &str, plugin: &String) -> Result<(), Error> {
    let what = "create a logical replication slot";
    let client = session::open_in(inner, database, "Matriarch slots", OPTIONS).await?;
    let created = tokio::time::timeout(STATEMENT_WITHIN, client.execute(CREATE, &[slot, plugin])).await;
    created.map_err(|_| Error::Deadline { what, within: STATEMENT_WITHIN })?.map_err(Error::sql(what))?;
    Ok(())
}

async fn advanced(inner: &PostgresInner, slot: &String, database: &str, to: Lsn) -> Result<(), Error> {
    let client = session::open_in(inner, database, "Matriarch slots", OPTIONS).await?;
    let steps_until = clock::now() + STEPS_WITHIN;
    let mut before = None;
    loop {
        let at = position(&client, slot).await?;
        let Some(at) = at.filter(|at| *at < to && Some(*at) != before && clock::now() < steps_until) else {
            return Ok(());
        };
        let step = Lsn(at.0.saturating_add(STEP_BYTES)).min(to);
        step_to(&client, slot, step).await?;
        before = Some(at);
    }
}

async fn position(client: &Client, slot: &String) -> Result<Option<Lsn>, Error> {
    let row = client.query_opt(POSITION, &[slot]).await.map_err(Error::sql("look at a replication slot"))?;
    Ok(row.and_then(|row| row.get::<_, Option<&str>>(0)?.parse().ok()))
}

async fn step_to(client: &Client, slot: &String, to: Lsn) -> Result<(), Error> {
    let what = "advance a logical replication slot";
    let text = "SELECT pg_replication_slot_advance($1::text::name, $2::text::pg_lsn)";
    let stepped =
        tokio::time::timeout(STATEMENT_WITHIN, client.execute(text, &[slot, &to.to_string()])).await;
    stepped.map_err(|_| Error::Deadline { what, within: STATEMENT_WITHIN })?.map_err(Error::sql(what))?;
    Ok(())
}

/// Whether the WAL that it needs is gone, or PostgreSQL has invalidated it: only another copy helps.
fn is_broken(error: &Error) -> bool {
    let Error::Sql { source, .. } = error else { return false };
    let broken = [SqlState::UNDEFINED_FILE, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE];
    source.code().is_some_and(|code| broken.contains(code))
}
