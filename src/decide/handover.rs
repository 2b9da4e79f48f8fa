//! The planned hand-over: choose → checkpoint → clean stop → prove → move the key. Until the key is moved it can be
//! aborted, and the old primary serves again in the same term.

use std::time::Duration;

use super::ledgers::GivenAway;
use super::memory::{HandOver, HandOverCause, HandOverPhase};
use super::streaming::{receives, stalls};
use super::turn::Turn;
use super::{eligibility, peers, pod_order};
use crate::model::{
    Action, ClusterStatus, ControlFile, ControlState, FailoverKey, FailoverRequest, HandOverRefusal,
    Ineligible, Job, JobKind, Lsn, MemberName, Moment, Reason, SqlFacts, StopMode, Term, WaitingOn,
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
    let key = turn.cluster()?.failover.clone()?;
    match turn.memory.failover_done.filter(|(done, _)| *done == key.mod_revision) {
        // Dealt with; the view does not show it yet, or clearing it failed.
        Some((_, at)) if turn.now < at + CLEAR_AGAIN_AFTER => None,
        Some(_) => clear(turn, key.mod_revision),
        None => consider_new(turn, term, &key),
    }
}

fn consider_new(turn: &mut Turn<'_>, term: Term, key: &FailoverKey) -> Option<Reason> {
    let FailoverKey { request, mod_revision } = key;
    if request.is_failover() && (*mod_revision < term.0 || request.rebuild) {
        // Asked for before I led, or for a cluster without a leader, and somebody leads now: the winner cleans up.
        return clear(turn, *mod_revision);
    }
    match due(turn, request) {
        Due::Later => None,
        Due::Missed => Some(refuse(turn, *mod_revision, HandOverRefusal::TimeHadPassed)),
        Due::Now => begin_as_asked(turn, request, *mod_revision),
    }
}

/// Whether the time of a request has come.
enum Due {
    Now,
    Later,
    Missed,
}

fn due(turn: &mut Turn<'_>, request: &FailoverRequest) -> Due {
    let Some(at) = request.scheduled_at else { return Due::Now };
    if turn.seen.settings.pause {
        return Due::Later;
    }
    let late_ms = turn.seen.wall.0 - at.0;
    let distance = Duration::from_millis(late_ms.unsigned_abs());
    if late_ms < 0 {
        turn.wake_in(distance, WaitingOn::Schedule);
        return Due::Later;
    }
    if turn.seen.settings.loop_wait.mul_f64(1.5) < distance { Due::Missed } else { Due::Now }
}

fn begin_as_asked(turn: &mut Turn<'_>, request: &FailoverRequest, mod_revision: i64) -> Option<Reason> {
    let me = &turn.seen.me.name;
    let other_leads = request.leader.as_ref().is_some_and(|leader| leader != me);
    if other_leads || request.candidate.as_ref() == Some(me) {
        // Done already: the leader it names does not lead any more, or the candidate leads.
        return clear(turn, mod_revision);
    }
    if request.candidate.is_none() && turn.seen.settings.pause {
        return Some(refuse(turn, mod_revision, HandOverRefusal::NobodyNamedInPause));
    }
    let candidate = request.candidate.clone();
    begin(turn, HandOverCause::Request { mod_revision, candidate });
    None
}

fn clear(turn: &mut Turn<'_>, mod_revision: i64) -> Option<Reason> {
    turn.memory.failover_done = Some((mod_revision, turn.now));
    turn.act(Action::ClearFailover { mod_revision });
    None
}

fn refuse(turn: &mut Turn<'_>, mod_revision: i64, why: HandOverRefusal) -> Reason {
    clear(turn, mod_revision);
    turn.memory.hand_over_refused = Some(why.clone());
    Reason::HandOverRefused(why)
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
        return abort(turn, HandOverRefusal::NotInTime);
    }
    turn.wake_at(hand_over.give_up_at, WaitingOn::Members);
    match hand_over.phase {
        HandOverPhase::Choosing => choose(turn, &hand_over, sql),
        HandOverPhase::Checkpoint | HandOverPhase::Checkpointed => checkpoint(turn, &hand_over, sql, told),
        HandOverPhase::Stopping if turn.just_finished(JobKind::Stop) => {
            abort(turn, HandOverRefusal::DidNotStop)
        }
        HandOverPhase::Stopping => stop(turn, &hand_over),
        HandOverPhase::Proving { .. } | HandOverPhase::Moving { .. } => {
            abort(turn, HandOverRefusal::RunsAgain)
        }
    }
}

/// The candidate is chosen: a checkpoint makes the stop short.
fn checkpoint(turn: &mut Turn<'_>, hand_over: &HandOver, sql: &SqlFacts, told: bool) -> Reason {
    // By a position on a timeline that etcd has not heard of nobody could judge what he lacks (simulation, seed
    // 17927: 105 kB were lost where 100 may be).
    let tell_by = hand_over.since + TELL_WITHIN;
    if !told && turn.now < tell_by {
        turn.wake_at(tell_by, WaitingOn::NextLook);
        return in_phase(turn, hand_over.phase);
    }
    if hand_over.phase == HandOverPhase::Checkpointed || turn.just_finished(JobKind::Checkpoint) {
        return when_writable(turn, hand_over, sql);
    }
    turn.act(Action::Start(Job::Checkpoint));
    in_phase(turn, HandOverPhase::Checkpoint)
}

fn choose(turn: &mut Turn<'_>, hand_over: &HandOver, sql: &SqlFacts) -> Reason {
    let asked = to_be_asked(turn, hand_over.cause.candidate());
    if !peers::ask(turn, &asked) {
        return in_phase(turn, HandOverPhase::Choosing);
    }
    let verdicts: Vec<_> =
        asked.iter().map(|(name, _)| (name, eligibility::to_take_over(turn, name, sql))).collect();
    let fit = verdicts.iter().filter(|(_, unfit)| unfit.is_none()).map(|(name, _)| *name);
    match (fit.max_by_key(|name| rank(turn, &hand_over.cause, name)), &hand_over.cause) {
        (None, HandOverCause::Request { .. }) => {
            let unfit = verdicts.into_iter().filter_map(|(name, unfit)| Some((name.clone(), unfit?)));
            abort(turn, HandOverRefusal::Unfit(unfit.collect()))
        }
        (to, HandOverCause::Request { .. } | HandOverCause::Shutdown) => {
            turn.memory.hand_over = Some(HandOver { to: to.cloned(), ..hand_over.clone() });
            turn.act(Action::Start(Job::Checkpoint));
            in_phase(turn, HandOverPhase::Checkpoint)
        }
    }
}

/// The members that may take over by what they registered, with their addresses.
fn to_be_asked(turn: &Turn<'_>, wanted: Option<&MemberName>) -> Vec<(MemberName, String)> {
    let named = turn.others().filter(|(name, _)| wanted.is_none_or(|wanted| wanted == *name));
    let allowed = named.filter(|(_, key)| !key.record.tags.nofailover());
    allowed.filter_map(|(name, key)| Some((name.clone(), key.record.api_url.clone()?))).collect()
}

/// How good a candidate is; the greater the better. Everybody who is fit will have received the same: few bytes do not
/// outweigh another hand-over.
fn rank(turn: &Turn<'_>, cause: &HandOverCause, name: &MemberName) -> impl Ord + use<> {
    let answer = turn.peers.get(name)?;
    let priority = answer.tags.failover_priority();
    let update = match cause {
        HandOverCause::Shutdown => pod_order::update(&turn.seen.me.name, name),
        HandOverCause::Request { .. } => None,
    };
    Some((update.map(|update| (priority, update)), answer.lsn, priority))
}

/// The last step before the stop: nothing is stopped for a hand-over that etcd will not take. A write since it began
/// proves that it takes some; my own record is one.
fn when_writable(turn: &mut Turn<'_>, hand_over: &HandOver, sql: &SqlFacts) -> Reason {
    if let Some(why) = turn.writes_refused() {
        return abort(turn, HandOverRefusal::WritesRefused { why: why.to_owned() });
    }
    let written = turn.seen.writes.done_at.is_some_and(|at| hand_over.since <= at);
    let write_by = hand_over.since + WRITE_WITHIN;
    if !written && turn.now < write_by {
        turn.wake_at(write_by, WaitingOn::NextLook);
        turn.wake_in(ASK_EVERY, WaitingOn::NextLook);
        return in_phase(turn, HandOverPhase::Checkpointed);
    }
    if !written && matches!(hand_over.cause, HandOverCause::Request { .. }) {
        return abort(turn, HandOverRefusal::NothingWritten);
    }
    stop_if_received(turn, hand_over, sql)
}

/// The last moment to find out that the candidate would not get what is still to be written.
fn stop_if_received(turn: &mut Turn<'_>, hand_over: &HandOver, sql: &SqlFacts) -> Reason {
    match (hand_over.to.clone().filter(|to| !receives(turn, to, sql)), &hand_over.cause) {
        (None, _) => stop(turn, hand_over),
        (Some(to), HandOverCause::Request { .. }) => {
            let why = Ineligible::NotStreaming { from: turn.seen.me.name.clone() };
            abort(turn, HandOverRefusal::Unfit(vec![(to, why)]))
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
    let Some(control) = control else { return await_answer(turn, &hand_over) };
    match hand_over.phase {
        HandOverPhase::Choosing | HandOverPhase::Checkpoint | HandOverPhase::Checkpointed => {
            abort(turn, HandOverRefusal::WentDown)
        }
        HandOverPhase::Stopping => stopped(turn, &hand_over, term, control),
        HandOverPhase::Proving { .. } => prove(turn, &hand_over, term, control),
        HandOverPhase::Moving { .. } => moved(turn),
    }
}

fn await_answer(turn: &mut Turn<'_>, hand_over: &HandOver) -> Reason {
    turn.wake_in(Duration::from_millis(100), WaitingOn::Postgres);
    match hand_over.give_up_at <= turn.now {
        true => abort(turn, HandOverRefusal::Silent),
        false => Reason::HandingOver(hand_over.step()),
    }
}

fn stopped(turn: &mut Turn<'_>, hand_over: &HandOver, term: Term, control: &ControlFile) -> Reason {
    if control.state != ControlState::ShutDown {
        return abort(turn, HandOverRefusal::UncleanStop);
    }
    turn.memory.answers_since = Some(turn.now);
    turn.memory.asked_at = None;
    prove(turn, hand_over, term, control)
}

fn prove(turn: &mut Turn<'_>, hand_over: &HandOver, term: Term, control: &ControlFile) -> Reason {
    let checkpoint = control.checkpoint;
    if turn.seen.writing.is_some() {
        // A write to the key of before, whose answer is late.
        turn.wake_in(ASK_EVERY, WaitingOn::Job);
        return in_phase(turn, HandOverPhase::Proving { checkpoint });
    }
    let status = last_status(turn, checkpoint);
    let Some(to) = hand_over.to.clone() else {
        // Nobody can take over: a shutdown goes on and leaves the key to whoever comes.
        return give_key(turn, Job::ReleaseLeadership { term, status: Some(status) }, term, checkpoint);
    };
    let lease = turn.cluster().and_then(|cluster| cluster.members.get(&to)?.lease);
    match lease.filter(|_| is_proved(turn, &to, control)) {
        Some(to_lease) => give_key(turn, Job::HandOver { term, to, to_lease, status }, term, checkpoint),
        None => await_proof(turn, hand_over, to, checkpoint),
    }
}

fn give_key(turn: &mut Turn<'_>, job: Job, term: Term, checkpoint: Lsn) -> Reason {
    turn.memory.given_away = Some(GivenAway { term, reclaim: false });
    turn.act(Action::Start(job));
    in_phase(turn, HandOverPhase::Moving { checkpoint })
}

/// When PostgreSQL had stopped: what was answered before proves nothing.
fn stopped_at(turn: &Turn<'_>) -> Moment {
    turn.memory.answers_since.unwrap_or(turn.now)
}

/// The candidate holds the shutdown checkpoint. A replayed position beyond the start of its record is the end of a
/// whole record at or after it.
fn is_proved(turn: &Turn<'_>, to: &MemberName, control: &ControlFile) -> bool {
    turn.peers.get(to).is_some_and(|answer| {
        let anew = stopped_at(turn) <= answer.asked_at && answer.reachable && answer.in_recovery;
        anew && answer.timeline == Some(control.checkpoint_timeline) && control.checkpoint < answer.replayed
    })
}

fn await_proof(turn: &mut Turn<'_>, hand_over: &HandOver, to: MemberName, checkpoint: Lsn) -> Reason {
    if hand_over.give_up_at <= turn.now {
        return abort(turn, HandOverRefusal::NotReplayed { to, checkpoint });
    }
    let stopped_at = stopped_at(turn);
    if let Some(why) = stalls(turn, &to, checkpoint, stopped_at) {
        return abort(turn, why);
    }
    let api_url = turn.cluster().and_then(|cluster| cluster.members.get(&to)?.record.api_url.clone());
    if let Some(api_url) = api_url
        && turn.memory.asked_at.is_none_or(|at| at + ASK_EVERY <= turn.now)
    {
        turn.memory.asked_at = Some(turn.now);
        turn.act(Action::AskPeers { who: vec![(to, api_url)] });
    }
    turn.wake_in(ASK_EVERY, WaitingOn::Members);
    in_phase(turn, HandOverPhase::Proving { checkpoint })
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
    let why = HandOverRefusal::NotMoved(turn.memory.failures.last.clone());
    abort(turn, why)
}

/// Gives the hand-over up: the old primary serves again (the table starts it), and the operator is told why.
fn abort(turn: &mut Turn<'_>, why: HandOverRefusal) -> Reason {
    if let Some(hand_over) = turn.memory.hand_over.take() {
        match hand_over.cause {
            HandOverCause::Request { mod_revision, .. } => drop(clear(turn, mod_revision)),
            HandOverCause::Shutdown => turn.memory.ending.handed_over_in_vain = true,
        }
    }
    turn.memory.demoted = false;
    turn.memory.hand_over_refused = Some(why.clone());
    turn.wake_in(Duration::ZERO, WaitingOn::Postgres);
    Reason::HandOverRefused(why)
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
        abort(turn, HandOverRefusal::CheckpointTooSlow);
    }
}

fn in_phase(turn: &mut Turn<'_>, phase: HandOverPhase) -> Reason {
    let Some(hand_over) = turn.memory.hand_over.as_mut() else { return Reason::Leading };
    hand_over.phase = phase;
    Reason::HandingOver(hand_over.step())
}
