//! The SQL facts of the local Postgres, in one query.

use serde_json::Value;
use tokio_postgres::{Client, Row};

use super::Error;
use super::handle::PostgresInner;
use super::sql::{self, LOOK_WITHIN};
use crate::model::{
    CommitWait, Lsn, SlotFacts, SqlFacts, Standby, SyncFacts, SyncState, Timeline, WalReceiver, Walsender,
    Xid,
};
use crate::os::clock;

/// Valid from PostgreSQL 13 on. The timeline in a WAL file's name is the one being written, even at a segment border. A
/// standby that receives no WAL is on the newest timeline of its segments. The control file shows a switch only after
/// the next restartpoint, and would make a healthy standby look forked until then.
const LOOK: &str = r#"
WITH up AS (SELECT pg_is_in_recovery() AS in_recovery)
SELECT current_setting('server_version_num')::int4,
       to_char(pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'),
       up.in_recovery,
       CASE WHEN NOT up.in_recovery THEN substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8) END,
       CASE WHEN NOT up.in_recovery THEN pg_current_wal_flush_lsn()::text END,
       pg_last_wal_receive_lsn()::text,
       pg_last_wal_replay_lsn()::text,
       to_char(pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'),
       CASE WHEN up.in_recovery AND pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END,
       current_setting('restore_command') <> '',
       receiver.status, receiver.sender_host, receiver.sender_port, receiver.slot_name,
       receiver.latest_end_lsn::text,
       CASE WHEN receiver.latest_end_lsn IS NOT NULL THEN receiver.received_tli END,
       CASE WHEN up.in_recovery AND receiver.latest_end_lsn IS NULL THEN
            GREATEST((SELECT timeline_id FROM pg_control_checkpoint()),
                     (SELECT min_recovery_end_timeline FROM pg_control_recovery()),
                     (SELECT max(('x' || substr(name, 1, 8))::bit(32)::int) FROM pg_ls_waldir()
                       WHERE name ~ '^[0-9A-F]{24}$')) END,
       (SELECT json_agg(json_build_object('name', slot_name, 'kind', slot_type, 'active', active,
               'position', (CASE slot_type WHEN 'physical' THEN restart_lsn ELSE confirmed_flush_lsn END)::text,
               'restart', restart_lsn::text, 'plugin', plugin,
               'database', (SELECT datname FROM pg_database WHERE oid = datoid),
               'failover', (to_jsonb(slot) ->> 'failover')::boolean, 'synced', (to_jsonb(slot) ->> 'synced')::boolean,
               'xmin', xmin IS NOT NULL, 'catalog_xmin', catalog_xmin::text, 'lost', wal_status IS NOT DISTINCT FROM 'lost'))::text
          FROM pg_get_replication_slots() AS slot WHERE NOT temporary),
       (SELECT json_agg(json_build_object('usename', usename, 'application_name', application_name,
               'client_addr', host(client_addr), 'state', state, 'sync_state', sync_state,
               'sync_priority', sync_priority, 'write_lsn', write_lsn::text, 'flush_lsn', flush_lsn::text,
               'replay_lsn', replay_lsn::text))::text FROM pg_stat_replication),
       current_setting('synchronous_standby_names'), current_setting('synchronous_commit'),
       sessions.waiting, sessions.checkpointer_rests, sessions.replay_rests,
       current_setting('primary_conninfo') = '' AND NOT sessions.receives
  FROM up LEFT JOIN pg_stat_get_wal_receiver() AS receiver ON receiver.pid IS NOT NULL,
       (SELECT array_agg(pid) FILTER (WHERE wait_event = 'SyncRep') AS waiting,
               coalesce(bool_or(wait_event IN ('CheckpointerMain', 'CheckpointWriteDelay')), false)
                   AS checkpointer_rests,
               coalesce(bool_or(wait_event IN ('RecoveryRetrieveRetryInterval', 'RecoveryWalStream')), false)
                   AS replay_rests,
               coalesce(bool_or(backend_type = 'walreceiver'), false) AS receives
          FROM pg_stat_get_activity(NULL)) AS sessions
"#;

/// Queries the state.
pub(super) async fn look(inner: &PostgresInner) -> Result<SqlFacts, Error> {
    let within = LOOK_WITHIN;
    let at = clock::now();
    let row = tokio::time::timeout(within, sql::kept(inner, ask))
        .await
        .map_err(|_| Error::Deadline { what: "looking inside postgres", within })??;
    let facts = SqlFacts { at, ..facts(&row) };
    if facts.is_primary() {
        // Also one that was promoted under a former supervisor, when this one had taken it for a standby.
        inner.postmaster.may_be_primary();
        inner.has_started();
    }
    inner.postmaster.has_shown(facts.timeline);
    Ok(facts)
}

async fn ask(client: &Client) -> Result<Row, Error> {
    client.query_one(LOOK, &[]).await.map_err(Error::sql("look inside postgres"))
}

fn facts(row: &Row) -> SqlFacts {
    let in_recovery: bool = row.get(2);
    let lsn = |column: usize| row.get::<_, Option<&str>>(column).and_then(|text| text.parse::<Lsn>().ok());
    let number =
        |column: usize| row.get::<_, Option<i32>>(column).and_then(|number| u32::try_from(number).ok());
    let text = |column: usize| row.get::<_, Option<String>>(column);
    let written = text(3).and_then(|hex| u32::from_str_radix(&hex, 16).ok());
    let received = number(15).filter(|timeline| *timeline > 0);
    let standby = if in_recovery {
        Standby::Yes {
            received: lsn(5).unwrap_or_default(),
            replayed: lsn(6).unwrap_or_default(),
            replayed_timestamp: text(7),
            paused: row.get(8),
            receiver: text(10).map(|status| WalReceiver {
                status,
                host: text(11),
                port: row.get::<_, Option<i32>>(12).and_then(|port| u16::try_from(port).ok()),
                slot: text(13),
                latest_end: lsn(14).unwrap_or_default(),
            }),
            restores: row.get(9),
        }
    } else {
        Standby::No
    };
    SqlFacts {
        at: clock::now(),
        server_version: number(0).unwrap_or_default(),
        postmaster_start_time: text(1).unwrap_or_default(),
        timeline: if in_recovery { received.or_else(|| number(16)) } else { written }.map(Timeline),
        standby,
        flushed: lsn(4).unwrap_or_default(),
        slots: objects(text(17)).iter().filter_map(slot).collect(),
        sync: sync(row),
        replication: objects(text(18)).into_iter().map(shown).collect(),
        is_detached: row.get(24),
    }
}

/// A row of `pg_stat_replication` without the columns that only decisions need.
fn shown(mut row: serde_json::Map<String, Value>) -> serde_json::Map<String, Value> {
    row.retain(|key, _| !key.ends_with("_lsn"));
    row
}

fn sync(row: &Row) -> SyncFacts {
    let waiting = row.get::<_, Option<Vec<i32>>>(21).unwrap_or_default();
    SyncFacts {
        names: row.get(19),
        wait: match row.get(20) {
            "remote_write" => CommitWait::Written,
            "remote_apply" => CommitWait::Replayed,
            _flushed_or_less => CommitWait::Flushed,
        },
        walsenders: objects(row.get(18)).iter().filter_map(walsender).collect(),
        waiting: waiting.into_iter().collect(),
        checkpointer_rests: row.get(22),
        replay_rests: row.get(23),
    }
}

fn walsender(row: &serde_json::Map<String, Value>) -> Option<Walsender> {
    let text = |key: &str| row.get(key).and_then(Value::as_str);
    let lsn = |key: &str| text(key).and_then(|lsn| lsn.parse().ok());
    Some(Walsender {
        name: text("application_name")?.to_owned(),
        streams: text("state") == Some("streaming"),
        sync: match text("sync_state") {
            Some("sync") => SyncState::Sync,
            Some("quorum") => SyncState::Quorum,
            Some("potential") => SyncState::Potential,
            Some(_) | None => SyncState::Async,
        },
        written: lsn("write_lsn"),
        flushed: lsn("flush_lsn"),
        replayed: lsn("replay_lsn"),
    })
}

fn objects(text: Option<String>) -> Vec<serde_json::Map<String, Value>> {
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

fn slot(slot: &serde_json::Map<String, Value>) -> Option<(String, SlotFacts)> {
    let flag = |key: &str| slot.get(key).and_then(Value::as_bool).unwrap_or_default();
    let text = |key: &str| slot.get(key).and_then(Value::as_str);
    let lsn = |key: &str| text(key).and_then(|lsn| lsn.parse().ok());
    let facts = SlotFacts {
        kind: text("kind")?.to_owned(),
        plugin: text("plugin").map(str::to_owned),
        database: text("database").map(str::to_owned),
        active: flag("active"),
        position: lsn("position"),
        restart: lsn("restart"),
        failover: flag("failover"),
        synced: flag("synced"),
        has_xmin: flag("xmin"),
        catalog_xmin: text("catalog_xmin").and_then(|xid| xid.parse().ok()).map(Xid),
        lost: flag("lost"),
    };
    Some((text("name")?.to_owned(), facts))
}
