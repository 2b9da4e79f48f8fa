//! Requests of operators to this member: restart, reinitialize. A switchover is a key in etcd (see `handover`).

use std::time::Duration;

use super::leadership::Leadership;
use super::memory::Restart;
use super::tick::Tick;
use super::{eligibility, failsafe, stop, sync};
use crate::model::{
    Action, Ask, DataDirectory, Failure, Job, JobKind, Moment, Outcome, Process, Reason, ReinitializeRefusal,
    Reply, Request, RequestId, RestartFilter, RestartRefusal, Role, SqlFacts, WaitingOn,
};

/// How long the clean stop of a primary in a restart may take before it becomes an immediate one.
const PRIMARY_STOP_WITHIN: Duration = Duration::from_secs(60);

/// A restart that has not begun by then is refused. The leader releases a standby within two `loop_wait` before.
const BEGIN_WITHIN: Duration = Duration::from_secs(30);

/// Handles requests that arrived since the last tick, and schedules that are due.
pub(super) fn accept(tick: &mut Tick<'_>, leadership: &Leadership) {
    let seen = tick.seen;
    for request in &seen.requests {
        if let Some(reply) = reply(tick, leadership, request) {
            tick.act(Action::Answer { id: request.id, reply });
        }
    }
    run_schedule(tick);
    watch_restart(tick);
}

/// `None`: it began, and is answered when it ends.
fn reply(tick: &mut Tick<'_>, leadership: &Leadership, request: &Request) -> Option<Reply> {
    match &request.ask {
        Ask::Restart { at: None, filter } => match may_restart(tick, filter) {
            None => {
                begin(tick, Some(request.id), filter.clone());
                None
            }
            Some(why) => Some(Reply::RestartRefused(why)),
        },
        Ask::Restart { at: Some(_), .. } => Some(schedule(tick, request)),
        Ask::CancelRestart => Some(cancel(tick)),
        Ask::JudgeCandidates { answers } => Some(eligibility::judge(tick, answers)),
        Ask::Failsafe(question) => Some(failsafe::reply(tick, leadership, question)),
        Ask::Reinitialize { force, from_leader } => {
            Some(reinitialize(tick, leadership, *force, *from_leader))
        }
    }
}

fn schedule(tick: &mut Tick<'_>, request: &Request) -> Reply {
    if tick.memory.scheduled_restart.is_some() {
        return Reply::AlreadyScheduled;
    }
    tick.memory.scheduled_restart = Some(request.clone());
    tick.memory.scheduled_for = started_at(tick).map(str::to_owned);
    Reply::RestartScheduled
}

fn cancel(tick: &mut Tick<'_>) -> Reply {
    match tick.memory.scheduled_restart.take() {
        Some(_) => Reply::ScheduleDeleted,
        None => Reply::NotScheduled,
    }
}

fn reinitialize(tick: &mut Tick<'_>, leadership: &Leadership, force: bool, from_leader: bool) -> Reply {
    if let Some(why) = may_reinitialize(tick, leadership, force) {
        return Reply::ReinitializeRefused(why);
    }
    if tick.seen.job.is_some() {
        tick.act(Action::CancelJob);
    }
    tick.memory.reinitialize = Some(from_leader);
    tick.memory.failures.retry_at.clear();
    Reply::Reinitializing
}

/// Why the local data must not be removed.
fn may_reinitialize(tick: &Tick<'_>, leadership: &Leadership, force: bool) -> Option<ReinitializeRefusal> {
    if tick.seen.postgres.data == DataDirectory::Unknown {
        return Some(ReinitializeRefusal::NotLookedYet);
    }
    let cluster = tick.cluster().and_then(|cluster| cluster.system_id());
    let mine = tick.seen.postgres.control().map(|control| control.system_id);
    if mine.zip(cluster).is_some_and(|(mine, cluster)| mine != cluster) {
        return Some(ReinitializeRefusal::ForeignData);
    }
    let running = tick.seen.job.as_ref().filter(|_| !force);
    match leadership {
        Leadership::Other(_) => running.map(|running| ReinitializeRefusal::Busy(running.job.kind())),
        Leadership::Nobody | Leadership::FormerSelf(_) | Leadership::Unknown => {
            Some(ReinitializeRefusal::NoLeader)
        }
        Leadership::Mine(_) | Leadership::Expiring(_) | Leadership::Unconfirmed => {
            Some(ReinitializeRefusal::Leads)
        }
    }
}

/// Why a restart must not begin now.
fn may_restart(tick: &Tick<'_>, filter: &RestartFilter) -> Option<RestartRefusal> {
    if let Some(running) = &tick.seen.job {
        return Some(RestartRefusal::Busy(running.job.kind()));
    }
    if tick.memory.restart.is_some() || tick.memory.hand_over.is_some() {
        return Some(RestartRefusal::AlreadyAsked);
    }
    let Some(sql) = tick.seen.postgres.answering() else {
        return Some(match tick.seen.postgres.process {
            Process::Down { .. } => RestartRefusal::NotRunning,
            Process::Up { .. } => RestartRefusal::Silent,
        });
    };
    mismatch(tick, filter, sql)
}

fn mismatch(tick: &Tick<'_>, filter: &RestartFilter, sql: &SqlFacts) -> Option<RestartRefusal> {
    let leads = tick.seen.lease.leading_at(tick.now).is_some();
    let role = match (sql.is_primary(), leads && tick.in_standby_cluster()) {
        (true, _) => Role::Primary,
        (false, true) => Role::StandbyLeader,
        (false, false) => Role::Replica,
    };
    if filter.role.as_deref().is_some_and(|wanted| wanted != role.as_str()) {
        return Some(RestartRefusal::OtherRole);
    }
    if filter.below_version.is_some_and(|limit| limit <= sql.server_version) {
        return Some(RestartRefusal::OtherVersion);
    }
    let pending = !tick.seen.postgres.pending_restart.is_empty();
    (filter.pending_only && !pending).then_some(RestartRefusal::NotPending)
}

fn begin(tick: &mut Tick<'_>, id: Option<RequestId>, filter: RestartFilter) {
    let within = filter.timeout_ms.map_or(tick.seen.settings.primary_start_timeout, Duration::from_millis);
    let give_up_at = tick.now + within.max(Duration::from_secs(1));
    tick.memory.restart =
        Some(Restart { id, since: tick.now, give_up_at, stopped: false, filter, for_slots: false });
}

/// Restarts this standby for the copies of slots that wait for it; whoever asks for another restart meanwhile is
/// answered by the rules of that.
pub(super) fn restart(tick: &mut Tick<'_>) {
    if may_restart(tick, &RestartFilter::default()).is_none() {
        begin(tick, None, RestartFilter::default());
        tick.memory.restart.iter_mut().for_each(|restart| restart.for_slots = true);
    }
}

/// When the PostgreSQL that answers was started, as it says.
fn started_at<'a>(tick: &Tick<'a>) -> Option<&'a str> {
    tick.seen.postgres.answering().map(|sql| sql.postmaster_start_time.as_str())
}

/// Begins a scheduled restart that is due; one that is long overdue is dropped, and so is one whose PostgreSQL was
/// restarted since.
fn run_schedule(tick: &mut Tick<'_>) {
    let is_another = |scheduled: &String| started_at(tick).is_some_and(|now| now != scheduled);
    if tick.memory.scheduled_for.as_ref().is_some_and(is_another) {
        (tick.memory.scheduled_restart, tick.memory.scheduled_for) = (None, None);
    }
    let Some(Request { ask: Ask::Restart { at: Some(at), filter }, .. }) =
        tick.memory.scheduled_restart.clone()
    else {
        return;
    };
    let left_ms = at.0 - tick.seen.wall.0;
    let distance = Duration::from_millis(left_ms.unsigned_abs());
    if 0 < left_ms {
        tick.wake_in(distance, WaitingOn::Schedule);
        return;
    }
    if tick.seen.settings.pause {
        return;
    }
    tick.memory.scheduled_restart = None;
    let in_time = distance <= tick.seen.settings.loop_wait.mul_f64(1.5);
    match may_restart(tick, &filter) {
        None if in_time => begin(tick, None, filter),
        None => tick.memory.failures.last = Some(Failure::ScheduledRestartMissed),
        Some(why) => tick.memory.failures.last = Some(Failure::ScheduledRestart(why)),
    }
}

/// Answers an accepted restart that does not begin, with the reason.
pub(super) fn answer_unbegun(tick: &mut Tick<'_>, because: &Reason) {
    let Some(restart) = tick.memory.restart.clone().filter(|restart| !restart.stopped) else { return };
    let begins = |action: &Action| matches!(action, Action::Start(Job::Checkpoint | Job::Stop { .. }));
    if tick.seen.job.is_some() || tick.actions.iter().any(begins) {
        return;
    }
    let begin_by = (restart.since + BEGIN_WITHIN).max(restart.since + tick.seen.settings.loop_wait * 3);
    if tick.now < begin_by {
        tick.wake_at(begin_by, WaitingOn::Postgres);
        return;
    }
    tick.memory.restart = None;
    if let Some(id) = restart.id {
        tick.act(Action::Answer { id, reply: Reply::RestartNotBegun(Box::new(because.clone())) });
    }
}

/// Takes the next step of a restart: checkpoint (primary), clean stop. The table starts PostgreSQL again.
pub(super) fn advance(tick: &mut Tick<'_>) {
    let restart = tick.memory.restart.clone();
    let Some(restart) = restart.filter(|restart| !restart.stopped) else { return };
    let primary = tick.seen.postgres.answering().is_some_and(SqlFacts::is_primary);
    if !primary && sync::leave(tick) {
        return;
    }
    if primary && !tick.just_finished(JobKind::Checkpoint) {
        tick.act(Action::Start(Job::Checkpoint));
        return;
    }
    tick.memory.restart = Some(Restart { stopped: true, ..restart });
    if primary { stop::cleanly_within(tick, PRIMARY_STOP_WITHIN) } else { stop::cleanly(tick) }
}

/// Answers a restart when its new postmaster serves in its role again, or when that takes too long.
fn watch_restart(tick: &mut Tick<'_>) {
    let Some(restart) = tick.memory.restart.clone() else { return };
    let Some(reply) = outcome(tick, &restart) else {
        tick.wake_at(restart.give_up_at, WaitingOn::Postgres);
        return;
    };
    tick.memory.restart = None;
    if let Some(id) = restart.id {
        tick.act(Action::Answer { id, reply });
    }
}

/// The result of a restart; `None` while it continues.
fn outcome(tick: &Tick<'_>, restart: &Restart) -> Option<Reply> {
    if let Some(why) = start_failure(tick).filter(|_| restart.stopped) {
        return Some(Reply::StartFails { why: why.to_owned() });
    }
    if restart.stopped && serves_since(tick, restart.since) {
        return Some(Reply::Restarted);
    }
    let late = restart.give_up_at <= tick.now;
    late.then_some(Reply::RestartUnfinished)
}

fn start_failure<'a>(tick: &Tick<'a>) -> Option<&'a str> {
    tick.seen.finished.iter().find_map(|finished| match (&finished.job, &finished.outcome) {
        (JobKind::StartStandby | JobKind::StartPrimary, Outcome::Failed(why)) => Some(why.as_str()),
        (_, _) => None,
    })
}

/// Whether a postmaster younger than `since` serves in the right role.
fn serves_since(tick: &Tick<'_>, since: Moment) -> bool {
    let younger = matches!(tick.seen.postgres.process, Process::Up { since: at, .. } if since < at);
    let leads = tick.seen.lease.leading_at(tick.now).is_some() && !tick.in_standby_cluster();
    let serves = tick.seen.postgres.answering().is_some_and(|sql| sql.is_primary() == leads);
    younger && serves && tick.seen.job.is_none()
}
