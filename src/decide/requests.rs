//! Requests of operators to this member: restart, reinitialize. Switchovers are a key in etcd (see `handover`).

use std::time::Duration;

use super::leadership::Leadership;
use super::memory::Restart;
use super::turn::Turn;
use super::{stop, sync};
use crate::model::{
    Action, Ask, DataDirectory, Job, JobKind, Outcome, Process, Reason, Reply, Request, RequestId,
    RestartFilter, SqlFacts, WaitingOn,
};

/// A primary's clean stop in a restart may take this long before it is cut short.
const PRIMARY_STOP_WITHIN: Duration = Duration::from_secs(60);

/// A restart that has not begun by then is refused. The leader lets a standby go within two `loop_wait` before.
const BEGIN_WITHIN: Duration = Duration::from_secs(30);

/// Takes in what arrived since the last tick, and what has become due.
pub(super) fn accept(turn: &mut Turn<'_>, leadership: &Leadership) {
    let seen = turn.seen;
    for Request { id, ask } in &seen.requests {
        let reply = match ask {
            Ask::Restart { at: None, filter } => match may_restart(turn, filter) {
                None => {
                    begin(turn, Some(*id), filter.clone());
                    None
                }
                Some(why) => Some(Reply::Refused(why)),
            },
            Ask::Restart { at: Some(_), .. } if turn.memory.scheduled_restart.is_some() => {
                Some(Reply::Conflict("another restart is already scheduled".to_owned()))
            }
            Ask::Restart { at: Some(_), .. } => {
                turn.memory.scheduled_restart = Some(Request { id: *id, ask: ask.clone() });
                Some(Reply::Accepted("Restart scheduled".to_owned()))
            }
            Ask::CancelRestart => Some(match turn.memory.scheduled_restart.take() {
                Some(_) => Reply::Done("scheduled restart deleted".to_owned()),
                None => Reply::NotFound("no restart is scheduled".to_owned()),
            }),
            Ask::Reinitialize { force, from_leader } => {
                Some(reinitialize(turn, leadership, *force, *from_leader))
            }
        };
        if let Some(reply) = reply {
            turn.act(Action::Answer { id: *id, reply });
        }
    }
    run_schedule(turn);
    watch_restart(turn);
}

fn reinitialize(turn: &mut Turn<'_>, leadership: &Leadership, force: bool, from_leader: bool) -> Reply {
    let cluster = turn.cluster().and_then(|cluster| cluster.system_id());
    let mine = turn.seen.postgres.control().map(|control| control.system_id);
    if turn.seen.postgres.data == DataDirectory::Unknown {
        return Reply::Refused("the data directory has not been looked at yet".to_owned());
    }
    if cluster.is_some() && mine.is_some() && mine != cluster {
        return Reply::Refused("the data directory belongs to another cluster".to_owned());
    }
    match (leadership, &turn.seen.job) {
        (Leadership::Other(_), Some(running)) if !force => {
            Reply::Refused(format!("{} already in progress", running.job.kind()))
        }
        (Leadership::Other(_), running) => {
            if running.is_some() {
                turn.act(Action::CancelJob);
            }
            turn.memory.reinitialize = Some(from_leader);
            turn.memory.failures.retry_at.clear();
            Reply::Done("reinitialize started".to_owned())
        }
        (Leadership::Nobody | Leadership::FormerSelf(_) | Leadership::Unknown, _) => {
            Reply::Refused("Cluster has no leader, can not reinitialize".to_owned())
        }
        (Leadership::Mine(_) | Leadership::Expiring(_) | Leadership::Unconfirmed, _) => {
            Reply::Refused("I am the leader, can not reinitialize".to_owned())
        }
    }
}

/// Why a restart must not begin now.
fn may_restart(turn: &Turn<'_>, filter: &RestartFilter) -> Option<String> {
    if let Some(running) = &turn.seen.job {
        return Some(format!("{} already in progress", running.job.kind()));
    }
    if turn.memory.restart.is_some() || turn.memory.hand_over.is_some() {
        return Some("restart or switchover already in progress".to_owned());
    }
    let Some(sql) = turn.seen.postgres.answering() else {
        return Some(match turn.seen.postgres.process {
            Process::Down { .. } => "PostgreSQL is not running".to_owned(),
            Process::Up { .. } => "PostgreSQL runs and does not answer: it recovers, or hangs".to_owned(),
        });
    };
    mismatch(turn, filter, sql)
}

fn mismatch(turn: &Turn<'_>, filter: &RestartFilter, sql: &SqlFacts) -> Option<String> {
    let role = if sql.is_primary() { "primary" } else { "replica" };
    if filter.role.as_deref().is_some_and(|wanted| wanted != role) {
        return Some("host role mismatch".to_owned());
    }
    if filter.below_version.is_some_and(|limit| limit <= sql.server_version) {
        return Some("postgres version mismatch".to_owned());
    }
    let pending = !turn.seen.postgres.pending_restart.is_empty();
    (filter.pending_only && !pending).then(|| "pending restart flag is not set".to_owned())
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
    if 0 < left_ms {
        turn.wake_in(Duration::from_millis(left_ms.unsigned_abs()), WaitingOn::Schedule);
        return;
    }
    if turn.seen.settings.pause {
        return;
    }
    turn.memory.scheduled_restart = None;
    let in_time = Duration::from_millis(left_ms.unsigned_abs()) <= turn.seen.settings.loop_wait.mul_f64(1.5);
    match may_restart(turn, &filter) {
        None if in_time => begin(turn, None, filter),
        None => turn.memory.failures.last = Some("scheduled restart: its time had passed".to_owned()),
        Some(why) => turn.memory.failures.last = Some(format!("scheduled restart: {why}")),
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
    let Some(restart) = turn.memory.restart.clone() else { return };
    let primary = turn.seen.postgres.answering().is_some_and(SqlFacts::is_primary);
    if restart.stopped {
        return;
    }
    if !primary && sync::leave(turn) {
        return;
    }
    if primary && !turn.just_finished(JobKind::Checkpoint) {
        turn.act(Action::Start(Job::Checkpoint));
        return;
    }
    turn.memory.restart = Some(Restart { stopped: true, ..restart });
    match primary {
        true => stop::cleanly_within(turn, PRIMARY_STOP_WITHIN),
        false => stop::cleanly(turn),
    }
}

/// Answers a restart when its new postmaster serves in its role again, or when it takes too long.
fn watch_restart(turn: &mut Turn<'_>) {
    let Some(restart) = turn.memory.restart.clone() else { return };
    let younger = match &turn.seen.postgres.process {
        Process::Up { since, .. } => restart.since < *since,
        Process::Down { .. } => false,
    };
    let leads = turn.seen.lease.leading_at(turn.now).is_some();
    let serves = turn.seen.postgres.answering().is_some_and(|sql| sql.is_primary() == leads);
    let failed = turn.seen.finished.iter().find_map(|finished| match (&finished.job, &finished.outcome) {
        (JobKind::StartStandby, Outcome::Failed(why)) => Some(why.clone()),
        (_, _) => None,
    });
    let reply = if let (true, Some(why)) = (restart.stopped, failed) {
        Reply::Failed(format!("PostgreSQL does not start, it is tried again: {why}"))
    } else if restart.stopped && younger && serves && turn.seen.job.is_none() {
        Reply::Done("restarted successfully".to_owned())
    } else if restart.give_up_at <= turn.now {
        Reply::Refused("restart initiated but PostgreSQL is still starting".to_owned())
    } else {
        turn.wake_at(restart.give_up_at, WaitingOn::Postgres);
        return;
    };
    turn.memory.restart = None;
    if let Some(id) = restart.id {
        turn.act(Action::Answer { id, reply });
    }
}
