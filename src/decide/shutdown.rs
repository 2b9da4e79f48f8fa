//! The supervisor was asked to end: hand over if it leads, stop Postgres, go. Or its pod was: hand over if it leads.

use std::time::Duration;

use super::leadership::Leadership;
use super::memory::HandOverCause;
use super::server::Server;
use super::turn::Turn;
use super::{demote, handover, lead, stop, sync, unfenced};
use crate::model::{Action, ExitBecause, JobKind, PodEnd, Process, Reason, SqlFacts, Term, WaitingOn};

/// How long the end waits for etcd once PostgreSQL is down: the lease is revoked then, or runs out.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// True when PostgreSQL has been down for so long that whatever is still to be done in etcd will not be.
pub(super) fn is_overdue(turn: &Turn<'_>) -> bool {
    waits_for_etcd(turn) && turn.memory.ending.leave_by.is_some_and(|leave_by| leave_by <= turn.now)
}

/// Takes note of when the wait for etcd began, and looks again when it ends.
pub(super) fn note_end(turn: &mut Turn<'_>) {
    if !waits_for_etcd(turn) {
        turn.memory.ending.leave_by = None;
        return;
    }
    let leave_by = *turn.memory.ending.leave_by.get_or_insert(turn.now + LEAVE_WITHIN);
    turn.wake_at(leave_by, WaitingOn::Lease);
}

fn waits_for_etcd(turn: &Turn<'_>) -> bool {
    let down = matches!(turn.seen.postgres.process, Process::Down { .. });
    let proving = turn.memory.hand_over.as_ref().is_some_and(|hand_over| hand_over.waits_for_candidate());
    turn.ends() && down && !proving
}

/// Takes the next step towards the end.
pub(super) fn go_on(turn: &mut Turn<'_>, leadership: &Leadership, server: &Server<'_>) -> Reason {
    if turn.seen.settings.pause {
        return unfenced::leave(turn, leadership).unwrap_or_else(|| exit(turn));
    }
    let term = leadership.mine();
    match server {
        Server::Primary(sql) => match term {
            Some(term) => hand_over(turn, term, sql),
            None => stop_postgres(turn),
        },
        Server::Foreign(_) if is_up(turn) => stop_postgres(turn),
        Server::Down(control) if turn.memory.hand_over.is_some() => match term {
            Some(term) => handover::go_on(turn, term, Some(control)),
            None => exit(turn),
        },
        Server::Down(_) | Server::Empty | Server::HalfMade | Server::Inaccessible(_) | Server::Foreign(_) => {
            leave(turn, term)
        }
        Server::Standby(_) if sync::leave(turn) => because(turn),
        Server::Standby(_) | Server::Silent => stop_postgres(turn),
        Server::Unknown => {
            turn.wake_in(Duration::from_millis(100), WaitingOn::Postgres);
            because(turn)
        }
    }
}

/// Nothing runs here: the leader key is given away, if it is mine, and the supervisor goes.
fn leave(turn: &mut Turn<'_>, term: Option<Term>) -> Reason {
    match term.filter(|_| !turn.just_finished(JobKind::ReleaseLeadership)) {
        Some(term) => release(turn, term),
        None => exit(turn),
    }
}

/// My pod ends, or is gone, and I lead: the same, but that the supervisor goes on. It follows the next leader, and does
/// not lead again.
pub(super) fn cease_to_lead(turn: &mut Turn<'_>, term: Term, server: &Server<'_>, end: PodEnd) -> Reason {
    match server {
        Server::Primary(sql) => hand_over(turn, term, sql),
        Server::Down(control) if turn.memory.hand_over.is_some() => {
            handover::go_on(turn, term, Some(control))
        }
        Server::Silent => stop_postgres(turn),
        Server::Unknown => {
            turn.wake_in(Duration::from_millis(100), WaitingOn::Postgres);
            Reason::PodEnds(end)
        }
        Server::Standby(_)
        | Server::Down(_)
        | Server::Empty
        | Server::HalfMade
        | Server::Inaccessible(_)
        | Server::Foreign(_) => demote::release(turn, term, Reason::PodEnds(end)),
    }
}

/// One try; where it fails PostgreSQL stops all the same.
fn hand_over(turn: &mut Turn<'_>, term: Term, sql: &SqlFacts) -> Reason {
    if turn.memory.hand_over.is_none() && !turn.memory.ending.handed_over_in_vain {
        handover::begin(turn, HandOverCause::Shutdown);
    }
    match turn.memory.hand_over.is_some() {
        true => {
            let told = lead::tell(turn, term, sql);
            handover::while_serving(turn, sql, told)
        }
        false => stop_postgres(turn),
    }
}

fn is_up(turn: &Turn<'_>) -> bool {
    matches!(turn.seen.postgres.process, Process::Up { .. })
}

fn stop_postgres(turn: &mut Turn<'_>) -> Reason {
    stop::cleanly(turn);
    because(turn)
}

pub(super) fn exit(turn: &mut Turn<'_>) -> Reason {
    turn.act(Action::Exit(ExitBecause::Asked));
    because(turn)
}

fn release(turn: &mut Turn<'_>, term: Term) -> Reason {
    let because = because(turn);
    demote::release(turn, term, because)
}

fn because(turn: &Turn<'_>) -> Reason {
    match turn.pod_end().filter(|_| !turn.seen.shutting_down) {
        Some(end) => Reason::PodEnds(end),
        None => Reason::ShuttingDown,
    }
}
