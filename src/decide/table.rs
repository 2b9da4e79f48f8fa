//! The table: one arm for every situation, in the order of urgency.

use super::liveness::Sentence;
use super::turn::Turn;
use super::{Decision, Leadership, Memory, Server, Situation};
use super::{
    bootstrap, demote, follow, handover, lead, liveness, publish, race, rejoin, requests, routing, shutdown,
    slots, start, store, sync, unfenced,
};
use crate::model::{Action, ExitBecause, JobKind, Moment, Observation, Reason, Running};

/// Decides one tick.
pub fn decide(memory: &Memory, seen: &Observation, now: Moment) -> Decision {
    let mut turn = Turn::new(memory, seen, now);
    let change = turn.remember_store();
    let leadership = Leadership::of(seen, now);
    let system_id = turn.cluster().and_then(|cluster| cluster.system_id());
    let server = Server::of(&seen.postgres, system_id);
    turn.remember(&leadership, &server);
    requests::accept(&mut turn, &leadership);
    // What an operator asked for goes on in pause: it is no automatic action.
    let asked = turn.memory.hand_over.is_some()
        || turn.memory.restart.is_some()
        || turn.memory.reinitialize.is_some();
    let paused = seen.settings.pause && !asked;
    let situation = Situation::of(&leadership, &server, &seen.postgres, paused);
    let change = change.filter(|_| !must_stop_now(situation));
    let judged = situation == Situation::DeadPrimary && change.is_none();
    let sentence = judged.then(|| liveness::condemn(&mut turn, &leadership));
    let because = match sentence {
        Some(Sentence::Because(reason)) => reason,
        Some(Sentence::Spared(reason)) => {
            match go_on(&mut turn, Situation::mine(&server, paused), &leadership, &server) {
                Reason::Leading => reason,
                other => other,
            }
        }
        None => match change {
            Some(change) => store::record(&mut turn, change),
            None => go_on(&mut turn, situation, &leadership, &server),
        },
    };
    requests::answer_unbegun(&mut turn, &because);
    unfenced::owed(&mut turn);
    unfenced::clear(&mut turn, &leadership, &server);
    publish::member(&mut turn, &leadership, &server, &because);
    let pod = routing::of(&turn, &leadership, &server);
    let route = routing::of_service(&turn, &leadership, &server, pod);
    turn.decide(pod, route, because)
}

fn go_on(turn: &mut Turn<'_>, situation: Situation, leadership: &Leadership, server: &Server<'_>) -> Reason {
    if must_stop_now(situation) {
        demote::now(turn, situation, leadership)
    } else if let Some(job) = &turn.seen.job {
        if situation == Situation::KeyVanishedUnderPrimary {
            race::retake(turn, server);
        }
        if let (JobKind::Checkpoint, Leadership::Mine(term), Server::Primary(sql)) =
            (job.job.kind(), leadership, server)
        {
            sync::on_leader(turn, *term, sql);
        }
        busy(turn, job, leadership)
    } else if shutdown::is_overdue(turn) {
        shutdown::exit(turn)
    } else if let Leadership::Mine(term) = leadership
        && turn.memory.given_away == Some(*term)
    {
        demote::giving_away(turn, *term)
    } else if let (Leadership::Mine(term), true, None) =
        (leadership, turn.seen.watchdog_failed, &turn.memory.hand_over)
    {
        demote::release(turn, *term, Reason::WatchdogFailed)
    } else if turn.ends() {
        shutdown::go_on(turn, leadership, server)
    } else if let (Leadership::Mine(term), Some(end), None) =
        (leadership, turn.pod_end(), turn.writes_refused())
    {
        shutdown::cease_to_lead(turn, *term, server, end)
    } else {
        act(turn, situation, leadership, server)
    }
}

/// The situations that no long action may delay.
fn must_stop_now(situation: Situation) -> bool {
    match situation {
        Situation::ExpiringPrimary | Situation::DeposedPrimary => true,
        Situation::NotLookedYet
        | Situation::ForeignData
        | Situation::ExpiringOther
        | Situation::DeadPrimary
        | Situation::KeyVanishedUnderPrimary
        | Situation::Confirming
        | Situation::FormerSelfLeads
        | Situation::LeaderWithoutData
        | Situation::LeaderDown
        | Situation::LeaderSilent
        | Situation::LeaderStandby
        | Situation::LeaderPrimary
        | Situation::NoDataUnderLeader
        | Situation::NoDataNoLeader
        | Situation::DataUnreadable
        | Situation::DownUnderLeader
        | Situation::DownNoLeader
        | Situation::SilentFollower
        | Situation::StandbyUnderLeader
        | Situation::StandbyNoLeader
        | Situation::PausedLeaderNotPrimary
        | Situation::PausedIdle => false,
    }
}

fn act(turn: &mut Turn<'_>, situation: Situation, leadership: &Leadership, server: &Server<'_>) -> Reason {
    match (situation, leadership, server) {
        (Situation::ForeignData, _, Server::Foreign(control)) => foreign(turn, control.system_id),
        (Situation::LeaderPrimary, Leadership::Mine(term), Server::Primary(sql)) => {
            lead::serve(turn, *term, sql)
        }
        (Situation::LeaderStandby, Leadership::Mine(term), Server::Standby(sql)) => {
            start::promote(turn, *term, sql)
        }
        (Situation::LeaderDown, Leadership::Mine(term), Server::Down(control)) => {
            start::lead(turn, *term, control)
        }
        (Situation::LeaderSilent, Leadership::Mine(term), _) => start::silent(turn, *term),
        (Situation::LeaderWithoutData, Leadership::Mine(term), _) => {
            demote::release(turn, *term, Reason::NoDataToLead)
        }
        (Situation::PausedLeaderNotPrimary, Leadership::Mine(term), _) => {
            demote::release(turn, *term, Reason::PausedWithoutPrimary)
        }
        (Situation::KeyVanishedUnderPrimary, _, _) => race::retake(turn, server),
        (Situation::FormerSelfLeads, Leadership::FormerSelf(key), _) => race::revoke_former_self(turn, key),
        (Situation::NoDataUnderLeader, Leadership::Other(leader), _) => bootstrap::clone(turn, leader),
        (Situation::NoDataNoLeader, _, _) => bootstrap::create(turn),
        (Situation::DataUnreadable, Leadership::Other(leader), _) if turn.memory.reinitialize.is_some() => {
            rejoin::reinitialize(turn, leader)
        }
        (Situation::DataUnreadable, _, Server::Inaccessible(error)) => {
            Reason::DataUnreadable((*error).to_owned())
        }
        (Situation::DownUnderLeader, Leadership::Other(leader), Server::Down(control)) => {
            rejoin::climb(turn, leader, control)
        }
        (Situation::DownNoLeader, _, Server::Down(control)) => start::without_leader(turn, control),
        (Situation::StandbyUnderLeader, Leadership::Other(leader), Server::Standby(sql)) => {
            slots::on_standby(turn, sql);
            follow::leader(turn, leader, sql)
        }
        (Situation::StandbyNoLeader, _, Server::Standby(sql)) => race::run(turn, sql),
        (Situation::SilentFollower, _, _) => follow::wait_for_answer(turn, leadership),
        (Situation::PausedIdle, _, _) => Reason::Paused,
        (Situation::ExpiringOther, _, _) => Reason::LeaseExpiring,
        (Situation::Confirming, _, _) => race::confirming(turn),
        // `Situation::of` pairs every name with its leadership and server; what is left is "not looked yet".
        (_unpaired, _, _) => Reason::ClusterUnknown,
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
