//! `/metrics`. Written by hand, because client libraries forbid Patroni's names of counters, which lack `_total`.

mod tally;

use std::fmt::Write;

use super::{time, wire};
use crate::agent::Status;
use crate::model::{
    Guarantee, HearingFacts, Histogram, MemberState, Moment, OwnAccess, PodFailure, PodTask, PostgresFacts,
    Process, Role, SlotFacts, Standby, StandbyKind,
};

/// The whole page.
pub fn text(status: &Status, hearing: &HearingFacts, now: Moment) -> String {
    let mut page = Page::new(status);
    postgres(&mut page, status);
    positions(&mut page, status);
    cluster(&mut page, status);
    own_metrics(&mut page, status, now);
    tally::text(&mut page, &status.tally);
    heartbeats(&mut page, hearing, now);
    kubernetes(&mut page, status, now);
    page.text
}

fn postgres(page: &mut Page, status: &Status) {
    let sql = status.postgres.answering();
    let role = wire::role_now(status);
    let started = sql.and_then(|sql| time::epoch(&sql.postmaster_start_time)).unwrap_or(0.0);
    page.gauge("patroni_version", "Compatible Patroni version without dots.", padded_version());
    page.flag(
        "patroni_postgres_running",
        "Postgres is running.",
        wire::state_now(status) == MemberState::Running,
    );
    page.gauge("patroni_postmaster_start_time", "Epoch seconds since Postgres started.", started);
    page.flag("patroni_primary", "This member is a primary.", role == Role::Primary);
    let location = sql.filter(|sql| sql.is_primary()).map_or(0, |sql| sql.flushed.0);
    page.counter("patroni_xlog_location", "Current WAL position of a primary.", location);
    page.flag("patroni_standby_leader", "This member leads a standby cluster.", role == Role::StandbyLeader);
    page.flag("patroni_replica", "This member is a replica.", role == Role::Replica);
    // Like `role`, known only from a Postgres that answers.
    let kind = sql.map(|_| wire::standby_kind(status));
    let (sync, quorum) = (kind == Some(StandbyKind::Sync), kind == Some(StandbyKind::Quorum));
    page.flag("patroni_sync_standby", "This member is a synchronous standby.", sync);
    page.flag("patroni_quorum_standby", "This member is a quorum standby.", quorum);
}

fn positions(page: &mut Page, status: &Status) {
    let sql = status.postgres.answering();
    let (mut received_lsn, mut replayed_lsn, mut replayed_at, mut is_paused) = (0, 0, 0.0, false);
    if let Some(Standby::Yes { received, replayed, replayed_timestamp, paused, .. }) =
        sql.map(|sql| &sql.standby)
    {
        received_lsn = if received.is_known() { received.0 } else { replayed.0 };
        replayed_lsn = replayed.0;
        replayed_at = replayed_timestamp.as_deref().and_then(time::epoch).unwrap_or(0.0);
        is_paused = *paused;
    }
    page.counter("patroni_xlog_received_location", "Received WAL position of a standby.", received_lsn);
    page.counter("patroni_xlog_replayed_location", "Replayed WAL position of a standby.", replayed_lsn);
    page.gauge(
        "patroni_xlog_replayed_timestamp",
        "Commit time of the last replayed transaction.",
        replayed_at,
    );
    page.flag("patroni_xlog_paused", "WAL replay is paused.", is_paused);
    if let Some(sql) = sql.filter(|sql| sql.server_version >= 90_600) {
        let state = wire::replication_state(sql);
        page.flag("patroni_postgres_streaming", "Postgres is streaming.", state == Some("streaming"));
        let archive = state == Some("in archive recovery");
        page.flag("patroni_postgres_in_archive_recovery", "Postgres replays from the archive.", archive);
    }
    let version = sql.map_or(0, |sql| sql.server_version);
    page.gauge("patroni_postgres_server_version", "Version of Postgres.", version);
    page.gauges(
        "matriarch_slot_wal_bytes",
        "WAL in bytes that a replication slot retains, for the slots that retain most.",
        "slot",
        &held_by_slots(status),
    );
}

fn cluster(page: &mut Page, status: &Status) {
    let unlocked = status.view.as_ref().is_none_or(|view| view.leader.is_none());
    let timeline = status.postgres.answering().and_then(|sql| sql.timeline).map_or(0, |timeline| timeline.0);
    page.flag("patroni_cluster_unlocked", "The cluster has no leader.", unlocked);
    page.flag("patroni_failsafe_mode_is_active", "Failsafe mode is active.", status.failsafe_active);
    page.flag("patroni_failsafe_mode_enabled", "Failsafe mode is enabled.", status.settings.failsafe_mode);
    let key = status.last_view.as_ref().and_then(|view| view.failsafe.as_ref());
    let is_member = key.is_some_and(|key| key.members.contains_key(&status.me.name));
    page.flag("patroni_failsafe_member", "This member is known to failsafe mode.", is_member);
    page.gauge("patroni_postgres_timeline", "Timeline of Postgres.", timeline);
    page.gauge("patroni_dcs_last_seen", "Epoch seconds when etcd last answered.", status.etcd_last_seen);
    let pending = status.record.pending_restart == Some(true);
    page.flag("patroni_pending_restart", "Postgres needs a restart.", pending);
    page.flag("patroni_is_paused", "Automatic failover is off.", status.settings.pause);
    page.gauge("patroni_postgres_state", "State of Postgres.", wire::state_now(status).metric());
    let states: Vec<String> =
        MemberState::ALL.iter().map(|state| format!("{}={state}", state.metric())).collect();
    page.comment(&format!("patroni_postgres_state: {}, -1=unknown", states.join(", ")));
    let priority = status.me.tags.failover_priority();
    page.gauge(
        "patroni_failover_priority",
        "Failover priority, zero for a member that must not lead.",
        priority,
    );
}

/// The way of access; empty without a server, or before the first query.
fn access(postgres: &PostgresFacts) -> Vec<(&'static str, f64)> {
    let OwnAccess { way, refused } = &postgres.access;
    let way = match (&postgres.process, way) {
        (Process::Up { .. }, Some(way)) => Some(way.as_str()),
        (Process::Up { .. }, None) if !refused.is_empty() => Some("none"),
        (Process::Up { .. } | Process::Down { .. }, _) => None,
    };
    way.map(|way| (way, 1.0)).into_iter().collect()
}

/// The most slots that are shown: each is a time series.
const SLOTS_MAX: usize = 20;

/// The slots that retain the most WAL.
fn held_by_slots(status: &Status) -> Vec<(&str, f64)> {
    let Some(sql) = status.postgres.answering() else { return Vec::new() };
    let end = sql.lsn().0;
    let held = |facts: &SlotFacts| Some(end.saturating_sub(facts.restart?.0));
    let mut slots: Vec<(&String, u64)> =
        sql.slots.iter().filter_map(|(name, facts)| Some((name, held(facts)?))).collect();
    slots.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    slots.truncate(SLOTS_MAX);
    slots.into_iter().map(|(name, bytes)| (name.as_str(), bytes as f64)).collect()
}

/// Metrics that Patroni does not have.
fn own_metrics(page: &mut Page, status: &Status, now: Moment) {
    let left = match status.lease.deadline {
        Some(deadline) if status.is_leader(now) => now.until(deadline).as_secs_f64(),
        Some(_) | None => 0.0,
    };
    page.gauge("matriarch_lease_seconds_left", "Seconds until the leader lease ends if not renewed.", left);
    page.flag(
        "matriarch_etcd_writes_refused",
        "etcd refuses writes: no other member can take over, and no member can publish its state.",
        status.writes_refused.is_some(),
    );
    let survived = status
        .view
        .as_ref()
        .map_or(0, |view| Guarantee::of(&status.settings.sync, view).failures_tolerated());
    page.gauge(
        "matriarch_failures_tolerated",
        "Members, the leader included, that can fail without losing an acknowledged commit.",
        survived,
    );
    page.gauge(
        "matriarch_unfenced_primaries",
        "Primaries that run without a supervisor because their supervisor ended during a pause.",
        status.view.as_ref().map_or(0, |view| view.unfenced(None).count()),
    );
    let generation = status.view.as_ref().and_then(|view| view.generation.as_ref());
    page.flag(
        "matriarch_store_unsettled",
        "etcd was restored or replaced, and no leader has been confirmed against the members' data since.",
        generation.is_some_and(|key| !key.record.settled),
    );
    page.gauge(
        "matriarch_store_generations",
        "Number of times that etcd was restored or replaced, as far as this is known.",
        generation.map_or(0, |key| key.record.ids.len()),
    );
    page.gauge(
        "matriarch_sync_waiting",
        "Sessions whose commit waits for a synchronous standby.",
        status.postgres.answering().map_or(0, |sql| sql.sync.waiting.len()),
    );
    page.gauge(
        "matriarch_unsynchronous",
        "Roles and databases whose synchronous_commit makes commits skip the wait for standbys.",
        status.postgres.unsynchronous.len(),
    );
    page.gauges(
        "matriarch_postgres_access",
        "The method by which the supervisor connects to its Postgres; none if all were refused.",
        "way",
        &access(&status.postgres),
    );
    let age = now.since(status.ticked_at).as_secs_f64();
    page.gauge("matriarch_tick_age_seconds", "Seconds since the main loop last completed a tick.", age);
    let proofs =
        [("connection", status.postgres.liveness.connected_at), ("write", status.postgres.liveness.wrote_at)];
    let ages: Vec<_> =
        proofs.into_iter().filter_map(|(proof, at)| Some((proof, now.since(at?).as_secs_f64()))).collect();
    page.gauges(
        "matriarch_liveness_proof_age_seconds",
        "Seconds since the last successful liveness check of a Postgres that may be primary.",
        "proof",
        &ages,
    );
    for (name, value) in &status.counters {
        // Counters of events end in _total, which is all that tools require.
        page.counter(&format!("matriarch_{name}"), "Number of events that the supervisor counted.", *value);
    }
}

fn heartbeats(page: &mut Page, hearing: &HearingFacts, now: Moment) {
    page.counter(
        "matriarch_heartbeats_received_total",
        "Number of heartbeats of leaders that arrived and counted.",
        hearing.received,
    );
    let Some(heard_at) = hearing.heard_at else { return };
    page.gauge(
        "matriarch_heartbeat_age_seconds",
        "Seconds since the last heartbeat of the leader, where it has sent any.",
        now.since(heard_at).as_secs_f64(),
    );
    page.gauge(
        "matriarch_suspect_after_seconds",
        "Seconds without a heartbeat after which the leader counts as silent: the setting, or more where the link needs it.",
        hearing.suspect_after.as_secs_f64(),
    );
}

fn kubernetes(page: &mut Page, status: &Status, now: Moment) {
    let Some(pod) = &status.kubernetes else { return };
    page.flag(
        "matriarch_kubernetes_trouble",
        "A request to the Kubernetes API fails.",
        pod.complaint().is_some(),
    );
    let lasting = pod.trouble.iter().filter(|(_, trouble)| trouble.lasts());
    let seconds: Vec<_> =
        lasting.map(|(task, trouble)| (task.as_str(), now.since(trouble.since).as_secs_f64())).collect();
    page.gauges(
        "matriarch_kubernetes_trouble_seconds",
        "Seconds since requests of this task to the Kubernetes API began to fail.",
        "task",
        &seconds,
    );
    let labels =
        |task: &PodTask, kind: &PodFailure| format!("task=\"{}\",kind=\"{}\"", task.as_str(), kind.as_str());
    let failures: Vec<_> =
        pod.failures.iter().map(|((task, kind), count)| (labels(task, kind), *count)).collect();
    page.counters(
        "matriarch_kubernetes_failures_total",
        "Number of failed requests to the Kubernetes API.",
        &failures,
    );
}

/// `4.1.5` as 040105.
fn padded_version() -> String {
    let part = |part: &str| format!("{part:0>2}");
    wire::PATRONI_COMPATIBLE_VERSION.split('.').map(part).collect()
}

struct Page {
    text: String,
    labels: String,
}

impl Page {
    fn new(status: &Status) -> Page {
        let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels =
            format!("{{scope=\"{}\",name=\"{}\"}}", escaped(&status.scope), escaped(status.me.name.as_str()));
        Page { text: String::new(), labels }
    }

    fn flag(&mut self, name: &str, help: &str, on: bool) {
        self.gauge(name, help, u8::from(on));
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.sample(name, "gauge", help, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.sample(name, "counter", help, value);
    }

    fn sample(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        let labels = &self.labels;
        // Writing to a String cannot fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{labels} {value}\n");
    }

    /// One sample for each value of `label`; none without values.
    fn gauges(&mut self, name: &str, help: &str, label: &str, values: &[(&str, f64)]) {
        if values.is_empty() {
            return;
        }
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} gauge\n");
        let labels = self.labels.trim_end_matches('}');
        for (is, value) in values {
            let _ = writeln!(self.text, "{name}{labels},{label}=\"{is}\"}} {value}");
        }
    }

    /// One sample for each set of further labels; none without values.
    fn counters(&mut self, name: &str, help: &str, values: &[(String, u64)]) {
        if values.is_empty() {
            return;
        }
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} counter\n");
        let labels = self.labels.trim_end_matches('}');
        for (further, value) in values {
            let _ = writeln!(self.text, "{name}{labels},{further}}} {value}");
        }
    }

    /// One histogram for each set of further labels, which end in a comma.
    fn histograms(&mut self, name: &str, help: &str, values: &[(String, &Histogram)]) {
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} histogram\n");
        let own = self.labels.trim_matches(['{', '}']);
        for (further, histogram) in values {
            for (bound, count) in histogram.buckets() {
                let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
                let _ = writeln!(self.text, "{name}_bucket{{{own},{further}le=\"{bound}\"}} {count}");
            }
            let labels = format!("{own},{further}");
            let labels = labels.trim_end_matches(',');
            let _ = writeln!(self.text, "{name}_sum{{{labels}}} {}", histogram.sum().as_secs_f64());
            let _ = writeln!(self.text, "{name}_count{{{labels}}} {}", histogram.count());
        }
    }

    fn comment(&mut self, text: &str) {
        let _ = writeln!(self.text, "# {text}");
    }
}

#[cfg(test)]
mod tests;
