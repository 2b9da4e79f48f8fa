//! The facts for the check before a switchover. They are asked on a connection of their own, one question at a time, so
//! that no number of checks delays the looks that decisions need.

use std::time::Duration;

use super::handle::PostgresInner;
use super::{Error, session, storage};
use crate::model::PreflightFacts;

/// The limit for all of it, the wait for an earlier check included.
const WITHIN: Duration = Duration::from_secs(3);
const OPTIONS: &str =
    "-c statement_timeout=2000 -c default_transaction_read_only=on -c pg_stat_statements.track=none";

/// Gives the text of a [`PreflightFacts`] in JSON, without the disks. Valid from PostgreSQL 13 on.
const LOOK: &str = r#"
WITH up AS (SELECT pg_is_in_recovery() AS standby),
     at AS (SELECT standby, CASE WHEN standby THEN pg_last_wal_replay_lsn() END AS replayed,
                   CASE WHEN standby THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                        ELSE pg_current_wal_flush_lsn() END AS lsn FROM up)
SELECT json_build_object(
    'server_version', current_setting('server_version_num')::int4,
    'lsn', coalesce((at.lsn - '0/0')::int8, 0),
    'replay_delay_ms', CASE WHEN at.replayed < at.lsn THEN greatest(0,
        (extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000)::int8) END,
    'replay_paused', CASE WHEN at.standby AND pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END,
    'apply_delay_ms', (SELECT setting::int8 FROM pg_settings WHERE name = 'recovery_min_apply_delay'),
    'transaction', (SELECT json_build_object('pid', pid, 'user', usename, 'database', datname, 'age_ms', greatest(0,
               (extract(epoch FROM clock_timestamp() - xact_start) * 1000)::int8))
          FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
           AND xact_start IS NOT NULL ORDER BY xact_start LIMIT 1),
    'prepared', (SELECT json_build_object('count', count(*), 'gid', (array_agg(gid ORDER BY prepared))[1], 'age_ms',
               greatest(0, (extract(epoch FROM clock_timestamp() - min(prepared)) * 1000)::int8))
          FROM pg_prepared_xacts HAVING count(*) > 0),
    'archiver', CASE WHEN current_setting('archive_mode') <> 'off' THEN (SELECT json_build_object(
               'waiting', (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'),
               'failed', CASE WHEN last_failed_time > coalesce(last_archived_time, '-infinity') THEN last_failed_wal END)
          FROM pg_stat_archiver) END,
    'slots', (SELECT coalesce(json_agg(json_build_object('name', slot_name, 'logical', slot_type = 'logical',
               'active', active, 'temporary', temporary,
               'held_bytes', greatest(0, coalesce(at.replayed, at.lsn) - restart_lsn)::int8,
               'failover', coalesce((to_jsonb(slot) ->> 'failover')::boolean, false),
               'synced', coalesce((to_jsonb(slot) ->> 'synced')::boolean, false),
               'lost', wal_status IS NOT DISTINCT FROM 'lost'
                       OR to_jsonb(slot) ->> 'invalidation_reason' IS NOT NULL)), '[]'::json)
          FROM pg_replication_slots AS slot),
    'standbys', (SELECT coalesce(json_agg(json_build_object('name', application_name,
               'flush_ms', (extract(epoch FROM flush_lag) * 1000)::int8,
               'replay_ms', (extract(epoch FROM replay_lag) * 1000)::int8)), '[]'::json)
          FROM pg_stat_replication WHERE state = 'streaming'))::text
  FROM at
"#;

/// Asks for them.
pub(super) async fn facts(inner: &PostgresInner) -> Result<PreflightFacts, Error> {
    let what = "look for what a switchover meets";
    let data_dir = inner.setup.data_dir.clone();
    let ask = async {
        let _alone = inner.preflight.lock().await;
        let client = session::open(inner, "Matriarch preflight", OPTIONS).await?;
        let row = client.query_one(LOOK, &[]).await.map_err(Error::sql(what))?;
        let facts: PreflightFacts = serde_json::from_str(row.get(0))
            .map_err(|error| Error::Unfit(format!("its answer is not understood: {error}")))?;
        // A disk that hangs delays this question only.
        let disks = tokio::task::spawn_blocking(move || storage::free_space(&data_dir));
        Ok(PreflightFacts { disks: disks.await.unwrap_or_default(), ..facts })
    };
    tokio::time::timeout(WITHIN, ask).await.map_err(|_| Error::Deadline { what, within: WITHIN })?
}
