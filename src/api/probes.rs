//! Health checks: status, path and query in, a status code out. No clock, no I/O.
//!
//! The paths are matched by substring and in this order, because existing load balancers rely on it.

use std::time::Duration;

use serde_json::Value;

use super::query::Query;
use super::wire;
use crate::agent::Status;
use crate::model::{JobKind, MemberState, Moment, Process, Role, SqlFacts, Standby, StandbyKind};

/// A query of this age no longer proves that Postgres accepts writes: twice the time of one query under load. After it
/// no load balancer sees a frozen Postgres as a primary, long before the lease ends.
pub const PROOF_AGE_MAX: Duration = Duration::from_secs(2);

/// The shortest standstill of a recovery that counts as a stop, however short the configured limit of a start.
const STANDSTILL_MIN: Duration = Duration::from_secs(60);

const OK: u16 = 200;
const UNAVAILABLE: u16 = 503;

/// The general health check, for every GET without a route of its own, and for every HEAD and OPTIONS.
pub fn health(status: &Status, path: &str, query: &Query, now: Moment) -> u16 {
    let path = if path == "/" { "/primary" } else { path };
    let leading = LeaderProbe::of(status, now);
    let (well, filtered) = if path.contains("standby_leader") || path.contains("standby-leader") {
        (leading.standby_leader, false)
    } else if path.contains("leader") {
        (leading.leader, false)
    } else if ["master", "primary", "read-write"].iter().any(|word| path.contains(word)) {
        (leading.primary, false)
    } else if path.contains("replica") {
        (replica(status, query), true)
    } else if path.contains("read-only") && !path.contains("sync") && !path.contains("quorum") {
        (leading.writable() || replica(status, query), true)
    } else if path.contains("health") {
        (wire::state_now(status) == MemberState::Running, true)
    } else if status.view.is_some() {
        (by_synchronicity(status, path, query, leading), true)
    } else {
        (false, false)
    };
    code(well && (!filtered || tags_match(status, query)))
}

/// Whether the supervisor is alive. It depends on the announced time of the loop's next tick, never on Postgres or
/// etcd.
pub fn liveness(status: &Status, now: Moment) -> u16 {
    let ttl = status.settings.ttl;
    let primary_runs = status.role == Role::Primary && status.state == MemberState::Running;
    let patience = if primary_runs { ttl } else { ttl * 2 };
    code(status.settings.pause || now < status.next_tick_by + patience)
}

/// Whether PostgreSQL has started or is starting: recovery that advances may take hours, and so may the copy that
/// precedes it. True also before etcd has answered, since a restart of the container would not help.
pub(super) fn startup(status: &Status, now: Moment) -> u16 {
    let patience = status.settings.primary_start_timeout.max(STANDSTILL_MIN);
    let advances = status.recovered_at.is_some_and(|at| now < at + patience);
    let is_up = matches!(status.postgres.process, Process::Up { .. });
    let works = status.job.is_some() && !is_up;
    let waits = status.etcd_last_seen == 0;
    code(status.postgres.answering().is_some() || advances || works || waits)
}

/// A standby without streaming has old data. After this time it is not ready for readers, unless the query allows more.
const STALE_MAX: Duration = Duration::from_secs(60);

/// Whether this member leads, or is close enough behind. Without a leader no standby streams: one that did so at most
/// `stale` seconds ago still serves readers. One that lacks WAL which the leader has removed will not catch up.
pub fn readiness(status: &Status, query: &Query, now: Moment) -> u16 {
    if status.is_leader(now) {
        return OK;
    }
    let Some((sql, standby)) = status.postgres.answering().map(|sql| (sql, &sql.standby)) else {
        return UNAVAILABLE;
    };
    let Standby::Yes { received, replayed, receiver, .. } = standby else {
        return UNAVAILABLE;
    };
    let end = receiver.as_ref().map_or(0, |receiver| receiver.latest_end.0);
    let seconds = query.first("stale").and_then(|text| text.parse().ok());
    let stale_max =
        seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(STALE_MAX);
    let streamed = status.streamed_at.is_some_and(|at| now.since(at) <= stale_max);
    if status.view.is_none() && end == 0 && !streamed {
        return UNAVAILABLE;
    }
    let reached = if query.first("mode") == Some("write") { received.0.max(replayed.0) } else { replayed.0 };
    let limit =
        query.first("lag").and_then(size_in_bytes).unwrap_or(status.settings.maximum_lag_on_failover as i64);
    let lag = end.max(optime(status)).saturating_sub(reached);
    code(
        status.state == MemberState::Running
            && !status.lacks_removed_wal
            && (sql.streams() || streamed)
            && i128::from(lag) <= i128::from(limit),
    )
}

/// A size such as `1048576`, `16MB` or `1.5 GB`, in bytes.
pub fn size_in_bytes(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits =
        text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+'))).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        _ => return None,
    };
    match number.parse::<i64>() {
        Ok(whole) => whole.checked_mul(scale as i64),
        Err(_) => number.parse::<f64>().ok().map(|number| (number * scale as f64).round() as i64),
    }
}

#[derive(Clone, Copy)]
struct LeaderProbe {
    leader: bool,
    primary: bool,
    standby_leader: bool,
}

impl LeaderProbe {
    fn of(status: &Status, now: Moment) -> LeaderProbe {
        let proved = status
            .postgres
            .answering()
            .is_some_and(|sql: &SqlFacts| sql.is_primary() && now.since(sql.at) <= PROOF_AGE_MAX);
        let proved =
            proved && status.postgres.liveness.death().is_none() && !status.postgres.clients_locked_out;
        // A Postgres that is being stopped, by the loop or by the guard, admits no clients.
        let stays = status.job != Some(JobKind::Stop) && !status.lease.runs_out(now);
        let in_standby_cluster = status.settings.standby_cluster.is_some();
        let is_standby = matches!(wire::role_now(status), Role::Replica | Role::StandbyLeader);
        // In pause a loss of etcd has no consequences, so Postgres' own role decides, as for the operator.
        let leader = if status.view.is_none() && status.settings.pause {
            matches!(wire::role_now(status), Role::Primary | Role::StandbyLeader)
        } else {
            status.is_leader(now)
        };
        LeaderProbe {
            leader,
            primary: leader && !in_standby_cluster && proved && stays,
            standby_leader: leader && in_standby_cluster && is_standby,
        }
    }

    fn writable(self) -> bool {
        self.primary || self.standby_leader
    }
}

fn replica(status: &Status, query: &Query) -> bool {
    let Some(sql) = status.postgres.answering() else {
        return false;
    };
    let Standby::Yes { replayed, receiver, .. } = &sql.standby else {
        return false;
    };
    let end = receiver.as_ref().map_or(0, |receiver| receiver.latest_end.0).max(optime(status));
    let limit = query.first("lag").and_then(size_in_bytes);
    let too_far = |limit| end > 0 && i128::from(end) > i128::from(replayed.0) + i128::from(limit);
    let lagging = limit.is_some_and(|limit: i64| status.lacks_removed_wal || too_far(limit));
    let state_wanted = query.first("replication_state");
    !status.me.tags.noloadbalance()
        && !lagging
        && wire::role_now(status) == Role::Replica
        && wire::state_now(status) == MemberState::Running
        && state_wanted.is_none_or(|wanted| wire::replication_state(sql) == Some(wanted))
}

/// The paths for a standby's part in commits; the leader may answer those for reading only.
fn by_synchronicity(status: &Status, path: &str, query: &Query, leading: LeaderProbe) -> bool {
    let (wanted, or_leader) = match path {
        "/async" | "/asynchronous" => (StandbyKind::Asynchronous, false),
        "/sync" | "/synchronous" => (StandbyKind::Sync, false),
        "/quorum" => (StandbyKind::Quorum, false),
        "/read-only-sync" | "/read-only-synchronous" => (StandbyKind::Sync, true),
        "/read-only-quorum" => (StandbyKind::Quorum, true),
        _ => return false,
    };
    (or_leader && leading.writable()) || (wire::standby_kind(status) == wanted && replica(status, query))
}

fn tags_match(status: &Status, query: &Query) -> bool {
    let tags = status.me.tags.published();
    query.starting_with("tag_").all(|(key, wanted)| match tags.0.get(key) {
        None => false,
        Some(Value::String(text)) => text == wanted,
        Some(other) => other.to_string().to_lowercase() == wanted,
    })
}

fn optime(status: &Status) -> u64 {
    let published = status.view.as_ref().and_then(|view| view.status.as_ref()?.optime);
    published.map_or(0, |lsn| lsn.0)
}

fn code(well: bool) -> u16 {
    if well { OK } else { UNAVAILABLE }
}

#[cfg(test)]
mod tests;
