//! A cluster's members as rows: the columns that a patronictl user knows.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::sheet::{Column, Sheet, Where};
use crate::api::wire;
use crate::config::{self, Address};
use crate::model::{
    ClusterView, Guarantee, Lsn, MemberKey, MemberName, MemberRecord, MemberState, StandbyKind, WallTime,
    json_one_line, size,
};

/// The options for optional columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// Show the columns about restarts and tags even if they are empty.
    pub extended: bool,
    /// Draw replicas below the member they stream from.
    pub tree: bool,
}

/// A longer reason for a restart is not shown in the table.
const REASON_SHOWN_MAX: usize = 50;
const MEGABYTE: u64 = 1024 * 1024;

const COLUMNS: [Column<'static>; 17] = [
    Column::text("Cluster").for_machines(),
    Column::text("Member"),
    Column::text("Host"),
    Column::text("Role"),
    Column::text("State"),
    Column::number("TL"),
    Column::number("Receive LSN"),
    Column::number("Receive Lag").shown("Lag"),
    Column::number("Replay LSN"),
    Column::number("Replay Lag").shown("Lag"),
    Column::text("Pending restart"),
    REASON,
    Column::text("Scheduled restart"),
    Column::text("Tags"),
    // Behind the columns that readers of tsv count.
    Column::text("Progress"),
    Column::text("Kubernetes"),
    Column::text("PostgreSQL"),
];
const REASON: Column<'static> = Column::text("Pending restart reason");
/// The first column that is left out if no member has a value.
const FIRST_OPTIONAL: usize = 10;
/// The first column that `--extended` does not show while it is empty.
const FIRST_OWN: usize = 14;

/// The members of `view` as a table.
pub fn members(scope: &str, view: &ClusterView, detail: Detail) -> Sheet<'static> {
    let with_port = needs_ports(view);
    let ordered = match detail.tree {
        true => wire::tree(view),
        false => view.members.iter().map(|(name, member)| (0, name, member)).collect(),
    };
    let rows: Vec<Vec<Value>> = ordered
        .into_iter()
        .map(|(depth, name, member)| {
            let shown =
                if depth > 0 { format!("{}+ {name}", "  ".repeat(depth - 1)) } else { name.to_string() };
            row(scope, view, &shown, name, member, with_port, detail)
        })
        .collect();
    let keep = |index: &usize| {
        *index < FIRST_OPTIONAL
            || (detail.extended && *index < FIRST_OWN)
            || rows.iter().any(|row| !row[*index].is_null())
    };
    let kept: Vec<usize> = (0..COLUMNS.len()).filter(keep).collect();
    let pick = |row: Vec<Value>| kept.iter().map(|&index| row[index].clone()).collect();
    Sheet {
        title: title(scope, view),
        columns: kept.iter().map(|&index| COLUMNS[index]).map(|column| in_table(column, &rows)).collect(),
        rows: rows.clone().into_iter().map(pick).collect(),
        footer: footer(view),
    }
}

/// A column of reasons is left out of the table when one of them is too long.
fn in_table(column: Column<'static>, rows: &[Vec<Value>]) -> Column<'static> {
    let long = |row: &Vec<Value>| row[11].as_str().is_some_and(|text| text.len() > REASON_SHOWN_MAX);
    if column.name == REASON.name && rows.iter().any(long) {
        return Column { place: Where::ForMachines, ..column };
    }
    column
}

/// ` Cluster: NAME (SYSTEM IDENTIFIER) `.
pub fn title(scope: &str, view: &ClusterView) -> String {
    let state = match view.initialize.as_deref() {
        None => "uninitialized",
        Some("") => "initializing",
        Some(system_id) => system_id,
    };
    format!(" Cluster: {scope} ({state}) ")
}

fn row(
    scope: &str,
    view: &ClusterView,
    shown: &str,
    name: &MemberName,
    member: &MemberKey,
    with_port: bool,
    detail: Detail,
) -> Vec<Value> {
    let record = &member.record;
    let leads = is_leader(view, name);
    let received = match record.replication_state.as_deref() {
        Some("streaming") => record.receive_lsn.or(record.xlog_location),
        Some(_) | None => record.receive_lsn,
    };
    let replayed = record.replay_lsn.or(record.xlog_location);
    let (receive_lsn, receive_lag) = position(view, leads, received);
    let (replay_lsn, replay_lag) = position(view, leads, replayed);
    let reason = record.pending_restart_reason.as_ref();
    vec![
        json!(scope),
        json!(shown),
        json!(host(record.conn_url.as_deref(), with_port)),
        json!(role(view, name)),
        json!(state(leads, member)),
        json!(record.timeline),
        receive_lsn,
        receive_lag,
        replay_lsn,
        replay_lag,
        if record.pending_restart == Some(true) { json!("*") } else { Value::Null },
        reason.map_or(Value::Null, |reason| json!(restart_reason(reason))),
        record.scheduled_restart.as_ref().map_or(Value::Null, |restart| json!(scheduled_restart(restart))),
        tags(record, detail),
        record
            .clone_progress
            .as_ref()
            .filter(|_| record.state == MemberState::CreatingReplica)
            .map_or(Value::Null, |progress| json!(clone_progress(progress))),
        json!(record.kubernetes),
        json!(record.postgres_access),
    ]
}

/// A tree has a line for each member.
fn tags(record: &MemberRecord, detail: Detail) -> Value {
    match Value::Object(record.tags.0.clone()) {
        _ if record.tags.0.is_empty() => Value::Null,
        tags if detail.tree => json!(json_one_line(&tags)),
        tags => tags,
    }
}

/// Whether `name` holds the leader key.
pub fn is_leader(view: &ClusterView, name: &MemberName) -> bool {
    view.leader.as_ref().is_some_and(|leader| leader.name == *name)
}

fn role(view: &ClusterView, name: &MemberName) -> &'static str {
    match (is_leader(view, name), wire::is_standby_cluster(view)) {
        (true, false) => "Leader",
        (true, true) => "Standby Leader",
        (false, _) => match standby_kind(view, name) {
            StandbyKind::Asynchronous => "Replica",
            StandbyKind::Sync => "Sync Standby",
            StandbyKind::Quorum => "Quorum Standby",
        },
    }
}

/// The part of the standby `name` in commits.
pub fn standby_kind(view: &ClusterView, name: &MemberName) -> StandbyKind {
    StandbyKind::of(wire::sync_settings(view).mode, view, name)
}

/// A member's state in the table: the leader's state, or a standby's replication.
pub fn state(leads: bool, member: &MemberKey) -> String {
    let record = &member.record;
    match &record.replication_state {
        Some(replication) if !leads => replication.clone(),
        Some(_) | None => record.state.to_string(),
    }
}

fn position(view: &ClusterView, leads: bool, lsn: Option<Lsn>) -> (Value, Value) {
    if leads {
        return (Value::Null, Value::Null);
    }
    let Some(lsn) = lsn.filter(|lsn| lsn.is_known()) else {
        return (json!("unknown"), Value::Null);
    };
    let lag = view.known_end().map(|end| (end.bytes_since(lsn) + MEGABYTE / 2) / MEGABYTE);
    (json!(lsn.to_string()), json!(lag))
}

fn host(conn_url: Option<&str>, with_port: bool) -> String {
    let Some((host, port)) = conn_url.and_then(wire::address) else { return String::new() };
    if with_port { Address { host, port }.to_string() } else { host }
}

/// All ports are shown when one is not 5432 or two members share a host.
fn needs_ports(view: &ClusterView) -> bool {
    let addresses =
        || view.members.values().filter_map(|member| wire::address(member.record.conn_url.as_deref()?));
    let hosts: BTreeSet<String> = addresses().map(|(host, _)| host).collect();
    addresses().any(|(_, port)| port != 5432) || hosts.len() < addresses().count()
}

fn clone_progress(progress: &Map<String, Value>) -> String {
    let number = |key: &str| progress.get(key).and_then(Value::as_u64);
    let percent = number("percent").map(|percent| format!("{percent}%"));
    let bytes = number("bytes").map(size);
    let rate = number("rate").map(|rate| format!("{}/s", size(rate)));
    [percent, bytes, rate].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn restart_reason(reason: &Map<String, Value>) -> String {
    let side = |change: &Value, key: &str| change.get(key).map(json_one_line).unwrap_or_default();
    let line = |(name, change): (&String, &Value)| {
        format!("{name}: {}->{}", side(change, "old_value"), side(change, "new_value"))
    };
    reason.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The time, and the condition on the version.
pub fn scheduled_restart(restart: &Map<String, Value>) -> String {
    let text = |key: &str| restart.get(key).map(json_one_line);
    let at = text("schedule").unwrap_or_default();
    match text("postgres_version") {
        Some(version) => format!("{at} if version < {version}"),
        None => at,
    }
}

fn footer(view: &ClusterView) -> Vec<String> {
    let mut lines = Vec::new();
    if view.config.is_some() {
        lines.push(match wire::is_standby_cluster(view) {
            true => "Standby cluster: it follows a remote primary and accepts no writes".to_owned(),
            false => Guarantee::of(&wire::sync_settings(view), view).to_string(),
        });
    }
    if is_paused(view) {
        lines.push("Maintenance mode: on".to_owned());
    }
    lines.extend(view.unsettled().map(|key| key.record.to_string()));
    lines.extend(view.unfenced(None).map(|(name, left)| ClusterView::unfenced_text(name, left)));
    let refusals = view.members.iter().filter_map(|(name, key)| Some((name, key.record.refusal.as_ref()?)));
    lines.extend(refusals.map(|(name, why)| format!("{name}: {why}")));
    let request = view.failover.as_ref().map(|failover| &failover.request);
    if let Some(request) = request
        && let Some(at) = request.scheduled_at
    {
        let mut line = format!("Switchover scheduled at: {}", iso(at));
        for (word, name) in [("from", &request.leader), ("to", &request.candidate)] {
            if let Some(name) = name {
                line.push_str(&format!("  {word}: {name}"));
            }
        }
        lines.push(line);
    }
    lines
}

/// Whether the dynamic configuration has `pause`. Without one, whether a member still applies an earlier pause.
pub fn is_paused(view: &ClusterView) -> bool {
    match &view.config {
        Some(key) => config::pauses(&key.text),
        None => view.members.values().any(|member| member.record.pause == Some(true)),
    }
}

fn iso(at: WallTime) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| at.0.to_string(), |time| time.to_string())
}

#[cfg(test)]
pub(super) mod tests;
