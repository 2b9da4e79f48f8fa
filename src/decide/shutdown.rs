//! The end of the supervisor: hand over if this member leads, stop Postgres, exit. When only the pod is to end: hand
//! over if this member leads.

use std::time::Duration;

use super::leadership::Leadership;
use super::memory::HandOverCause;
use super::server::Server;
use super::tick::Tick;
use super::{demote, handover, lead, stop, sync, unfenced};
use crate::model::{Action, ExitBecause, JobKind, PodEnd, Process, Reason, SqlFacts, Term, WaitingOn};

/// How long the end waits for etcd once PostgreSQL is down. After that the lease is revoked or expires.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// Whether PostgreSQL has been down for so long that the remaining writes to etcd are left out.
pub(super) fn is_overdue(tick: &Tick<'_>) -> bool {
    waits_for_etcd(tick) && tick.memory.ending.leave_by.is_some_and(|leave_by| leave_by <= tick.now)
}

/// Records when the wait for etcd began, and schedules a tick at its end.
pub(super) fn note_end(tick: &mut Tick<'_>) {
    if !waits_for_etcd(tick) {
        tick.memory.ending.leave_by = None;
        return;
    }
    let leave_by = *tick.memory.ending.leave_by.get_or_insert(tick.now + LEAVE_WITHIN);
    tick.wake_at(leave_by, WaitingOn::Lease);
}

fn waits_for_etcd(tick: &Tick<'_>) -> bool {
    let down = matches!(tick.seen.postgres.process, Process::Down { .. });
    let proving = tick.memory.hand_over.as_ref().is_some_and(|hand_over| hand_over.waits_for_candidate());
    tick.ends() && down && !proving
}

/// Takes the next step towards the end.
pub(super) fn advance(tick: &mut Tick<'_>, leadership: &Leadership, server: &Server<'_>) -> Reason {
    if tick.seen.settings.pause {
        return unfenced::leave(tick, leadership).unwrap_or_else(|| exit(tick));
    }
    let term = leadership.mine();
    match server {
        Server::Primary(sql) => match term {
            Some(term) => hand_over(tick, term, sql),
            None => stop_postgres(tick),
        },
        Server::Foreign(_) if is_up(tick) => stop_postgres(tick),
        Server::Down(control) if tick.memory.hand_over.is_some() => match term {
            Some(term) => handover::advance(tick, term, Some(control)),
            None => exit(tick),
        },
        Server::Down(_) | Server::Empty | Server::HalfMade | Server::Inaccessible(_) | Server::Foreign(_) => {
            leave(tick, term)
        }
        Server::Standby(_) if sync::leave(tick) => because(tick),
        Server::Standby(_) | Server::Silent => stop_postgres(tick),
        Server::Unknown => {
            tick.wake_in(Duration::from_millis(100), WaitingOn::Postgres);
            because(tick)
        }
    }
}

/// No Postgres runs here: the leader key is given away, if it is mine, and the supervisor exits.
fn leave(tick: &mut Tick<'_>, term: Option<Term>) -> Reason {
    match term.filter(|_| !tick.just_finished(JobKind::ReleaseLeadership)) {
        Some(term) => release(tick, term),
        None => exit(tick),
    }
}

/// My pod is being deleted or is gone, and I lead. The same steps as for a shutdown, except that the supervisor stays.
/// It follows the next leader, and does not lead again.
pub(super) fn cease_to_lead(tick: &mut Tick<'_>, term: Term, server: &Server<'_>, end: PodEnd) -> Reason {
    match server {
        Server::Primary(sql) => hand_over(tick, term, sql),
        Server::Down(control) if tick.memory.hand_over.is_some() => {
            handover::advance(tick, term, Some(control))
        }
        Server::Silent => stop_postgres(tick),
        Server::Unknown => {
            tick.wake_in(Duration::from_millis(100), WaitingOn::Postgres);
            Reason::PodEnds(end)
        }
        Server::Standby(_)
        | Server::Down(_)
        | Server::Empty
        | Server::HalfMade
        | Server::Inaccessible(_)
        | Server::Foreign(_) => demote::release(tick, term, Reason::PodEnds(end)),
    }
}

/// One attempt at a hand-over; if it fails PostgreSQL stops all the same.
fn hand_over(tick: &mut Tick<'_>, term: Term, sql: &SqlFacts) -> Reason {
    if tick.memory.hand_over.is_none() && !tick.memory.ending.failed_hand_over {
        handover::begin(tick, HandOverCause::Shutdown);
    }
    match tick.memory.hand_over.is_some() {
        true => {
            let told = lead::tell(tick, term, sql);
            handover::while_serving(tick, sql, told)
        }
        false => stop_postgres(tick),
    }
}

fn is_up(tick: &Tick<'_>) -> bool {
    matches!(tick.seen.postgres.process, Process::Up { .. })
}

fn stop_postgres(tick: &mut Tick<'_>) -> Reason {
    stop::cleanly(tick);
    because(tick)
}

pub(super) fn exit(tick: &mut Tick<'_>) -> Reason {
    tick.act(Action::Exit(ExitBecause::Asked));
    because(tick)
}

fn release(tick: &mut Tick<'_>, term: Term) -> Reason {
    let because = because(tick);
    demote::release(tick, term, because)
}

fn because(tick: &Tick<'_>) -> Reason {
    match tick.pod_end().filter(|_| !tick.seen.shutting_down) {
        Some(end) => Reason::PodEnds(end),
        None => Reason::ShuttingDown,
    }
}
