//! The labels of this member's pod, and the address in the Service of the primary.
//!
//! They never run ahead of the facts: the leader's label is set after this Postgres was seen to accept writes in the
//! current term, and removed before that Postgres is stopped.

use super::leadership::Leadership;
use super::server::Server;
use super::tick::Tick;
use crate::model::{Action, Job, JobKind, PodRole, PrimaryRoute};

/// The role for my pod; `None`: no reason to change the present one.
pub(super) fn of(tick: &Tick<'_>, leadership: &Leadership, server: &Server<'_>) -> Option<PodRole> {
    if stops(tick) {
        return Some(PodRole::Nothing);
    }
    if let Some(JobKind::Bootstrap | JobKind::Clone) =
        tick.seen.job.as_ref().map(|running| running.job.kind())
    {
        return Some(PodRole::Bootstrapping);
    }
    match (server, leadership) {
        (Server::Unknown | Server::Silent, _) => None,
        (Server::Primary(_), Leadership::Unknown | Leadership::Unconfirmed) => None,
        (Server::Primary(_), Leadership::Mine(term)) if serves(tick) => Some(PodRole::Leader(*term)),
        (
            Server::Primary(_),
            Leadership::Mine(_)
            | Leadership::Expiring(_)
            | Leadership::FormerSelf(_)
            | Leadership::Other(_)
            | Leadership::Nobody,
        ) => Some(PodRole::Nothing),
        (Server::Standby(_), Leadership::Mine(term)) if tick.in_standby_cluster() => {
            Some(PodRole::StandbyLeader(*term))
        }
        // About to be promoted: each change that is left out is one that no Service has to follow.
        (Server::Standby(_), Leadership::Mine(_)) => None,
        (
            Server::Standby(_),
            Leadership::Expiring(_)
            | Leadership::Unconfirmed
            | Leadership::FormerSelf(_)
            | Leadership::Other(_)
            | Leadership::Nobody
            | Leadership::Unknown,
        ) => Some(PodRole::Follower),
        (
            Server::Empty | Server::HalfMade | Server::Inaccessible(_) | Server::Foreign(_) | Server::Down(_),
            _,
        ) => Some(PodRole::Nothing),
    }
}

/// The change to the Service of the primary, given the pod's role. A proxy follows one change at once and the next only
/// after a second, so a hand-over is a single change. The address of a Postgres that stops remains, and refuses
/// connections, until the next leader replaces it. It is removed where sessions would reach a standby, and where there
/// is no next leader.
pub(super) fn of_service(
    tick: &Tick<'_>,
    leadership: &Leadership,
    server: &Server<'_>,
    pod: Option<PodRole>,
) -> PrimaryRoute {
    match (pod, server, leadership) {
        (Some(PodRole::Leader(term) | PodRole::StandbyLeader(term)), _, _) => PrimaryRoute::Here(term),
        (Some(PodRole::Follower | PodRole::Bootstrapping), _, _) => PrimaryRoute::NotHere,
        (Some(PodRole::Nothing), _, _) if stops(tick) => match leaves(tick) && !is_succeeded(tick) {
            true => PrimaryRoute::NotHere,
            false => PrimaryRoute::Unchanged,
        },
        // No member exists whose write would replace it.
        (Some(PodRole::Nothing), _, Leadership::Nobody) if starts(tick) => PrimaryRoute::NotHere,
        // In pause it may serve for long, and no lease fences it.
        (Some(PodRole::Nothing), Server::Primary(_), Leadership::Nobody | Leadership::Other(_)) => {
            PrimaryRoute::NotHere
        }
        (Some(PodRole::Nothing) | None, _, _) => PrimaryRoute::Unchanged,
    }
}

/// Whether the next leader is certainly another member.
fn leaves(tick: &Tick<'_>) -> bool {
    tick.seen.shutting_down || tick.pod_end().is_some()
}

/// Whether a hand-over has chosen the member that will replace my address.
fn is_succeeded(tick: &Tick<'_>) -> bool {
    tick.memory.hand_over.as_ref().is_some_and(|hand_over| hand_over.to.is_some())
}

/// The same condition as in the probe `/primary`: clients are admitted, and Postgres proves that it works.
fn serves(tick: &Tick<'_>) -> bool {
    let postgres = &tick.seen.postgres;
    !tick.memory.demoted && !postgres.clients_locked_out && postgres.liveness.death().is_none()
}

/// Postgres is being started as a standby, or this decision starts it.
fn starts(tick: &Tick<'_>) -> bool {
    let running = tick.seen.job.as_ref().is_some_and(|running| running.job.kind() == JobKind::StartStandby);
    running || tick.actions.iter().any(|action| matches!(action, Action::Start(Job::StartStandby { .. })))
}

/// Postgres is being stopped, or this decision stops it.
fn stops(tick: &Tick<'_>) -> bool {
    let running = tick.seen.job.as_ref().is_some_and(|running| running.job.kind() == JobKind::Stop);
    running || tick.actions.iter().any(|action| matches!(action, Action::Start(Job::Stop { .. })))
}
