//! The supervisor was asked to end: hand over if it leads, stop Postgres, go.

use std::time::Duration;

use super::memory::HandOverCause;
use super::turn::Turn;
use super::{Leadership, Server, demote, follow, handover, lead, sync, unfenced};
use crate::model::{Action, ExitBecause, Job, JobKind, Process, Reason, StopMode, WaitingOn};

/// How long the end waits for etcd once PostgreSQL is down: the lease is revoked then, or runs out.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// True when PostgreSQL has been down for so long that whatever is still to be done in etcd will not be.
pub(super) fn is_overdue(turn: &mut Turn<'_>) -> bool {
    let down = matches!(turn.seen.postgres.process, Process::Down { .. });
    let proving = turn.memory.hand_over.as_ref().is_some_and(|hand_over| hand_over.waits_for_candidate());
    if !turn.seen.shutting_down || !down || proving {
        turn.memory.leave_by = None;
        return false;
    }
    let leave_by = *turn.memory.leave_by.get_or_insert(turn.now + LEAVE_WITHIN);
    turn.wake_at(leave_by, WaitingOn::Lease);
    leave_by <= turn.now
}

/// Takes the next step towards the end.
pub(super) fn go_on(turn: &mut Turn<'_>, leadership: &Leadership, server: &Server<'_>) -> Reason {
    if turn.seen.settings.pause {
        return unfenced::leave(turn, leadership);
    }
    match (leadership, server) {
        (Leadership::Mine(term), Server::Primary(sql)) => {
            let aborted = turn.memory.hand_over_refused.is_some();
            if turn.memory.hand_over.is_none() && !aborted {
                handover::begin(turn, HandOverCause::Shutdown);
            }
            match turn.memory.hand_over.is_some() {
                true => {
                    let told = lead::tell(turn, *term, sql);
                    handover::while_serving(turn, sql, told)
                }
                false => stop(turn),
            }
        }
        (_, Server::Foreign(_)) if is_up(turn) => stop(turn),
        (Leadership::Mine(term), Server::Down(control)) => match turn.memory.hand_over.is_some() {
            true => handover::go_on(turn, *term, Some(control)),
            false if turn.just_finished(JobKind::ReleaseLeadership) => exit(turn),
            false => demote::release(turn, *term, Reason::ShuttingDown),
        },
        (
            Leadership::Mine(term),
            Server::Empty | Server::HalfMade | Server::Inaccessible(_) | Server::Foreign(_),
        ) => match turn.just_finished(JobKind::ReleaseLeadership) {
            true => exit(turn),
            false => demote::release(turn, *term, Reason::ShuttingDown),
        },
        (_, Server::Standby(_)) if sync::leave(turn) => Reason::ShuttingDown,
        (_, Server::Primary(_) | Server::Standby(_) | Server::Silent) => stop(turn),
        (_, Server::Unknown) => {
            turn.wake_in(Duration::from_millis(100), WaitingOn::Postgres);
            Reason::ShuttingDown
        }
        (_, _) => exit(turn),
    }
}

fn is_up(turn: &Turn<'_>) -> bool {
    matches!(turn.seen.postgres.process, Process::Up { .. })
}

fn stop(turn: &mut Turn<'_>) -> Reason {
    turn.act(Action::Start(Job::Stop { mode: StopMode::Fast, within: follow::STANDBY_STOP_WITHIN }));
    Reason::ShuttingDown
}

pub(super) fn exit(turn: &mut Turn<'_>) -> Reason {
    turn.act(Action::Exit(ExitBecause::Asked));
    Reason::ShuttingDown
}
