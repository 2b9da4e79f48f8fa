//! The keys that this member publishes in etcd: its member record, and the cluster status while it leads.

use std::time::Duration;

use serde_json::{Map, Value};

use super::leadership::Leadership;
use super::server::Server;
use super::tick::Tick;
use super::{demote, slots};
use crate::model::{
    Action, Ask, ClusterStatus, ControlFile, ControlState, JobKind, LeaseId, Lsn, MemberRecord, MemberState,
    PostgresFacts, Process, Reason, Request, Role, SqlFacts, Standby, Term, WaitingOn,
};

/// The Patroni version whose interfaces this member implements. Readers compare it, so digits and dots only.
const COMPATIBLE_VERSION: &str = "4.1.5";

/// How long etcd may take to show a record before it counts as lost.
const MISSING_AFTER: Duration = Duration::from_secs(1);
/// How often the progress of a clone is written.
const CLONE_PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// Writes the member record when it changed: positions at most once per `loop_wait`, all else at once. While etcd
/// refuses writes, these attempts show when it accepts them again.
pub(super) fn member(tick: &mut Tick<'_>, leadership: &Leadership, server: &Server<'_>, because: &Reason) {
    let refusal = match (server, &tick.memory.failures.last) {
        (Server::Down(_), Some(why)) if tick.memory.failures.starts > 0 => Some(why.to_string()),
        (_, _) => refusal(tick, leadership, because),
    };
    let record = MemberRecord { refusal, ..record(tick, leadership, server) };
    let Some(lease) = tick.seen.lease.lease else { return };
    if is_due(tick, lease, &record) {
        tick.memory.published = Some((record.clone(), lease, tick.now));
        tick.act(Action::PublishMember(Box::new(record)));
    }
}

/// Whether the record has new content, or new positions and the last write is old, or etcd does not show the record.
fn is_due(tick: &Tick<'_>, lease: LeaseId, record: &MemberRecord) -> bool {
    let Some((old, old_lease, at)) = &tick.memory.published else { return true };
    let says_new = (*old_lease, without_positions(old)) != (lease, without_positions(record));
    let has_moved = old != record || tick.writes_refused().is_some();
    let older_than = |age: Duration| *at + age <= tick.now;
    says_new
        || (has_moved && older_than(positions_every(tick)))
        || (older_than(MISSING_AFTER) && is_missing(tick, lease, record))
}

fn positions_every(tick: &Tick<'_>) -> Duration {
    match tick.seen.clone_progress {
        Some(_) => CLONE_PROGRESS_EVERY,
        None => tick.seen.settings.loop_wait,
    }
}

/// Why this member does nothing until an operator acts, once that has lasted: a race takes its time.
fn refusal(tick: &mut Tick<'_>, leadership: &Leadership, because: &Reason) -> Option<String> {
    if because.is_passing() {
        return tick.memory.published.as_ref().and_then(|(record, ..)| record.refusal.clone());
    }
    if !because.is_refusal() {
        return None;
    }
    let races = matches!(leadership, Leadership::Nobody);
    let since = tick.memory.answers_since.filter(|_| races).unwrap_or_default();
    let lasts_at = since + tick.seen.settings.ttl;
    if races && tick.now < lasts_at {
        tick.wake_at(lasts_at, WaitingOn::Members);
        return None;
    }
    Some(because.to_string())
}

/// Whether etcd does not show `record` under my lease: a write was lost, or an older write of mine overtook it.
fn is_missing(tick: &Tick<'_>, lease: LeaseId, record: &MemberRecord) -> bool {
    let mine = tick.cluster().and_then(|cluster| cluster.members.get(&tick.seen.me.name));
    mine.is_none_or(|key| {
        key.lease != Some(lease) || without_positions(&key.record) != without_positions(record)
    })
}

fn without_positions(record: &MemberRecord) -> MemberRecord {
    MemberRecord {
        xlog_location: None,
        replay_lsn: None,
        receive_lsn: None,
        clone_progress: None,
        ..record.clone()
    }
}

fn record(tick: &Tick<'_>, leadership: &Leadership, server: &Server<'_>) -> MemberRecord {
    let me = &tick.seen.me;
    let postgres = &tick.seen.postgres;
    let sql = postgres.answering();
    let Received { receive_lsn, replay_lsn, replication_state } = sql.map(Received::of).unwrap_or_default();
    let leads = matches!(leadership, Leadership::Mine(_));
    let pending = !postgres.pending_restart.is_empty();
    MemberRecord {
        conn_url: Some(me.conn_url.clone()),
        api_url: Some(me.api_url.clone()),
        state: state(tick, server),
        role: role(tick, leads, server),
        version: COMPATIBLE_VERSION.to_owned(),
        proxy_url: me.proxy_url.clone(),
        checkpoint_after_promote: (leads && tick.memory.checkpoint != Some(true)).then_some(false),
        tags: match tick.memory.sync.leaving_since {
            Some(_) => me.tags.never_synchronous(),
            None => me.tags.published(),
        },
        pending_restart: pending.then_some(true),
        pending_restart_reason: pending.then(|| pending_reason(postgres)),
        xlog_location: sql.and_then(|sql| known(sql.lsn())),
        replay_lsn,
        receive_lsn,
        replication_state: replication_state.map(str::to_owned),
        timeline: sql.and_then(|sql| sql.timeline),
        scheduled_restart: tick.memory.scheduled_restart.as_ref().and_then(|request| schedule(request, sql)),
        pause: tick.seen.settings.pause.then_some(true),
        clone_progress: tick.seen.clone_progress.map(|progress| progress.to_json()),
        kubernetes: tick.seen.pod_trouble.clone(),
        session: Some(me.session),
        postgres_access: match postgres.process {
            Process::Up { .. } => postgres.access.complaint(),
            Process::Down { .. } => None,
        },
        system_identifier: postgres.control().map(|control| control.system_id.to_string()),
        refusal: None,
        capabilities: vec![MemberRecord::HEARTBEATS.to_owned()],
    }
}

/// The WAL that a standby has received and replayed, and how more arrives.
#[derive(Default)]
struct Received {
    receive_lsn: Option<Lsn>,
    replay_lsn: Option<Lsn>,
    replication_state: Option<&'static str>,
}

impl Received {
    fn of(sql: &SqlFacts) -> Received {
        let Standby::Yes { received, replayed, restores, .. } = &sql.standby else {
            return Received::default();
        };
        let replication_state = match (sql.streams(), restores) {
            (true, _) => Some("streaming"),
            (false, true) => Some("in archive recovery"),
            (false, false) => None,
        };
        Received { receive_lsn: known(*received), replay_lsn: known(*replayed), replication_state }
    }
}

fn known(lsn: Lsn) -> Option<Lsn> {
    lsn.is_known().then_some(lsn)
}

/// Whether the last record shows me as the leader of a standby cluster.
pub(super) fn leads_standby_cluster(tick: &Tick<'_>) -> bool {
    tick.memory.published.as_ref().is_some_and(|(record, ..)| record.role == Role::StandbyLeader)
}

/// `leads`: with time to spare.
fn role(tick: &Tick<'_>, leads: bool, server: &Server<'_>) -> Role {
    let role = own_role(tick, server);
    let leads_standby_cluster = leads && tick.in_standby_cluster();
    if role == Role::Replica && leads_standby_cluster { Role::StandbyLeader } else { role }
}

fn own_role(tick: &Tick<'_>, server: &Server<'_>) -> Role {
    let promoting = tick.seen.job.as_ref().is_some_and(|running| running.job.kind() == JobKind::Promote);
    match server {
        Server::Primary(_) if tick.memory.demoted => Role::Demoted,
        Server::Primary(_) => Role::Primary,
        Server::Standby(_) if promoting => Role::Promoted,
        Server::Standby(_) => Role::Replica,
        Server::Empty | Server::HalfMade | Server::Inaccessible(_) | Server::Unknown => Role::Uninitialized,
        Server::Silent if tick.seen.postgres.may_be_primary() => Role::Primary,
        Server::Silent => Role::Replica,
        Server::Down(_) if tick.memory.demoted => Role::Demoted,
        Server::Down(control) | Server::Foreign(control) if control.is_of_primary() => Role::Primary,
        Server::Down(_) | Server::Foreign(_) => Role::Replica,
    }
}

fn state(tick: &Tick<'_>, server: &Server<'_>) -> MemberState {
    let restarting = tick.memory.restart.as_ref().is_some_and(|restart| restart.stopped);
    match tick.seen.job.as_ref().map(|running| running.job.kind()) {
        Some(JobKind::Bootstrap) if tick.seen.me.scripts.custom_bootstrap && !tick.in_standby_cluster() => {
            return MemberState::RunningCustomBootstrapScript;
        }
        Some(JobKind::Bootstrap) if !tick.in_standby_cluster() => {
            return MemberState::InitializingNewCluster;
        }
        Some(JobKind::Bootstrap | JobKind::Clone) => return MemberState::CreatingReplica,
        Some(JobKind::StartStandby | JobKind::StartPrimary | JobKind::Stop) if restarting => {
            return MemberState::Restarting;
        }
        Some(JobKind::StartStandby | JobKind::StartPrimary) => return MemberState::Starting,
        Some(JobKind::Stop) => return MemberState::Stopping,
        Some(
            JobKind::TakeLeadership
            | JobKind::HandOver
            | JobKind::ReleaseLeadership
            | JobKind::ReclaimLeadership
            | JobKind::UndoClone
            | JobKind::Checkpoint
            | JobKind::PrePromote
            | JobKind::Promote
            | JobKind::CrashRecovery
            | JobKind::Rewind
            | JobKind::CheckpointAfterPromotion,
        )
        | None => {}
    }
    match server {
        Server::Primary(_) | Server::Standby(_) => MemberState::Running,
        Server::Silent if tick.seen.postgres.sql.is_none() => MemberState::Starting,
        Server::Silent => MemberState::Running,
        Server::Down(_) if tick.memory.failures.starts > 0 => MemberState::StartFailed,
        Server::Down(control) => down_state(tick, control.state),
        Server::Empty | Server::HalfMade | Server::Inaccessible(_) | Server::Unknown | Server::Foreign(_) => {
            MemberState::Stopped
        }
    }
}

/// In pause an operator may stop PostgreSQL in any way.
fn down_state(tick: &Tick<'_>, control: ControlState) -> MemberState {
    let seen_to_end = matches!(tick.seen.postgres.process, Process::Down { exit: Some(_) });
    match control {
        ControlState::InProduction | ControlState::InArchiveRecovery | ControlState::InCrashRecovery
            if seen_to_end && !tick.memory.demoted && !tick.seen.settings.pause =>
        {
            MemberState::Crashed
        }
        ControlState::InProduction
        | ControlState::InArchiveRecovery
        | ControlState::InCrashRecovery
        | ControlState::StartingUp
        | ControlState::ShutDown
        | ControlState::ShutDownInRecovery
        | ControlState::ShuttingDown => MemberState::Stopped,
    }
}

fn pending_reason(postgres: &PostgresFacts) -> Map<String, Value> {
    let change = |(old, new): &(String, String)| {
        let fields = [("old_value", old), ("new_value", new)];
        Value::Object(
            fields.into_iter().map(|(key, text)| (key.to_owned(), Value::from(text.as_str()))).collect(),
        )
    };
    postgres.pending_restart.iter().map(|(name, values)| (name.clone(), change(values))).collect()
}

fn schedule(request: &Request, sql: Option<&SqlFacts>) -> Option<Map<String, Value>> {
    let Ask::Restart { at: Some(at), filter } = &request.ask else { return None };
    let mut fields = Map::new();
    fields.insert("schedule".to_owned(), Value::from(at.to_string()));
    if let Some(role) = &filter.role {
        fields.insert("role".to_owned(), Value::from(role.as_str()));
    }
    if let Some(version) = filter.below_version {
        let text = format!("{}.{}", version / 10_000, version % 10_000);
        fields.insert("postgres_version".to_owned(), Value::from(text));
    }
    if let Some(millis) = filter.timeout_ms {
        fields.insert("timeout".to_owned(), Value::from(millis / 1000));
    }
    if filter.pending_only {
        fields.insert("restart_pending".to_owned(), Value::from(true));
    }
    if let Some(sql) = sql {
        fields.insert("postmaster_start_time".to_owned(), Value::from(sql.postmaster_start_time.as_str()));
    }
    Some(fields)
}

/// Writes the status when it changed or etcd does not show it, at most once per `loop_wait`. Another timeline or other
/// slot names are written at once.
pub(super) fn status(tick: &mut Tick<'_>, term: Term, sql: &SqlFacts) {
    let (slots, retain) = (slots::published(tick, sql), slots::retained(tick));
    let status = ClusterStatus {
        optime: known(sql.lsn()),
        timeline: sql.timeline,
        slots: Some(slots),
        retain_slots: Some(retain).filter(|retain| !retain.is_empty()),
    };
    if status.optime.is_some() && is_status_due(tick, &status) {
        write_status(tick, term, status);
    }
}

/// Writes the position of a clean stop, for a remote primary that is to have all WAL of mine.
pub(super) fn stopped(tick: &mut Tick<'_>, term: Term, control: &ControlFile) {
    if control.state != ControlState::ShutDown || control.is_unfinished_copy() {
        return;
    }
    let before = demote::last_status(tick);
    let status = ClusterStatus { optime: Some(control.checkpoint), ..before };
    if tick.memory.status.as_ref().is_none_or(|(old, _)| *old != status) {
        write_status(tick, term, status);
    }
}

fn is_status_due(tick: &Tick<'_>, status: &ClusterStatus) -> bool {
    let Some((old, at)) = &tick.memory.status else { return true };
    if (&old.retain_slots, old.timeline) != (&status.retain_slots, status.timeline) {
        return true;
    }
    let shown = tick.cluster().and_then(|cluster| cluster.status.as_ref());
    let lost = shown != Some(old);
    (lost || old != status) && *at + tick.seen.settings.loop_wait <= tick.now
}

/// Writes a position that is behind the former leader's. My new timeline has not begun yet.
pub(super) fn loss(tick: &mut Tick<'_>, term: Term, lsn: Lsn) {
    let before = tick.cluster().and_then(|cluster| cluster.status.clone()).unwrap_or_default();
    let status = ClusterStatus { optime: Some(lsn), timeline: None, ..before };
    let due =
        tick.memory.status.as_ref().is_none_or(|(old, at)| *old != status || *at + MISSING_AFTER <= tick.now);
    if due {
        write_status(tick, term, status);
    }
}

fn write_status(tick: &mut Tick<'_>, term: Term, status: ClusterStatus) {
    tick.memory.status = Some((status.clone(), tick.now));
    tick.act(Action::PublishStatus { term, status });
}
