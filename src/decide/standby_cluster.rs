//! A standby cluster: the leader follows a remote primary, the other members follow the leader, and no member is
//! promoted.
//!
//! The remote primary takes the place of a leader in the rules for standbys ([`Tick::remote`]), so what is compared
//! with it, and how a member gets behind it, are the same as behind a member.

use std::time::Duration;

use super::handover::Choice;
use super::memory::{HandOver, HandOverPhase};
use super::tick::Tick;
use super::{attach, demote, follow, handover, lead, publish, race, rejoin, slots, start, stop, store, sync};
use crate::model::{
    Action, ControlFile, HandOverRefusal, Job, Reason, SqlFacts, StandbyClusterReason, Term, WaitingOn,
};

/// How long the clean stop of a primary may take before it becomes an immediate one.
const PRIMARY_STOP_WITHIN: Duration = Duration::from_secs(60);

/// I lead, and my Postgres accepts writes, or may do so soon: it stops, whatever else is under way.
pub(super) fn stop_primary(tick: &mut Tick<'_>) -> Reason {
    demote::stop_instead(tick, |tick| stop::cleanly_within(tick, PRIMARY_STOP_WITHIN));
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
    // Where etcd knows no cluster, it serves its readers until an operator has it lead.
    let is_known = tick.cluster().is_some_and(|cluster| cluster.system_id().is_some());
    if is_known {
        return start_behind_remote(tick, control);
    }
    start::as_standby(tick, false);
    Reason::StartingToCompete
}

/// I lead, and my Postgres is a standby.
pub(super) fn lead(tick: &mut Tick<'_>, term: Term, sql: &SqlFacts) -> Reason {
    tick.memory.failures.starts = 0;
    lead::restore_missing_keys(tick, term);
    store::settle(tick, term);
    slots::on_leader(tick, sql);
    if is_behind_remote(tick) {
        // From here on the remote primary's history is this cluster's, and what was promised before is given up.
        sync::on_leader(tick, term, sql);
        lead::tell_history(tick, term, sql);
        publish::status(tick, term, sql);
    }
    if tick.memory.hand_over.is_none() {
        let refused = handover::consider(tick, term);
        if let Some(reason) = refused {
            follow(tick, sql);
            return reason;
        }
    }
    match tick.memory.hand_over.is_some() {
        true => hand_over(tick, term, sql),
        false => follow(tick, sql),
    }
}

/// Whether my WAL was compared with the remote primary's, if there is one.
fn is_behind_remote(tick: &Tick<'_>) -> bool {
    tick.remote().is_none_or(|remote| attach::is_attached(tick, remote.term))
}

fn follow(tick: &mut Tick<'_>, sql: &SqlFacts) -> Reason {
    let Some(remote) = tick.remote() else {
        attach::let_go(tick);
        return follow::alone(tick, sql)
            .unwrap_or(Reason::StandbyCluster(StandbyClusterReason::LeadsBehindArchive));
    };
    let reason = follow::leader(tick, &remote, sql);
    let follows = Reason::Following { leader: remote.name.clone() };
    let leads = StandbyClusterReason::Leads { remote: remote.name };
    if reason == follows { Reason::StandbyCluster(leads) } else { reason }
}

/// I lead, and my Postgres does not answer.
pub(super) fn silent(tick: &mut Tick<'_>, term: Term) -> Reason {
    let reason = start::silent(tick, term);
    if reason != Reason::PostgresSilent {
        return reason;
    }
    let remote = tick.remote();
    follow::wait_for_answer(tick, remote.as_ref())
}

/// No member leads: the members compete, and WAL goes on arriving from the remote primary if no member wins for long.
pub(super) fn run_race(tick: &mut Tick<'_>, sql: &SqlFacts) -> Reason {
    let reason = race::run(tick, sql);
    let since = tick.memory.answers_since.unwrap_or(tick.now);
    let lasts_at = since + tick.seen.settings.ttl;
    if tick.now < lasts_at {
        tick.wake_at(lasts_at, WaitingOn::Members);
    } else if !is_acting(tick)
        && let Some(remote) = tick.remote()
    {
        follow::point_at(tick, &remote, sql);
    }
    reason
}

/// Whether the key is being taken, PostgreSQL is about to be stopped, or nothing is to happen.
fn is_acting(tick: &Tick<'_>) -> bool {
    let acts = |action: &Action| matches!(action, Action::Start(_));
    tick.seen.writing.is_some() || tick.seen.settings.pause || tick.actions.iter().any(acts)
}

/// The next step of a hand-over. This PostgreSQL accepts no writes: the key moves, and PostgreSQL goes on.
fn hand_over(tick: &mut Tick<'_>, term: Term, sql: &SqlFacts) -> Reason {
    let Some(hand_over) = tick.memory.hand_over.clone() else { return Reason::Leading };
    if hand_over.give_up_at <= tick.now {
        return handover::abort(tick, HandOverRefusal::NotInTime);
    }
    tick.wake_at(hand_over.give_up_at, WaitingOn::Members);
    match hand_over.phase {
        HandOverPhase::Choosing => choose(tick, &hand_over, term, sql),
        HandOverPhase::Moving { .. } => handover::moved(tick),
        HandOverPhase::Checkpoint
        | HandOverPhase::Checkpointed
        | HandOverPhase::Stopping
        | HandOverPhase::Proving { .. } => handover::abort(tick, HandOverRefusal::RunsAgain),
    }
}

fn choose(tick: &mut Tick<'_>, hand_over: &HandOver, term: Term, sql: &SqlFacts) -> Reason {
    let to = match handover::choice(tick, hand_over, sql) {
        Choice::NotMade(reason) => return reason,
        Choice::Made(to) => to,
    };
    let lease = tick.cluster().and_then(|cluster| cluster.members.get(to.as_ref()?)?.lease);
    // An earlier write to the leader key may be under way.
    let Some((to, to_lease)) = to.zip(lease).filter(|_| tick.seen.writing.is_none()) else {
        tick.wake_in(handover::ASK_EVERY, WaitingOn::Members);
        return handover::in_phase(tick, HandOverPhase::Choosing);
    };
    tick.memory.hand_over = Some(HandOver { to: Some(to.clone()), ..hand_over.clone() });
    let status = demote::last_status(tick);
    handover::give_key_away(tick, Job::HandOver { term, to, to_lease, status }, term, sql.lsn())
}
