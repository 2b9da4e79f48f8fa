//! A standby cluster: the leader follows a remote primary, the other members follow the leader, and no member is
//! promoted.
//!
//! The remote primary takes the place of a leader in the rules for standbys ([`Tick::remote`]), so what is compared
//! with it, and how a member gets behind it, are the same as behind a member.

use std::time::Duration;

use super::tick::Tick;
use super::{attach, follow, handover, lead, publish, race, rejoin, slots, start, stop, store, sync};
use crate::model::{
    Action, ClusterView, ControlFile, Job, JobKind, NoDataReason, Reason, SqlFacts, StandbyClusterReason, Term,
    WaitingOn,
};

/// How long the clean stop of a primary may take before it becomes an immediate one.
const PRIMARY_STOP_WITHIN: Duration = Duration::from_secs(60);

/// I lead, and my Postgres accepts writes, or may do so soon: it stops, whatever else is under way.
pub(super) fn stop_primary(tick: &mut Tick<'_>) -> Reason {
    tick.memory.demoted = true;
    tick.memory.hand_over = None;
    match tick.seen.job.as_ref().map(|running| running.job.kind()) {
        Some(JobKind::Stop) => {}
        Some(_) => {
            tick.act(Action::CancelJob);
            tick.wake_in(Duration::from_millis(50), WaitingOn::Job);
        }
        None => stop::cleanly_within(tick, PRIMARY_STOP_WITHIN),
    }
    Reason::StandbyCluster(StandbyClusterReason::StoppingPrimary)
}

/// I lead, and my Postgres is down: it starts behind the remote primary.
pub(super) fn start(tick: &mut Tick<'_>, term: Term, control: &ControlFile) -> Reason {
    if let Some(reason) = start::instead(tick, term, control) {
        return reason;
    }
    publish::stopped(tick, term, control);
    start_behind_remote(tick, control)
}

fn start_behind_remote(tick: &mut Tick<'_>, control: &ControlFile) -> Reason {
    match tick.remote() {
        Some(remote) => rejoin::climb(tick, &remote, control),
        None => {
            start::as_standby(tick, false);
            Reason::StandbyCluster(StandbyClusterReason::Starting)
        }
    }
}

/// No member leads, and my Postgres is down.
pub(super) fn start_without_leader(tick: &mut Tick<'_>, control: &ControlFile) -> Reason {
    start_behind_remote(tick, control)
}

/// I lead, and my Postgres is a standby.
pub(super) fn lead(tick: &mut Tick<'_>, term: Term, sql: &SqlFacts) -> Reason {
    tick.memory.failures.starts = 0;
    lead::restore_missing_keys(tick, term);
    store::settle(tick, term);
    slots::on_leader(tick, sql);
    sync::on_leader(tick, term, sql);
    publish::status(tick, term, sql);
    if tick.memory.hand_over.is_none() {
        let refused = handover::consider(tick, term);
        if let Some(reason) = refused {
            follow(tick, sql);
            return reason;
        }
    }
    match tick.memory.hand_over.is_some() {
        true => handover::of_standby_leader(tick, term, sql),
        false => follow(tick, sql),
    }
}

fn follow(tick: &mut Tick<'_>, sql: &SqlFacts) -> Reason {
    let Some(remote) = tick.remote() else {
        attach::let_go(tick);
        return follow::alone(tick, sql)
            .unwrap_or(Reason::StandbyCluster(StandbyClusterReason::LeadsBehindArchive));
    };
    match follow::leader(tick, &remote, sql) {
        Reason::Following { leader } => {
            Reason::StandbyCluster(StandbyClusterReason::Leads { remote: leader })
        }
        reason => reason,
    }
}

/// I lead, and my Postgres does not answer.
pub(super) fn silent(tick: &mut Tick<'_>, term: Term) -> Reason {
    match start::silent(tick, term) {
        Reason::PostgresSilent => {
            let remote = tick.remote();
            follow::wait_for_answer(tick, remote.as_ref())
        }
        reason => reason,
    }
}

/// No member leads: the members compete, and WAL goes on arriving from the remote primary if no member wins for long.
pub(super) fn run_race(tick: &mut Tick<'_>, sql: &SqlFacts) -> Reason {
    let reason = race::run(tick, sql);
    let since = tick.memory.answers_since.unwrap_or(tick.now);
    let lasts_at = since + tick.seen.settings.ttl;
    let takes = |action: &Action| matches!(action, Action::Start(Job::TakeLeadership { .. }));
    let stops = |action: &Action| matches!(action, Action::Start(Job::Stop { .. } | Job::Checkpoint));
    if tick.seen.writing.is_some() || tick.actions.iter().any(|action| takes(action) || stops(action)) {
        return reason;
    }
    match tick.remote().filter(|_| lasts_at <= tick.now && !tick.seen.settings.pause) {
        Some(remote) => follow::point_at(tick, &remote, sql),
        None => tick.wake_at(lasts_at.max(tick.now + Duration::from_millis(200)), WaitingOn::Members),
    }
    reason
}

/// The cluster exists, no member leads, and I have no data: the remote primary has it. A leader would be as good a
/// source, and nearer, so it has one TTL to appear.
pub(super) fn clone_remote(tick: &mut Tick<'_>, cluster: &ClusterView) -> Option<Reason> {
    let (from, methods) = tick.remote_source()?;
    let until = tick.memory.answers_since.unwrap_or(tick.now) + tick.seen.settings.ttl;
    if tick.now < until {
        tick.wake_at(until, WaitingOn::Leader);
        return Some(Reason::NoData(NoDataReason::NobodyToClone));
    }
    tick.start(Job::Clone { from, methods, system_id: cluster.system_id() });
    Some(Reason::StandbyCluster(StandbyClusterReason::CopyingRemote))
}

/// Whether I was the last leader, as that of a standby cluster: with me nothing is lost that was there.
pub(super) fn led_until_now(tick: &Tick<'_>) -> bool {
    let published = tick.memory.published.as_ref();
    published.is_some_and(|(record, ..)| record.role == crate::model::Role::StandbyLeader)
}
