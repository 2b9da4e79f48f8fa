//! Requests of operators to this member: restart, reinitialize. Switchovers are a key in etcd (see `handover`).

use std::time::Duration;

use super::leadership::Leadership;
use super::memory::Restart;
use super::turn::Turn;
use super::{stop, sync};
use crate::model::{
    Action, Ask, DataDirectory, Failure, Job, JobKind, Moment, Outcome, Process, Reason, ReinitializeRefusal,
    Reply, Request, RequestId, RestartFilter, RestartRefusal, SqlFacts, WaitingOn,
};

/// A primary's clean stop in a restart may take this long before it is cut short.
const PRIMARY_STOP_WITHIN: Duration = Duration::from_secs(60);

/// A restart that has not begun by then is refused. The leader lets a standby go within two `loop_wait` before.
const BEGIN_WITHIN: Duration = Duration::from_secs(30);

/// Takes in what arrived since the last tick, and what has become due.
pub(super) fn accept(turn: &mut Turn<'_>, leadership: &Leadership) {
    let seen = turn.seen;
    for request in &seen.requests {
        if let Some(reply) = reply(turn, leadership, request) {
            turn.act(Action::Answer { id: request.id, reply });
        }
    }
    run_schedule(turn);
    watch_restart(turn);
}

/// `None`: it began, and is answered when it ends.
fn reply(turn: &mut Turn<'_>, leadership: &Leadership, request: &Request) -> Option<Reply> {
    match &request.ask {
        Ask::Restart { at: None, filter } => match may_restart(turn, filter) {
            None => {
                begin(turn, Some(request.id), filter.clone());
                None
            }
            Some(why) => Some(Reply::Refused(why.to_string())),
        },
        Ask::Restart { at: Some(_), .. } => Some(schedule(turn, request)),
        Ask::CancelRestart => Some(cancel(turn)),
        Ask::Reinitialize { force, from_leader } => {
            Some(reinitialize(turn, leadership, *force, *from_leader))
        }
    }
}

fn schedule(turn: &mut Turn<'_>, request: &Request) -> Reply {
    if turn.memory.scheduled_restart.is_some() {
        return Reply::Conflict("another restart is already scheduled".to_owned());
    }
    turn.memory.scheduled_restart = Some(request.clone());
    Reply::Accepted("Restart scheduled".to_owned())
}

fn cancel(turn: &mut Turn<'_>) -> Reply {
    match turn.memory.scheduled_restart.take() {
        Some(_) => Reply::Done("scheduled restart deleted".to_owned()),
        None => Reply::NotFound("no restart is scheduled".to_owned()),
    }
}

fn reinitialize(turn: &mut Turn<'_>, leadership: &Leadership, force: bool, from_leader: bool) -> Reply {
    if let Some(why) = may_reinitialize(turn, leadership, force) {
        return Reply::Refused(why.to_string());
    }
    if turn.seen.job.is_some() {
        turn.act(Action::CancelJob);
    }
    turn.memory.reinitialize = Some(from_leader);
    turn.memory.failures.retry_at.clear();
    Reply::Done("reinitialize started".to_owned())
}

/// Why what lies here must not be thrown away.
fn may_reinitialize(turn: &Turn<'_>, leadership: &Leadership, force: bool) -> Option<ReinitializeRefusal> {
    if turn.seen.postgres.data == DataDirectory::Unknown {
        return Some(ReinitializeRefusal::NotLookedYet);
    }
    let cluster = turn.cluster().and_then(|cluster| cluster.system_id());
    let mine = turn.seen.postgres.control().map(|control| control.system_id);
    if mine.zip(cluster).is_some_and(|(mine, cluster)| mine != cluster) {
        return Some(ReinitializeRefusal::ForeignData);
    }
    let running = turn.seen.job.as_ref().filter(|_| !force);
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
fn may_restart(turn: &Turn<'_>, filter: &RestartFilter) -> Option<RestartRefusal> {
    if let Some(running) = &turn.seen.job {
        return Some(RestartRefusal::Busy(running.job.kind()));
    }
    if turn.memory.restart.is_some() || turn.memory.hand_over.is_some() {
        return Some(RestartRefusal::AlreadyAsked);
    }
    let Some(sql) = turn.seen.postgres.answering() else {
        return Some(match turn.seen.postgres.process {
            Process::Down { .. } => RestartRefusal::NotRunning,
            Process::Up { .. } => RestartRefusal::Silent,
        });
    };
    mismatch(turn, filter, sql)
}

fn mismatch(turn: &Turn<'_>, filter: &RestartFilter, sql: &SqlFacts) -> Option<RestartRefusal> {
    let role = if sql.is_primary() { "primary" } else { "replica" };
    if filter.role.as_deref().is_some_and(|wanted| wanted != role) {
        return Some(RestartRefusal::OtherRole);
    }
    if filter.below_version.is_some_and(|limit| limit <= sql.server_version) {
        return Some(RestartRefusal::OtherVersion);
    }
    let pending = !turn.seen.postgres.pending_restart.is_empty();
    (filter.pending_only && !pending).then_some(RestartRefusal::NotPending)
}

fn begin(turn: &mut Turn<'_>, id: Option<RequestId>, filter: RestartFilter) {
    let within = filter.timeout_ms.map_or(turn.seen.settings.primary_start_timeout, Duration::from_millis);
    let give_up_at = turn.now + within.max(Duration::from_secs(1));
    turn.memory.restart = Some(Restart { id, since: turn.now, give_up_at, stopped: false, filter });
}

/// A scheduled restart that is due begins; one that was missed by much is forgotten.
fn run_schedule(turn: &mut Turn<'_>) {
    let Some(Request { ask: Ask::Restart { at: Some(at), filter }, .. }) =
        turn.memory.scheduled_restart.clone()
    else {
        return;
    };
    let left_ms = at.0 - turn.seen.wall.0;
    let distance = Duration::from_millis(left_ms.unsigned_abs());
    if 0 < left_ms {
        turn.wake_in(distance, WaitingOn::Schedule);
        return;
    }
    if turn.seen.settings.pause {
        return;
    }
    turn.memory.scheduled_restart = None;
    let in_time = distance <= turn.seen.settings.loop_wait.mul_f64(1.5);
    match may_restart(turn, &filter) {
        None if in_time => begin(turn, None, filter),
        None => turn.memory.failures.last = Some(Failure::ScheduledRestartMissed),
        Some(why) => turn.memory.failures.last = Some(Failure::ScheduledRestart(why)),
    }
}

/// A restart that was taken and does not begin is answered with what is in its way.
pub(super) fn answer_unbegun(turn: &mut Turn<'_>, because: &Reason) {
    let Some(restart) = turn.memory.restart.clone().filter(|restart| !restart.stopped) else { return };
    let begins = |action: &Action| matches!(action, Action::Start(Job::Checkpoint | Job::Stop { .. }));
    if turn.seen.job.is_some() || turn.actions.iter().any(begins) {
        return;
    }
    let begin_by = (restart.since + BEGIN_WITHIN).max(restart.since + turn.seen.settings.loop_wait * 3);
    if turn.now < begin_by {
        turn.wake_at(begin_by, WaitingOn::Postgres);
        return;
    }
    turn.memory.restart = None;
    if let Some(id) = restart.id {
        turn.act(Action::Answer { id, reply: Reply::Refused(format!("not restarted: {because}")) });
    }
}

/// Takes the next step of a restart: checkpoint (primary), clean stop. The table starts what is down.
pub(super) fn go_on(turn: &mut Turn<'_>) {
    let restart = turn.memory.restart.clone();
    let Some(restart) = restart.filter(|restart| !restart.stopped) else { return };
    let primary = turn.seen.postgres.answering().is_some_and(SqlFacts::is_primary);
    if !primary && sync::leave(turn) {
        return;
    }
    if primary && !turn.just_finished(JobKind::Checkpoint) {
        turn.act(Action::Start(Job::Checkpoint));
        return;
    }
    turn.memory.restart = Some(Restart { stopped: true, ..restart });
    if primary { stop::cleanly_within(turn, PRIMARY_STOP_WITHIN) } else { stop::cleanly(turn) }
}

/// Answers a restart when its new postmaster serves in its role again, or when it takes too long.
fn watch_restart(turn: &mut Turn<'_>) {
    let Some(restart) = turn.memory.restart.clone() else { return };
    let Some(reply) = outcome(turn, &restart) else {
        turn.wake_at(restart.give_up_at, WaitingOn::Postgres);
        return;
    };
    turn.memory.restart = None;
    if let Some(id) = restart.id {
        turn.act(Action::Answer { id, reply });
    }
}

/// What came of a restart; `None` while it goes on.
fn outcome(turn: &Turn<'_>, restart: &Restart) -> Option<Reply> {
    if let Some(why) = start_failure(turn).filter(|_| restart.stopped) {
        return Some(Reply::Failed(format!("PostgreSQL does not start, it is tried again: {why}")));
    }
    if restart.stopped && serves_since(turn, restart.since) {
        return Some(Reply::Done("restarted successfully".to_owned()));
    }
    let late = restart.give_up_at <= turn.now;
    late.then(|| Reply::Refused("restart initiated but PostgreSQL is still starting".to_owned()))
}

fn start_failure<'a>(turn: &Turn<'a>) -> Option<&'a str> {
    turn.seen.finished.iter().find_map(|finished| match (&finished.job, &finished.outcome) {
        (JobKind::StartStandby, Outcome::Failed(why)) => Some(why.as_str()),
        (_, _) => None,
    })
}

/// A postmaster that is younger than `since` serves in the role that it should have.
fn serves_since(turn: &Turn<'_>, since: Moment) -> bool {
    let younger = matches!(turn.seen.postgres.process, Process::Up { since: at, .. } if since < at);
    let leads = turn.seen.lease.leading_at(turn.now).is_some();
    let serves = turn.seen.postgres.answering().is_some_and(|sql| sql.is_primary() == leads);
    younger && serves && turn.seen.job.is_none()
}
