//! The table: one arm for every situation, in the order of urgency.

use super::decision::Decision;
use super::leadership::Leadership;
use super::liveness::Sentence;
use super::memory::Memory;
use super::server::Server;
use super::situation::{Findings, Situation};
use super::turn::Turn;
use super::{
    bootstrap, clone, demote, follow, handover, lead, liveness, publish, race, rejoin, requests, routing,
    shutdown, slots, start, store, sync, unfenced,
};
use crate::model::{
    Action, Death, ExitBecause, JobKind, LeaderKey, Moment, Observation, Reason, Running, SqlFacts, Term,
};

/// Decides one tick.
pub fn decide(memory: &Memory, seen: &Observation, now: Moment) -> Decision {
    let mut turn = Turn::new(memory, seen, now);
    let found = find(&mut turn);
    let situation = Situation::of(&turn, &found);
    let because = act(&mut turn, &found, situation);
    requests::answer_unbegun(&mut turn, &because);
    unfenced::owed(&mut turn);
    unfenced::clear(&mut turn, &found.leadership, &found.server);
    publish::member(&mut turn, &found.leadership, &found.server, &because);
    let pod = routing::of(&turn, &found.leadership, &found.server);
    let route = routing::of_service(&turn, &found.leadership, &found.server, pod);
    turn.decide(pod, route, because)
}

/// The name of the row of the table that [`decide`] finds for the same arguments.
pub fn situation_name(memory: &Memory, seen: &Observation, now: Moment) -> String {
    let mut turn = Turn::new(memory, seen, now);
    let found = find(&mut turn);
    let text = format!("{:?}", Situation::of(&turn, &found));
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// Takes note of what changed since the last tick and of what was asked, before any rule looks.
fn find<'a>(turn: &mut Turn<'a>) -> Findings<'a> {
    let store_change = turn.remember_store();
    let leadership = Leadership::of(turn.seen, turn.now);
    let system_id = turn.cluster().and_then(|cluster| cluster.system_id());
    let server = Server::of(&turn.seen.postgres, system_id);
    turn.remember(&leadership, &server);
    requests::accept(turn, &leadership);
    // What an operator asked for goes on in pause: it is no automatic action.
    let memory = &turn.memory;
    let asked = memory.hand_over.is_some() || memory.restart.is_some() || memory.reinitialize.is_some();
    Findings { leadership, server, store_change, paused: turn.seen.settings.pause && !asked }
}

fn act<'a>(turn: &mut Turn<'a>, found: &'a Findings<'a>, situation: Situation<'a>) -> Reason {
    if situation.is_free() {
        shutdown::note_end(turn);
    }
    match situation {
        Situation::NotLookedYet => Reason::ClusterUnknown,
        Situation::ExpiringPrimary => demote::now(turn, Reason::LeaseExpiring),
        Situation::DeposedPrimary { by } => demote::now(turn, by.reason()),
        Situation::StoreWentBack { change } => store::record(turn, change.clone()),
        Situation::DeadPrimary { death, term } => dead(turn, found, death, term),
        Situation::JobUnderVanishedKey { running, sql } => {
            race::retake(turn, sql);
            busy(turn, running, &found.leadership)
        }
        Situation::CheckpointUnderLeader { running, term, sql } => {
            sync::on_leader(turn, term, sql);
            busy(turn, running, &found.leadership)
        }
        Situation::JobRuns { running } => busy(turn, running, &found.leadership),
        Situation::OverdueShutdown => shutdown::exit(turn),
        Situation::GivingAway { term } => demote::giving_away(turn, term),
        Situation::WatchdogFailed { term } => demote::release(turn, term, Reason::WatchdogFailed),
        Situation::ShuttingDown => shutdown::go_on(turn, &found.leadership, &found.server),
        Situation::PodEnds { term, end } => shutdown::cease_to_lead(turn, term, &found.server, end),
        Situation::ForeignData { control } => foreign(turn, control.system_id),
        Situation::ExpiringOther => Reason::LeaseExpiring,
        Situation::KeyVanishedUnderPrimary { sql } => race::retake(turn, sql),
        Situation::Confirming => race::confirming(turn),
        Situation::FormerSelfLeads { key } => race::revoke_former_self(turn, key),
        Situation::LeaderWithoutData { term } => demote::release(turn, term, Reason::NoDataToLead),
        Situation::LeaderDown { term, control } => start::lead(turn, term, control),
        Situation::LeaderSilent { term } => start::silent(turn, term),
        Situation::LeaderStandby { term, sql } => start::promote(turn, term, sql),
        Situation::LeaderPrimary { term, sql } => lead::serve(turn, term, sql),
        Situation::NoDataUnderLeader { leader } => clone::without_data(turn, leader),
        Situation::NoDataNoLeader => bootstrap::create(turn),
        Situation::DataUnreadable { error, leader } => unreadable(turn, error, leader),
        Situation::DownUnderLeader { leader, control } => rejoin::climb(turn, leader, control),
        Situation::DownNoLeader { control } => start::without_leader(turn, control),
        Situation::SilentFollower { leader } => follow::wait_for_answer(turn, leader),
        Situation::StandbyUnderLeader { leader, sql } => standby(turn, leader, sql),
        Situation::StandbyNoLeader { sql } => race::run(turn, sql),
        Situation::PausedLeaderNotPrimary { term } => {
            demote::release(turn, term, Reason::PausedWithoutPrimary)
        }
        Situation::PausedIdle => Reason::Paused,
    }
}

fn dead<'a>(turn: &mut Turn<'a>, found: &'a Findings<'a>, death: &Death, term: Option<Term>) -> Reason {
    match liveness::condemn(turn, death, term) {
        Sentence::Because(reason) => reason,
        Sentence::Spared { term, because } => {
            let situation = Situation::despite_death(turn, found, term);
            let reason = act(turn, found, situation);
            if reason == Reason::Leading { because } else { reason }
        }
    }
}

fn standby(turn: &mut Turn<'_>, leader: &LeaderKey, sql: &SqlFacts) -> Reason {
    slots::on_standby(turn, sql);
    follow::leader(turn, leader, sql)
}

fn unreadable(turn: &mut Turn<'_>, error: &str, leader: Option<&LeaderKey>) -> Reason {
    match leader.filter(|_| turn.memory.reinitialize.is_some()) {
        Some(leader) => rejoin::reinitialize(turn, leader),
        None => Reason::DataUnreadable(error.to_owned()),
    }
}

/// A long action runs: let it, unless what it is for is gone.
fn busy(turn: &mut Turn<'_>, running: &Running, leadership: &Leadership) -> Reason {
    let job = running.job.kind();
    let leads = matches!(leadership, Leadership::Mine(_));
    let pointless = match job {
        JobKind::Promote => !leads,
        JobKind::Bootstrap | JobKind::Clone | JobKind::CrashRecovery => turn.ends(),
        JobKind::StartStandby => turn.ends() || follow::is_overtaken(turn, running, leadership),
        // A restart's checkpoint may take long; that of a hand-over has the hand-over's deadline.
        JobKind::Checkpoint => turn.ends() && turn.memory.hand_over.is_none(),
        JobKind::TakeLeadership
        | JobKind::HandOver
        | JobKind::ReleaseLeadership
        | JobKind::ReclaimLeadership
        | JobKind::Stop
        | JobKind::Rewind
        | JobKind::CheckpointAfterPromotion => false,
    };
    if pointless {
        turn.act(Action::CancelJob);
    } else if job == JobKind::Promote
        && let Some(reason) = liveness::watch_promotion(turn)
    {
        return reason;
    }
    handover::watch_deadline(turn);
    Reason::Busy(job)
}

fn foreign(turn: &mut Turn<'_>, mine: u64) -> Reason {
    let cluster = turn.cluster().and_then(|cluster| cluster.initialize.clone()).unwrap_or_default();
    if turn.seen.settings.pause {
        return Reason::ForeignData { mine, cluster };
    }
    turn.act(Action::Exit(ExitBecause::ForeignDataDirectory { mine, cluster: cluster.clone() }));
    Reason::ForeignData { mine, cluster }
}
