//! One arm for every situation, in the order of urgency.

use super::decision::Decision;
use super::leadership::Leadership;
use super::liveness::HealthVerdict;
use super::memory::Memory;
use super::server::Server;
use super::situation::{Assessment, Situation};
use super::tick::Tick;
use super::{
    bootstrap, clone, demote, failsafe, follow, handover, in_place, lead, liveness, publish, race, recruit,
    rejoin, requests, routing, shutdown, slots, standby_cluster, start, store, sync, unfenced,
};
use crate::model::{
    Action, Death, ExitBecause, JobKind, LeaderKey, Moment, Observation, Process, Reason, RunningJob,
    SqlFacts, Term,
};

/// Decides one tick.
pub fn decide(memory: &Memory, seen: &Observation, now: Moment) -> Decision {
    let mut tick = Tick::new(memory, seen, now);
    let found = find(&mut tick);
    let situation = Situation::of(&tick, &found);
    let because = act(&mut tick, &found, situation);
    requests::answer_unbegun(&mut tick, &because);
    failsafe::advance(&mut tick, &found.leadership);
    unfenced::owed(&mut tick);
    unfenced::clear(&mut tick, &found.leadership, &found.server);
    publish::member(&mut tick, &found.leadership, &found.server, &because);
    let pod = routing::of(&tick, &found.leadership, &found.server);
    let route = routing::of_service(&tick, &found.leadership, &found.server, pod);
    tick.decide(pod, route, because)
}

/// The name of the row of the table that [`decide`] finds for the same arguments.
pub fn situation_name(memory: &Memory, seen: &Observation, now: Moment) -> String {
    let mut tick = Tick::new(memory, seen, now);
    let found = find(&mut tick);
    let text = format!("{:?}", Situation::of(&tick, &found));
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// Records changes and requests since the last tick, before any rule runs.
fn find<'a>(tick: &mut Tick<'a>) -> Assessment<'a> {
    let store_change = tick.remember_store();
    let leadership = Leadership::of(tick.seen, tick.now);
    let system_id = tick.cluster().and_then(|cluster| cluster.system_id());
    let server = Server::of(&tick.seen.postgres, system_id);
    tick.remember(&leadership, &server);
    recruit::observe(tick, &leadership);
    requests::accept(tick, &leadership);
    let paused = tick.seen.settings.pause && !is_asked(tick, &leadership);
    let standby_cluster = tick.in_standby_cluster();
    Assessment { leadership, server, store_change, paused, standby_cluster }
}

/// An operation that an operator asked for is under way: it is not automatic, and continues in pause. After a
/// switchover this is the promotion of the candidate, and the start of the former primary.
fn is_asked(tick: &Tick<'_>, leadership: &Leadership) -> bool {
    let memory = &tick.memory;
    let leads = leadership.mine().is_some();
    let led = leads | matches!(leadership, Leadership::Other(_));
    [
        memory.hand_over.is_some(),
        memory.restart.is_some(),
        memory.reinitialize.is_some(),
        leads & handover::is_candidate(tick),
        led & memory.demoted,
    ]
    .contains(&true)
}

fn act<'a>(tick: &mut Tick<'a>, found: &'a Assessment<'a>, situation: Situation<'a>) -> Reason {
    if situation.is_free() {
        shutdown::note_end(tick);
    }
    match situation {
        Situation::NotLookedYet => Reason::ClusterUnknown,
        Situation::ExpiringPrimary => demote::now(tick, Reason::LeaseExpiring),
        Situation::DeposedPrimary { by } => demote::now(tick, by.reason()),
        Situation::StoreWentBack { change } => store::record(tick, change.clone()),
        Situation::DeadPrimary { death, term } => dead(tick, found, death, term),
        Situation::JobUnderVanishedKey { running, sql } => {
            in_place::retake(tick, sql);
            busy(tick, running, &found.leadership)
        }
        Situation::CheckpointUnderLeader { running, term, sql } => {
            sync::on_leader(tick, term, sql);
            busy(tick, running, &found.leadership)
        }
        Situation::JobRuns { running } => busy(tick, running, &found.leadership),
        Situation::OverdueShutdown => shutdown::exit(tick),
        Situation::GivingAway { term } => demote::giving_away(tick, term),
        Situation::WatchdogFailed { term } => demote::release(tick, term, Reason::WatchdogFailed),
        Situation::ShuttingDown => shutdown::advance(tick, &found.leadership, &found.server),
        Situation::PodEnds { term, end } => shutdown::cease_to_lead(tick, term, &found.server, end),
        Situation::ForeignData { control } => foreign(tick, control.system_id),
        Situation::ExpiringOther => Reason::LeaseExpiring,
        Situation::KeyVanishedUnderPrimary { sql } => in_place::retake(tick, sql),
        Situation::Confirming => race::confirming(tick),
        Situation::FormerSelfLeads { key } => race::revoke_previous_incarnation(tick, key),
        Situation::LeaderWithoutData { term } => demote::release(tick, term, Reason::NoDataToLead),
        Situation::LeaderDown { term, control } => start::lead(tick, term, control),
        Situation::LeaderSilent { term } => start::silent(tick, term),
        Situation::LeaderStandby { term, sql } => start::promote(tick, term, sql),
        Situation::LeaderPrimary { term, sql } => lead::serve(tick, term, sql),
        Situation::StandbyClusterPrimary { term: _ } => standby_cluster::stop_primary(tick),
        Situation::StandbyClusterLeaderDown { term, control } => standby_cluster::start(tick, term, control),
        Situation::StandbyClusterLeaderSilent { term } => standby_cluster::silent(tick, term),
        Situation::StandbyClusterLeader { term, sql } => standby_cluster::lead(tick, term, sql),
        Situation::StandbyClusterDownNoLeader { control } => {
            standby_cluster::start_without_leader(tick, control)
        }
        Situation::StandbyClusterNoLeader { sql } => standby_cluster::run_race(tick, sql),
        Situation::NoDataUnderLeader { leader } => clone::without_data(tick, leader),
        Situation::NoDataNoLeader => bootstrap::create(tick),
        Situation::DataUnreadable { error, leader } => unreadable(tick, error, leader),
        Situation::DownUnderLeader { leader, control } => rejoin::climb(tick, leader, control),
        Situation::DownNoLeader { control } => start::without_leader(tick, control),
        Situation::SilentFollower { leader } => follow::wait_for_answer(tick, leader),
        Situation::StandbyUnderLeader { leader, sql } => standby(tick, leader, sql),
        Situation::StandbyNoLeader { sql } => race::run(tick, sql),
        Situation::PausedLeaderNotPrimary { term } => {
            demote::release(tick, term, Reason::PausedWithoutPrimary)
        }
        Situation::PausedIdle => Reason::Paused,
    }
}

fn dead<'a>(tick: &mut Tick<'a>, found: &'a Assessment<'a>, death: &Death, term: Option<Term>) -> Reason {
    match liveness::fail_over_unhealthy(tick, death, term) {
        HealthVerdict::Because(reason) => reason,
        HealthVerdict::KeptServing { term, because } => {
            let situation = Situation::despite_death(tick, found, term);
            let reason = act(tick, found, situation);
            if reason == Reason::Leading { because } else { reason }
        }
    }
}

fn standby(tick: &mut Tick<'_>, leader: &LeaderKey, sql: &SqlFacts) -> Reason {
    if let Some(reason) = recruit::under_leader(tick, leader, sql) {
        return reason;
    }
    slots::on_standby(tick, leader, sql);
    follow::leader(tick, leader, sql)
}

fn unreadable(tick: &mut Tick<'_>, error: &str, leader: Option<&LeaderKey>) -> Reason {
    match leader.filter(|_| tick.memory.reinitialize.is_some()) {
        Some(leader) => rejoin::reinitialize(tick, leader),
        None => Reason::DataUnreadable(error.to_owned()),
    }
}

/// A long action runs: it continues unless its purpose is gone.
fn busy(tick: &mut Tick<'_>, running: &RunningJob, leadership: &Leadership) -> Reason {
    let job = running.job.kind();
    let may_promote = matches!(leadership, Leadership::Mine(_)) && !tick.in_standby_cluster();
    let pointless = match job {
        JobKind::PrePromote => {
            !may_promote || tick.ends() || matches!(tick.seen.postgres.process, Process::Down { .. })
        }
        JobKind::Promote => !may_promote,
        JobKind::StartPrimary => !may_promote || tick.ends(),
        JobKind::Bootstrap | JobKind::Clone | JobKind::UndoClone | JobKind::CrashRecovery => tick.ends(),
        JobKind::StartStandby => tick.ends() || follow::is_overtaken(tick, running, leadership),
        // A restart's checkpoint may take long. That of a hand-over has the hand-over's deadline.
        JobKind::Checkpoint => tick.ends() && tick.memory.hand_over.is_none(),
        JobKind::TakeLeadership
        | JobKind::HandOver
        | JobKind::ReleaseLeadership
        | JobKind::ReclaimLeadership
        | JobKind::Stop
        | JobKind::Rewind
        | JobKind::CheckpointAfterPromotion => false,
    };
    let starts = matches!(job, JobKind::StartPrimary | JobKind::StartStandby) && may_promote;
    if pointless {
        tick.act(Action::CancelJob);
    } else if starts && start::is_too_slow(tick, running.since) {
        tick.act(Action::CancelJob);
        return Reason::StartTooSlow;
    } else if job == JobKind::Promote
        && let Some(reason) = liveness::watch_promotion(tick)
    {
        return reason;
    }
    handover::watch_deadline(tick);
    Reason::Busy(job)
}

fn foreign(tick: &mut Tick<'_>, mine: u64) -> Reason {
    let cluster = tick.cluster().and_then(|cluster| cluster.initialize.clone()).unwrap_or_default();
    if tick.seen.settings.pause {
        return Reason::ForeignData { mine, cluster };
    }
    tick.act(Action::Exit(ExitBecause::ForeignDataDirectory { mine, cluster: cluster.clone() }));
    Reason::ForeignData { mine, cluster }
}
