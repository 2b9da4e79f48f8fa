//! The planned hand-over: choose → checkpoint → clean stop → prove → move the key. Until the key is moved it can be
//! aborted, and the old primary serves again in the same term.

use std::time::Duration;

use super::ledgers::GivenAway;
use super::memory::{HandOver, HandOverCause};
use super::streaming::{receives, stalls};
use super::turn::Turn;
use super::{eligibility, peers, pod_order};
use crate::model::{
    Action, ClusterStatus, ControlFile, ControlState, FailoverKey, HandOverPhase, Ineligible, Job, JobKind,
    Lsn, MemberName, Reason, SqlFacts, StopMode, Term, WaitingOn,
};

/// How often the candidate is asked while it catches up: writes are away meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(15);

/// How long a new leader waits for etcd to hear of its timeline before it hands over.
const TELL_WITHIN: Duration = Duration::from_secs(2);

/// How long etcd may take to show that it takes writes before one is handed over.
const WRITE_WITHIN: Duration = Duration::from_secs(3);

/// A request that was dealt with and is still there is cleared again after this.
const CLEAR_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Looks at the key `failover` while I serve, and begins or clears what it asks.
pub(super) fn consider(turn: &mut Turn<'_>, term: Term) -> Option<Reason> {
    let FailoverKey { request, mod_revision } = turn.cluster()?.failover.clone()?;
    if let Some((done, at)) = turn.memory.failover_done
        && done == mod_revision
    {
        // Dealt with; the view does not show it yet, or clearing it failed.
        return if at + CLEAR_AGAIN_AFTER <= turn.now { clear(turn, mod_revision) } else { None };
    }
    if request.is_failover() && (mod_revision < term.0 || request.rebuild) {
        // Asked for before I led, or for a cluster without a leader, and somebody leads now: the winner cleans up.
        return clear(turn, mod_revision);
    }
    let paused = turn.seen.settings.pause;
    if let Some(at) = request.scheduled_at {
        let late_ms = turn.seen.wall.0 - at.0;
        if paused {
            return None;
        }
        if late_ms < 0 {
            turn.wake_in(Duration::from_millis(late_ms.unsigned_abs()), WaitingOn::Schedule);
            return None;
        }
        if turn.seen.settings.loop_wait.mul_f64(1.5) < Duration::from_millis(late_ms.unsigned_abs()) {
            return Some(refuse(turn, mod_revision, "its time had passed when it was seen".to_owned()));
        }
    }
    let me = &turn.seen.me.name;
    match (&request.leader, &request.candidate) {
        // Done already: the leader it names does not lead any more, or the candidate leads.
        (Some(leader), _) if leader != me => clear(turn, mod_revision),
        (_, Some(candidate)) if candidate == me => clear(turn, mod_revision),
        (_, None) if paused => {
            Some(refuse(turn, mod_revision, "no candidate was named and the cluster is paused".into()))
        }
        (_, candidate) => {
            let cause = HandOverCause::Request { mod_revision, candidate: candidate.clone() };
            begin(turn, cause);
            None
        }
    }
}

fn clear(turn: &mut Turn<'_>, mod_revision: i64) -> Option<Reason> {
    turn.memory.failover_done = Some((mod_revision, turn.now));
    turn.act(Action::ClearFailover { mod_revision });
    None
}

fn refuse(turn: &mut Turn<'_>, mod_revision: i64, why: String) -> Reason {
    clear(turn, mod_revision);
    turn.memory.hand_over_refused = Some(why.clone());
    Reason::HandOverRefused { why }
}

/// Begins a hand-over.
pub(super) fn begin(turn: &mut Turn<'_>, cause: HandOverCause) {
    let give_up_at = turn.now + turn.seen.settings.primary_stop_timeout;
    turn.memory.hand_over_refused = None;
    turn.memory.answers_since = Some(turn.now);
    turn.memory.asked_at = None;
    // Written anew: what comes of it shows whether etcd takes writes.
    turn.memory.published = None;
    turn.memory.hand_over = Some(HandOver {
        cause,
        to: None,
        phase: HandOverPhase::Choosing,
        since: turn.now,
        give_up_at,
        reached: None,
    });
}

/// Takes the next step, while I serve. `told`: etcd knows on which timeline.
pub(super) fn while_serving(turn: &mut Turn<'_>, sql: &SqlFacts, told: bool) -> Reason {
    let Some(hand_over) = turn.memory.hand_over.clone() else { return Reason::Leading };
    if hand_over.give_up_at <= turn.now {
        return abort(turn, "it was not done in time".to_owned());
    }
    turn.wake_at(hand_over.give_up_at, WaitingOn::Members);
    match hand_over.phase {
        HandOverPhase::Choosing => choose(turn, &hand_over, sql),
        // By a position on a timeline that etcd has not heard of nobody could judge what he lacks (simulation, seed
        // 17927: 105 kB were lost where 100 may be).
        phase @ (HandOverPhase::Checkpoint | HandOverPhase::Checkpointed)
            if !told && turn.now < hand_over.since + TELL_WITHIN =>
        {
            turn.wake_at(hand_over.since + TELL_WITHIN, WaitingOn::NextLook);
            in_phase(turn, phase)
        }
        HandOverPhase::Checkpointed => when_writable(turn, &hand_over, sql),
        HandOverPhase::Checkpoint if turn.just_finished(JobKind::Checkpoint) => {
            when_writable(turn, &hand_over, sql)
        }
        HandOverPhase::Checkpoint => {
            turn.act(Action::Start(Job::Checkpoint));
            in_phase(turn, HandOverPhase::Checkpoint)
        }
        HandOverPhase::Stopping if turn.just_finished(JobKind::Stop) => {
            abort(turn, "PostgreSQL did not stop".to_owned())
        }
        HandOverPhase::Stopping => stop(turn, &hand_over),
        HandOverPhase::Proving { .. } | HandOverPhase::Moving { .. } => {
            abort(turn, "PostgreSQL runs again".to_owned())
        }
    }
}

fn choose(turn: &mut Turn<'_>, hand_over: &HandOver, sql: &SqlFacts) -> Reason {
    let wanted = match &hand_over.cause {
        HandOverCause::Request { candidate, .. } => candidate.clone(),
        HandOverCause::Shutdown => None,
    };
    let who: Vec<(MemberName, String)> = turn
        .others()
        .filter(|(name, key)| {
            wanted.as_ref().is_none_or(|wanted| wanted == *name) && !key.record.tags.nofailover()
        })
        .filter_map(|(name, key)| Some((name.clone(), key.record.api_url.clone()?)))
        .collect();
    if !peers::ask(turn, &who) {
        return in_phase(turn, HandOverPhase::Choosing);
    }
    let verdicts: Vec<_> =
        who.iter().map(|(name, _)| (name, eligibility::to_take_over(turn, name, sql))).collect();
    let fit = verdicts.iter().filter(|(_, unfit)| unfit.is_none()).map(|(name, _)| (*name).clone());
    let rank = |name: &MemberName| {
        let answer = turn.peers.get(name)?;
        let priority = answer.tags.failover_priority();
        let update = match hand_over.cause {
            HandOverCause::Shutdown => pod_order::update(&turn.seen.me.name, name),
            HandOverCause::Request { .. } => None,
        };
        // Everybody who is fit will have received the same: few bytes do not outweigh another hand-over.
        Some((update.map(|update| (priority, update)), answer.lsn, priority))
    };
    match (fit.max_by_key(rank), &hand_over.cause) {
        (Some(to), _) => {
            turn.memory.hand_over = Some(HandOver { to: Some(to), ..hand_over.clone() });
            turn.act(Action::Start(Job::Checkpoint));
            in_phase(turn, HandOverPhase::Checkpoint)
        }
        (None, HandOverCause::Shutdown) => {
            turn.act(Action::Start(Job::Checkpoint));
            in_phase(turn, HandOverPhase::Checkpoint)
        }
        (None, HandOverCause::Request { .. }) => {
            let faults: Vec<String> = verdicts
                .iter()
                .filter_map(|(name, unfit)| Some(format!("{name} {}", unfit.as_ref()?)))
                .collect();
            let why = match faults.is_empty() {
                true => "there is no member that could take over".to_owned(),
                false => faults.join("; "),
            };
            abort(turn, why)
        }
    }
}

/// The last step before the stop: nothing is stopped for a hand-over that etcd will not take. A write since it began
/// proves that it takes some; my own record is one.
fn when_writable(turn: &mut Turn<'_>, hand_over: &HandOver, sql: &SqlFacts) -> Reason {
    let asked = matches!(hand_over.cause, HandOverCause::Request { .. });
    let written = turn.seen.writes.done_at.is_some_and(|at| hand_over.since <= at);
    match (turn.writes_refused(), written) {
        (Some(why), _) => abort(turn, format!("etcd takes no writes: {why}")),
        (None, true) => stop_if_received(turn, hand_over, sql),
        (None, false) if turn.now < hand_over.since + WRITE_WITHIN => {
            turn.wake_at(hand_over.since + WRITE_WITHIN, WaitingOn::NextLook);
            turn.wake_in(ASK_EVERY, WaitingOn::NextLook);
            in_phase(turn, HandOverPhase::Checkpointed)
        }
        (None, false) if asked => abort(turn, "etcd took no write since it began".to_owned()),
        (None, false) => stop_if_received(turn, hand_over, sql),
    }
}

/// The last moment to find out that the candidate would not get what is still to be written.
fn stop_if_received(turn: &mut Turn<'_>, hand_over: &HandOver, sql: &SqlFacts) -> Reason {
    match (hand_over.to.clone().filter(|to| !receives(turn, to, sql)), &hand_over.cause) {
        (None, _) => stop(turn, hand_over),
        (Some(to), HandOverCause::Request { .. }) => {
            let why = Ineligible::NotStreaming { from: turn.seen.me.name.clone() };
            let why = format!("{to} {why}");
            abort(turn, why)
        }
        (Some(_), HandOverCause::Shutdown) => {
            let without = HandOver { to: None, ..hand_over.clone() };
            turn.memory.hand_over = Some(without.clone());
            stop(turn, &without)
        }
    }
}

fn stop(turn: &mut Turn<'_>, hand_over: &HandOver) -> Reason {
    let within = turn.now.until(hand_over.give_up_at).max(Duration::from_secs(1));
    turn.memory.demoted = true;
    turn.act(Action::Start(Job::Stop { mode: StopMode::Fast, within }));
    in_phase(turn, HandOverPhase::Stopping)
}

/// Takes the next step, while my Postgres is down (`control` given) or does not answer.
pub(super) fn go_on(turn: &mut Turn<'_>, term: Term, control: Option<&ControlFile>) -> Reason {
    let Some(hand_over) = turn.memory.hand_over.clone() else { return Reason::Leading };
    let Some(control) = control else {
        turn.wake_in(Duration::from_millis(100), WaitingOn::Postgres);
        return match hand_over.give_up_at <= turn.now {
            true => abort(turn, "PostgreSQL does not answer".to_owned()),
            false => Reason::HandingOver { progress: hand_over.progress() },
        };
    };
    match hand_over.phase {
        HandOverPhase::Choosing | HandOverPhase::Checkpoint | HandOverPhase::Checkpointed => {
            abort(turn, "PostgreSQL went down".to_owned())
        }
        HandOverPhase::Stopping if control.state == ControlState::ShutDown => {
            turn.memory.answers_since = Some(turn.now);
            turn.memory.asked_at = None;
            prove(turn, &hand_over, term, control)
        }
        HandOverPhase::Stopping => abort(turn, "PostgreSQL did not stop cleanly in time".to_owned()),
        HandOverPhase::Proving { .. } => prove(turn, &hand_over, term, control),
        HandOverPhase::Moving { .. } => moved(turn),
    }
}

fn prove(turn: &mut Turn<'_>, hand_over: &HandOver, term: Term, control: &ControlFile) -> Reason {
    let checkpoint = control.checkpoint;
    if turn.seen.writing.is_some() {
        // A write to the key of before, whose answer is late.
        turn.wake_in(ASK_EVERY, WaitingOn::Job);
        return in_phase(turn, HandOverPhase::Proving { checkpoint });
    }
    let Some(to) = hand_over.to.clone() else {
        // Nobody can take over: a shutdown goes on and leaves the key to whoever comes.
        turn.memory.given_away = Some(GivenAway { term, reclaim: false });
        let status = Some(last_status(turn, checkpoint));
        turn.act(Action::Start(Job::ReleaseLeadership { term, status }));
        return in_phase(turn, HandOverPhase::Moving { checkpoint });
    };
    // A replayed position beyond the start of the checkpoint record is the end of a whole record at or after it.
    let stopped_at = turn.memory.answers_since.unwrap_or(turn.now);
    let proved = turn.peers.get(&to).is_some_and(|answer| {
        let anew = stopped_at <= answer.asked_at && answer.reachable && answer.in_recovery;
        anew && answer.timeline == Some(control.checkpoint_timeline) && checkpoint < answer.replayed
    });
    let key = turn.cluster().and_then(|cluster| cluster.members.get(&to));
    match (proved, key.and_then(|key| key.lease)) {
        (true, Some(to_lease)) => {
            turn.memory.given_away = Some(GivenAway { term, reclaim: false });
            let status = last_status(turn, checkpoint);
            turn.act(Action::Start(Job::HandOver { term, to, to_lease, status }));
            in_phase(turn, HandOverPhase::Moving { checkpoint })
        }
        (_, _) if hand_over.give_up_at <= turn.now => {
            abort(turn, format!("{to} did not replay the shutdown checkpoint at {checkpoint} in time"))
        }
        (_, _) => {
            if let Some(why) = stalls(turn, &to, checkpoint, stopped_at) {
                return abort(turn, why);
            }
            if let Some(api_url) = key.and_then(|key| key.record.api_url.clone())
                && turn.memory.asked_at.is_none_or(|at| at + ASK_EVERY <= turn.now)
            {
                turn.memory.asked_at = Some(turn.now);
                turn.act(Action::AskPeers { who: vec![(to, api_url)] });
            }
            turn.wake_in(ASK_EVERY, WaitingOn::Members);
            in_phase(turn, HandOverPhase::Proving { checkpoint })
        }
    }
}

/// The status to leave behind: the shutdown checkpoint, with slots as they were last published, so that the next
/// leader keeps the slots of members that are away.
fn last_status(turn: &Turn<'_>, checkpoint: Lsn) -> ClusterStatus {
    let published = turn.memory.status.as_ref().map(|(status, _)| status.clone()).unwrap_or_default();
    // A timeline whose history was not published yet means nothing to the others.
    let mine = turn.seen.postgres.branch().map(|mine| mine.timeline);
    let timeline = published.timeline.filter(|timeline| Some(*timeline) == mine);
    ClusterStatus { optime: Some(checkpoint), timeline, ..published }
}

/// I lead in a term that came after the move was tried: it did not happen.
fn moved(turn: &mut Turn<'_>) -> Reason {
    let why = turn.memory.failures.last.clone();
    abort(turn, why.unwrap_or_else(|| "the leader key could not be moved".to_owned()))
}

/// Gives the hand-over up: the old primary serves again (the table starts it), and the operator is told why.
fn abort(turn: &mut Turn<'_>, why: String) -> Reason {
    if let Some(hand_over) = turn.memory.hand_over.take() {
        match hand_over.cause {
            HandOverCause::Request { mod_revision, .. } => drop(clear(turn, mod_revision)),
            HandOverCause::Shutdown => turn.memory.ending.handed_over_in_vain = true,
        }
    }
    turn.memory.demoted = false;
    turn.memory.hand_over_refused = Some(why.clone());
    turn.wake_in(Duration::ZERO, WaitingOn::Postgres);
    Reason::HandOverRefused { why }
}

/// While a long action of the hand-over runs: it must not outlive the deadline.
pub(super) fn watch_deadline(turn: &mut Turn<'_>) {
    let Some(hand_over) = turn.memory.hand_over.clone() else { return };
    if !matches!(hand_over.phase, HandOverPhase::Checkpoint | HandOverPhase::Checkpointed) {
        return;
    }
    turn.wake_at(hand_over.give_up_at, WaitingOn::Job);
    if hand_over.give_up_at <= turn.now {
        turn.act(Action::CancelJob);
        abort(turn, "the checkpoint before it took too long".to_owned());
    }
}

fn in_phase(turn: &mut Turn<'_>, phase: HandOverPhase) -> Reason {
    let Some(hand_over) = turn.memory.hand_over.as_mut() else { return Reason::Leading };
    hand_over.phase = phase;
    Reason::HandingOver { progress: hand_over.progress() }
}
