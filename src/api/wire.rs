//! The bodies of `/patroni`, `/cluster`, `/history` and `/config`, as pure functions of the known facts. The CLI prints
//! the same rows.

mod change;
mod hearing;
mod operation;
mod tree;

use serde_json::{Map, Value, json};

pub use self::change::ChangeEnd;
pub use self::operation::operation_body;
pub use self::tree::{source, tree};
use super::time;
use crate::agent::Status;
use crate::config;
use crate::model::{
    ClusterView, Guarantee, HistoryLine, Lsn, MemberKey, MemberName, MemberRecord, MemberState, PodTask,
    PodTrouble, Role, SqlFacts, Standby, StandbyKind, SyncMode, SyncSettings,
};

/// The Patroni version that this interface is compatible with. Readers split it at the dots and expect integers.
pub const PATRONI_COMPATIBLE_VERSION: &str = "4.1.5";

/// The state; unknown while a Postgres that should run does not answer.
pub fn state_now(status: &Status) -> MemberState {
    match (status.state, status.postgres.answering()) {
        (MemberState::Running, None) => MemberState::Unknown,
        (state, _) => state,
    }
}

/// Postgres' own role, if it answers; else the published role.
pub fn role_now(status: &Status) -> Role {
    match status.postgres.answering() {
        Some(sql) if sql.is_primary() => Role::Primary,
        Some(_) if status.role == Role::StandbyLeader => Role::StandbyLeader,
        Some(_) => Role::Replica,
        None => status.role,
    }
}

/// This member's part in commits, as a standby.
pub fn standby_kind(status: &Status) -> StandbyKind {
    match status.view.as_deref().filter(|_| role_now(status) == Role::Replica) {
        Some(view) => StandbyKind::of(status.settings.sync.mode, view, &status.me.name),
        None => StandbyKind::Asynchronous,
    }
}

/// `streaming`, `in archive recovery`, or neither.
pub fn replication_state(sql: &SqlFacts) -> Option<&'static str> {
    match &sql.standby {
        Standby::Yes { .. } if sql.streams() => Some("streaming"),
        Standby::Yes { restores: true, .. } => Some("in archive recovery"),
        Standby::Yes { .. } | Standby::No => None,
    }
}

/// The body of `/patroni` and of every health check. `xlog` is present exactly when Postgres answers: peers rely on it.
pub fn patroni_body(status: &Status) -> Value {
    let mut body = Map::new();
    let sql = status.postgres.answering();
    body.insert("state".into(), state_now(status).as_str().into());
    if let Some(sql) = sql {
        body.insert("postmaster_start_time".into(), time::with_space(&sql.postmaster_start_time).into());
    }
    body.insert("role".into(), role_now(status).as_str().into());
    if let Some(sql) = sql {
        insert_sql(&mut body, sql, standby_kind(status));
    }
    insert_cluster(&mut body, status);
    let patroni = json!({"version": PATRONI_COMPATIBLE_VERSION, "scope": status.scope, "name": status.me.name.as_str()});
    body.insert("patroni".into(), patroni);
    if let Some(mut restart) = status.record.scheduled_restart.clone() {
        restart.remove("postmaster_start_time");
        body.insert("scheduled_restart".into(), Value::Object(restart));
    }
    if status.watchdog_failed {
        body.insert("watchdog_failed".into(), true.into());
    }
    insert_own_fields(&mut body, status);
    Value::Object(body)
}

fn insert_sql(body: &mut Map<String, Value>, sql: &SqlFacts, kind: StandbyKind) {
    body.insert("server_version".into(), sql.server_version.into());
    let xlog = match &sql.standby {
        Standby::No => json!({"location": sql.flushed}),
        Standby::Yes { received, replayed, replayed_timestamp, paused, .. } => json!({
            "received_location": if received.is_known() { received } else { replayed },
            "replayed_location": replayed,
            "replayed_timestamp": replayed_timestamp.as_deref().map(time::with_space),
            "paused": paused,
        }),
    };
    body.insert("xlog".into(), xlog);
    if kind != StandbyKind::Asynchronous {
        body.insert(role_word(kind).into(), true.into());
    }
    body.insert("timeline".into(), json!(sql.timeline));
    if let Some(state) = replication_state(sql) {
        body.insert("replication_state".into(), state.into());
    }
    if !sql.replication.is_empty() {
        body.insert("replication".into(), json!(sql.replication));
    }
}

fn insert_cluster(body: &mut Map<String, Value>, status: &Status) {
    let view = status.view.as_deref();
    if status.settings.pause {
        body.insert("pause".into(), true.into());
    }
    if status.failsafe_active {
        body.insert("failsafe_mode_is_active".into(), true.into());
    }
    if view.is_none_or(|view| view.leader.is_none()) {
        body.insert("cluster_unlocked".into(), true.into());
    }
    body.insert("dcs_last_seen".into(), status.etcd_last_seen.into());
    let tags = status.me.tags.published();
    if !tags.0.is_empty() {
        body.insert("tags".into(), Value::Object(tags.0));
    }
    let control = status.postgres.control().map(|control| control.system_id);
    if let Some(id) = control.or_else(|| view?.system_id()) {
        body.insert("database_system_identifier".into(), id.to_string().into());
    }
    if status.record.pending_restart == Some(true) {
        body.insert("pending_restart".into(), true.into());
        body.insert("pending_restart_reason".into(), json!(status.record.pending_restart_reason));
    }
}

/// Keys that Patroni does not have, after all of its own.
fn insert_own_fields(body: &mut Map<String, Value>, status: &Status) {
    body.insert("session".into(), status.me.session.to_string().into());
    if let Some(progress) = status.clone_progress {
        let value = json!({"bytes": progress.bytes, "percent": progress.percent(), "rate": progress.rate()});
        body.insert("clone_progress".into(), value);
    }
    if let Some(way) = status.postgres.access.way {
        body.insert("postgres_access".into(), way.as_str().into());
    }
    if let Some(trouble) = &status.record.postgres_access {
        body.insert("postgres_access_trouble".into(), trouble.as_str().into());
    }
    if let Some(pid) = status.guard {
        body.insert("guard".into(), pid.into());
    }
    if let Some(sql) = status.postgres.answering() {
        body.insert("position_is_exact".into(), sql.is_exact().into());
        body.insert("receives_wal".into(), sql.receives().into());
    }
    body.insert("store".into(), json!(status.store));
    if status.postgres.data.holds_nothing() {
        body.insert("no_data".into(), true.into());
    }
    if let Some(end) = status.kubernetes.as_ref().and_then(|pod| pod.end) {
        body.insert("pod_ends".into(), end.to_string().into());
    }
    if let Some(pod) = &status.kubernetes {
        let trouble = |(task, trouble): (&PodTask, &PodTrouble)| {
            json!({
                "task": task.as_str(), "failure": trouble.kind.as_str(), "in_a_row": trouble.count,
                "text": trouble.text
            })
        };
        let troubles: Vec<_> =
            pod.trouble.iter().filter(|(_, trouble)| trouble.lasts()).map(trouble).collect();
        body.insert("kubernetes".into(), json!({"role": pod.role, "trouble": troubles}));
    }
    if let Some(why) = &status.writes_refused {
        body.insert("etcd_writes_refused".into(), why.as_str().into());
    }
    if status.restart_begins_as_standby {
        body.insert("restart_begins_as_standby".into(), true.into());
    }
    if let Some(attempt) = status.recruited {
        body.insert("recruited".into(), attempt.into());
    }
    if status.yields {
        body.insert("yields_leadership".into(), true.into());
    }
    hearing::insert(body, &status.hearing, status.suspicion);
    body.insert("because".into(), status.because.as_str().into());
    if let Some(hand_over) = &status.hand_over {
        body.insert("hand_over".into(), hand_over.to_string().into());
    }
    if let Some(view) = &status.view {
        let left: Vec<&MemberName> = view.unfenced(None).map(|(name, _)| name).collect();
        if !left.is_empty() {
            body.insert("unfenced".into(), json!(left));
        }
        body.insert("guarantee".into(), Guarantee::of(&status.settings.sync, view).to_string().into());
    }
    let unsynchronous = &status.postgres.unsynchronous;
    if status.settings.sync.mode != SyncMode::Off && !unsynchronous.is_empty() {
        body.insert("unsynchronous".into(), json!(unsynchronous));
    }
}

fn role_word(kind: StandbyKind) -> &'static str {
    match kind {
        StandbyKind::Asynchronous => "replica",
        StandbyKind::Sync => "sync_standby",
        StandbyKind::Quorum => "quorum_standby",
    }
}

/// One member for `/cluster` and the CLI.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberRow {
    /// Its name.
    pub name: MemberName,
    /// `leader`, `standby_leader`, `sync_standby`, `quorum_standby` or `replica`.
    pub role: &'static str,
    /// For standbys the replication state, if one is published.
    pub state: String,
    /// Host and port of its Postgres.
    pub address: Option<(String, u16)>,
    /// Its record.
    pub record: MemberRecord,
    /// Its lag; `None` for the holder of the leader key.
    pub lag: Option<Lag>,
}

/// The lag behind the leader's furthest known position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// By the received position.
    pub receive: Behind,
    /// By the replayed position.
    pub replay: Behind,
    /// By the further of the two.
    pub furthest: Behind,
}

/// A position and its distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind {
    /// The position; `None` when it is not published.
    pub lsn: Option<Lsn>,
    /// Bytes behind; `None` when either position is unknown.
    pub bytes: Option<u64>,
}

/// Every member, sorted by name.
pub fn member_rows(view: &ClusterView) -> Vec<MemberRow> {
    let sync = sync_settings(view);
    let row = |(name, member)| member_row(view, &sync, name, member);
    view.members.iter().map(row).collect()
}

fn member_row(view: &ClusterView, sync: &SyncSettings, name: &MemberName, member: &MemberKey) -> MemberRow {
    let record = &member.record;
    let leads = view.leader.as_ref().is_some_and(|leader| leader.name == *name);
    let role = match (leads, is_standby_cluster(view)) {
        (true, true) => "standby_leader",
        (true, false) => "leader",
        (false, _) => role_word(StandbyKind::of(sync.mode, view, name)),
    };
    let state = match &record.replication_state {
        Some(state) if role != "leader" => state.clone(),
        Some(_) | None => record.state.to_string(),
    };
    let end = view.known_end();
    let behind = |lsn: Option<Lsn>| {
        let lsn = lsn.filter(|lsn| lsn.is_known());
        Behind { lsn, bytes: lsn.zip(end).map(|(lsn, end)| end.bytes_since(lsn)) }
    };
    let lag = (!leads).then(|| Lag {
        receive: behind(record.receive_lsn),
        replay: behind(record.replay_lsn),
        furthest: behind(record.xlog_location),
    });
    let address = record.conn_url.as_deref().and_then(address);
    MemberRow { name: name.clone(), role, state, address, record: record.clone(), lag }
}

/// Host and port of a URL, with 5432 as the default port.
pub fn address(url: &str) -> Option<(String, u16)> {
    let rest = url.split_once("://")?.1;
    let authority = rest.split(['/', '?']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if let Some(rest) = host.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let port = port.strip_prefix(':').map_or(Some(5432), |port| port.parse().ok())?;
        return Some((address.to_owned(), port));
    }
    match host.rsplit_once(':') {
        Some((host, port)) => Some((host.to_owned(), port.parse().ok()?)),
        None if host.is_empty() => None,
        None => Some((host.to_owned(), 5432)),
    }
}

/// The body of `/cluster`.
pub fn cluster_body(scope: &str, view: &ClusterView) -> Value {
    let mut body = Map::new();
    let members: Vec<Value> = member_rows(view).iter().map(member_body).collect();
    body.insert("members".into(), members.into());
    if paused(view) {
        body.insert("pause".into(), true.into());
    }
    if let Some((request, at)) =
        view.failover.as_ref().and_then(|key| Some((&key.request, key.request.scheduled_at?)))
    {
        let mut planned = Map::from_iter([("at".to_owned(), time::iso(at).into())]);
        for (key, name) in [("from", &request.leader), ("to", &request.candidate)] {
            if let Some(name) = name {
                planned.insert(key.into(), name.as_str().into());
            }
        }
        body.insert("scheduled_switchover".into(), planned.into());
    }
    if let Some(key) = view.unsettled() {
        body.insert("store_unsettled".into(), key.record.because.as_str().into());
    }
    if view.unfenced(None).next().is_some() {
        let primaries = view.unfenced.as_ref().map(|key| &key.primaries);
        body.insert("unfenced".into(), json!(primaries));
    }
    body.insert("scope".into(), scope.into());
    Value::Object(body)
}

fn member_body(row: &MemberRow) -> Value {
    let mut body = Map::new();
    body.insert("name".into(), row.name.as_str().into());
    body.insert("role".into(), row.role.into());
    body.insert("state".into(), row.state.as_str().into());
    body.insert("api_url".into(), json!(row.record.api_url));
    if let Some((host, port)) = &row.address {
        body.insert("host".into(), host.as_str().into());
        body.insert("port".into(), (*port).into());
    }
    let record = serde_json::to_value(&row.record).unwrap_or_default();
    for key in ["timeline", "pending_restart", "pending_restart_reason", "scheduled_restart", "tags"] {
        if let Some(value) = record.get(key) {
            body.insert(key.into(), value.clone());
        }
    }
    if let Some(lag) = &row.lag {
        let parts = [
            ("receive_lag", "receive_lsn", lag.receive),
            ("replay_lag", "replay_lsn", lag.replay),
            ("lag", "lsn", lag.furthest),
        ];
        for (lag_key, lsn_key, behind) in parts {
            body.insert(lag_key.into(), behind.bytes.map_or_else(|| "unknown".into(), Value::from));
            let lsn = behind.lsn.map_or_else(|| "unknown".to_owned(), |lsn| lsn.to_string());
            body.insert(lsn_key.into(), lsn.into());
        }
    }
    Value::Object(body)
}

/// The dynamic configuration, if it is an object.
pub fn config_of(view: &ClusterView) -> Option<Map<String, Value>> {
    match serde_json::from_str(&view.config.as_ref()?.text) {
        Ok(Value::Object(config)) => Some(config),
        Ok(_) | Err(_) => None,
    }
}

/// The cluster's synchronous replication. Where the configuration does not decide, the key `sync` does.
pub fn sync_settings(view: &ClusterView) -> SyncSettings {
    let mended = view.config.as_ref().map(|key| config::mended(&key.text, "{}"));
    let wanted = mended.as_ref().map(|mended| config::sync_settings(&mended.text)).unwrap_or_default();
    match mended.is_some_and(|mended| mended.says_mode) {
        true => wanted,
        false => wanted.bound_by(view.sync_record()),
    }
}

/// Whether its members follow a remote primary.
pub fn is_standby_cluster(view: &ClusterView) -> bool {
    view.config.as_ref().is_some_and(|key| config::is_of_standby_cluster(&key.text))
}

/// Whether the cluster is paused.
pub fn paused(view: &ClusterView) -> bool {
    view.config.as_ref().is_some_and(|key| config::pauses(&key.text))
}

/// The body of `/history`.
pub fn history_body(lines: &[HistoryLine]) -> Value {
    let line = |line: &HistoryLine| {
        let mut parts = vec![json!(line.parent), json!(line.lsn), json!(line.reason)];
        parts.extend(line.at.as_ref().map(|at| json!(at)));
        parts.extend(line.at.as_ref().and(line.promoted.as_ref()).map(|name| json!(name)));
        Value::Array(parts)
    };
    lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests;
