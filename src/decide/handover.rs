//! The planned hand-over: choose a candidate → checkpoint → clean stop → check the candidate's WAL → move the key.
//! Until the key is moved the hand-over can be aborted; then the old primary serves again in the same term.

use std::time::Duration;

use super::ledgers::ReleasedTerm;
use super::memory::{HandOver, HandOverCause, HandOverPhase};
use super::streaming::{receives, stalls};
use super::tick::Tick;
use super::{eligibility, peers, pod_order};
use crate::model::{
    Action, ClusterStatus, ControlFile, ControlState, FailoverKey, FailoverRequest, HandOverRefusal,
    Ineligible, Job, JobKind, Lsn, MemberName, Moment, Process, Reason, SqlFacts, StopMode, Term, WaitingOn,
};

/// How often the candidate is asked while it catches up: clients cannot write meanwhile.
pub(super) const ASK_EVERY: Duration = Duration::from_millis(15);

/// How long a new leader waits until etcd has its timeline before it hands over.
const TELL_WITHIN: Duration = Duration::from_secs(2);

/// How long etcd may take to prove that it accepts writes before the hand-over goes on.
const WRITE_WITHIN: Duration = Duration::from_secs(3);

/// A request that was handled and still exists is cleared again after this.
const CLEAR_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Reads the key `failover` while I serve, and begins the hand-over or clears the key.
pub(super) fn consider(tick: &mut Tick<'_>, term: Term) -> Option<Reason> {
    let key = tick.cluster()?.failover.clone()?;
    match tick.memory.failover_done.filter(|(done, _)| *done == key.mod_revision) {
        // Already handled: the view does not show the change yet, or clearing failed.
        Some((_, at)) if tick.now < at + CLEAR_AGAIN_AFTER => None,
        Some(_) => clear(tick, key.mod_revision),
        None => consider_new(tick, term, &key),
    }
}

fn consider_new(tick: &mut Tick<'_>, term: Term, key: &FailoverKey) -> Option<Reason> {
    let FailoverKey { request, mod_revision } = key;
    if request.is_failover() && (*mod_revision < term.0 || request.rebuild) {
        // The request is older than my term, or was for a cluster without a leader, which has one now: the winner
        // clears it.
        return clear(tick, *mod_revision);
    }
    match due(tick, request) {
        Due::Later => None,
        Due::Missed => Some(refuse(tick, *mod_revision, HandOverRefusal::TimeHadPassed)),
        Due::Now => begin_as_asked(tick, request, *mod_revision),
    }
}

/// Whether the time of a request has come.
enum Due {
    Now,
    Later,
    Missed,
}

fn due(tick: &mut Tick<'_>, request: &FailoverRequest) -> Due {
    let Some(at) = request.scheduled_at else { return Due::Now };
    if tick.seen.settings.pause {
        return Due::Later;
    }
    let late_ms = tick.seen.wall.0 - at.0;
    let distance = Duration::from_millis(late_ms.unsigned_abs());
    if late_ms < 0 {
        tick.wake_in(distance, WaitingOn::Schedule);
        return Due::Later;
    }
    if tick.seen.settings.loop_wait.mul_f64(1.5) < distance { Due::Missed } else { Due::Now }
}

fn begin_as_asked(tick: &mut Tick<'_>, request: &FailoverRequest, mod_revision: i64) -> Option<Reason> {
    let me = &tick.seen.me.name;
    let other_leads = request.leader.as_ref().is_some_and(|leader| leader != me);
    if other_leads || request.candidate.as_ref() == Some(me) {
        // Already done: the leader that it names no longer leads, or the candidate leads.
        return clear(tick, mod_revision);
    }
    if request.candidate.is_none() && tick.seen.settings.pause {
        return Some(refuse(tick, mod_revision, HandOverRefusal::NobodyNamedInPause));
    }
    let candidate = request.candidate.clone();
    let is_failover = request.is_failover();
    begin(tick, HandOverCause::Request { mod_revision, candidate, is_failover });
    None
}

/// An operator has asked for me as the leader, at once.
pub(super) fn is_candidate(tick: &Tick<'_>) -> bool {
    let request = tick.cluster().and_then(|cluster| cluster.failover.as_ref()).map(|key| &key.request);
    let request = request.filter(|request| request.scheduled_at.is_none());
    request.is_some_and(|request| request.candidate.as_ref() == Some(&tick.seen.me.name))
}

fn clear(tick: &mut Tick<'_>, mod_revision: i64) -> Option<Reason> {
    tick.memory.failover_done = Some((mod_revision, tick.now));
    tick.act(Action::ClearFailover { mod_revision });
    None
}

fn refuse(tick: &mut Tick<'_>, mod_revision: i64, why: HandOverRefusal) -> Reason {
    clear(tick, mod_revision);
    tick.memory.hand_over_refused = Some(why.clone());
    Reason::HandOverRefused(why)
}

/// Begins a hand-over.
pub(super) fn begin(tick: &mut Tick<'_>, cause: HandOverCause) {
    let give_up_at = tick.now + tick.seen.settings.primary_stop_timeout;
    tick.memory.hand_over_refused = None;
    tick.memory.answers_since = Some(tick.now);
    tick.memory.asked_at = None;
    // My record is written anew: the result shows whether etcd accepts writes.
    tick.memory.published = None;
    tick.memory.hand_over = Some(HandOver {
        cause,
        to: None,
        phase: HandOverPhase::Choosing,
        since: tick.now,
        give_up_at,
        reached: None,
    });
}

/// Takes the next step while I serve. `told`: etcd has my timeline.
pub(super) fn while_serving(tick: &mut Tick<'_>, sql: &SqlFacts, told: bool) -> Reason {
    let Some(hand_over) = tick.memory.hand_over.clone() else { return Reason::Leading };
    if hand_over.give_up_at <= tick.now {
        return abort(tick, HandOverRefusal::NotInTime);
    }
    tick.wake_at(hand_over.give_up_at, WaitingOn::Members);
    match hand_over.phase {
        HandOverPhase::Choosing => choose(tick, &hand_over, sql),
        HandOverPhase::Checkpoint | HandOverPhase::Checkpointed => checkpoint(tick, &hand_over, sql, told),
        HandOverPhase::Stopping if tick.just_finished(JobKind::Stop) => {
            abort(tick, HandOverRefusal::DidNotStop)
        }
        HandOverPhase::Stopping => stop(tick, &hand_over),
        HandOverPhase::Proving { .. } | HandOverPhase::Moving { .. } => {
            abort(tick, HandOverRefusal::RunsAgain)
        }
    }
}

/// The candidate is chosen. A checkpoint makes the stop short.
fn checkpoint(tick: &mut Tick<'_>, hand_over: &HandOver, sql: &SqlFacts, told: bool) -> Reason {
    // While etcd does not have my timeline, no member could tell from a position how much WAL the candidate lacks
    // (simulation, seed 17927: 105 kB were lost, 100 kB are allowed).
    let tell_by = hand_over.since + TELL_WITHIN;
    if !told && tick.now < tell_by {
        tick.wake_at(tell_by, WaitingOn::NextLook);
        return in_phase(tick, hand_over.phase);
    }
    if hand_over.phase == HandOverPhase::Checkpointed || tick.just_finished(JobKind::Checkpoint) {
        return when_writable(tick, hand_over, sql);
    }
    tick.act(Action::Start(Job::Checkpoint));
    in_phase(tick, HandOverPhase::Checkpoint)
}

fn choose(tick: &mut Tick<'_>, hand_over: &HandOver, sql: &SqlFacts) -> Reason {
    match choice(tick, hand_over, sql) {
        Choice::NotMade(reason) => reason,
        Choice::Made(to) => {
            tick.memory.hand_over = Some(HandOver { to, ..hand_over.clone() });
            tick.act(Action::Start(Job::Checkpoint));
            in_phase(tick, HandOverPhase::Checkpoint)
        }
    }
}

/// The choice of the next leader.
pub(super) enum Choice {
    /// A shutdown may do without one.
    Made(Option<MemberName>),
    /// Why it is not made yet, or never.
    NotMade(Reason),
}

/// Chooses the next leader by the answers of the members.
pub(super) fn choice(tick: &mut Tick<'_>, hand_over: &HandOver, sql: &SqlFacts) -> Choice {
    let asked = to_be_asked(tick, hand_over.cause.candidate());
    if !peers::ask(tick, &asked) {
        return Choice::NotMade(in_phase(tick, HandOverPhase::Choosing));
    }
    let any = hand_over.cause.accepts_asynchronous();
    let unfit = |name| eligibility::to_take_over(tick, (name, tick.peers.get(name)?), sql, any);
    let verdicts: Vec<_> = asked.iter().map(|(name, _)| (name, unfit(name))).collect();
    let fit = verdicts.iter().filter(|(_, unfit)| unfit.is_none()).map(|(name, _)| *name);
    match (fit.max_by_key(|name| rank(tick, &hand_over.cause, name)), &hand_over.cause) {
        (None, HandOverCause::Request { .. }) => {
            let unfit = verdicts.into_iter().filter_map(|(name, unfit)| Some((name.clone(), unfit?)));
            Choice::NotMade(abort(tick, HandOverRefusal::Unfit(unfit.collect())))
        }
        (to, HandOverCause::Request { .. } | HandOverCause::Shutdown) => Choice::Made(to.cloned()),
    }
}

/// The members that may take over by their records, with their addresses.
fn to_be_asked(tick: &Tick<'_>, wanted: Option<&MemberName>) -> Vec<(MemberName, String)> {
    let named = tick.others().filter(|(name, _)| wanted.is_none_or(|wanted| wanted == *name));
    let allowed = named.filter(|(_, key)| !key.record.tags.nofailover());
    allowed.filter_map(|(name, key)| Some((name.clone(), key.record.api_url.clone()?))).collect()
}

/// The rank of a candidate; the greater the better. All eligible candidates will have received the same WAL, so a few
/// bytes do not outweigh a second hand-over.
fn rank(tick: &Tick<'_>, cause: &HandOverCause, name: &MemberName) -> impl Ord + use<> {
    let answer = tick.peers.get(name)?;
    let priority = answer.tags.failover_priority();
    let update = match cause {
        HandOverCause::Shutdown => pod_order::update(&tick.seen.me.name, name),
        HandOverCause::Request { .. } => None,
    };
    Some((update.map(|update| (priority, update)), answer.lsn, priority))
}

/// The last step before the stop. Postgres is not stopped for a hand-over that etcd would refuse. A write that
/// succeeded since the hand-over began proves that etcd accepts writes; my own record is one.
fn when_writable(tick: &mut Tick<'_>, hand_over: &HandOver, sql: &SqlFacts) -> Reason {
    if let Some(why) = tick.writes_refused() {
        return abort(tick, HandOverRefusal::WritesRefused { why: why.to_owned() });
    }
    let written = tick.seen.writes.done_at.is_some_and(|at| hand_over.since <= at);
    let write_by = hand_over.since + WRITE_WITHIN;
    if !written && tick.now < write_by {
        tick.wake_at(write_by, WaitingOn::NextLook);
        tick.wake_in(ASK_EVERY, WaitingOn::NextLook);
        return in_phase(tick, HandOverPhase::Checkpointed);
    }
    if !written && matches!(hand_over.cause, HandOverCause::Request { .. }) {
        return abort(tick, HandOverRefusal::NothingWritten);
    }
    stop_if_received(tick, hand_over, sql)
}

/// The last check that the candidate would receive the WAL that is still to be written.
fn stop_if_received(tick: &mut Tick<'_>, hand_over: &HandOver, sql: &SqlFacts) -> Reason {
    match (hand_over.to.clone().filter(|to| !receives(tick, to, tick.peers.get(to), sql)), &hand_over.cause) {
        (None, _) => stop(tick, hand_over),
        (Some(to), HandOverCause::Request { .. }) => {
            let why = Ineligible::NotStreaming { from: tick.seen.me.name.clone() };
            abort(tick, HandOverRefusal::Unfit(vec![(to, why)]))
        }
        (Some(_), HandOverCause::Shutdown) => {
            let without = HandOver { to: None, ..hand_over.clone() };
            tick.memory.hand_over = Some(without.clone());
            stop(tick, &without)
        }
    }
}

fn stop(tick: &mut Tick<'_>, hand_over: &HandOver) -> Reason {
    let (now, all) = (tick.now, tick.seen.settings.primary_stop_timeout);
    let stop_by = tick.memory.hand_over.as_mut().map_or(hand_over.give_up_at, |it| it.stop_by(now, all));
    let within = now.until(stop_by).max(Duration::from_secs(1));
    tick.memory.demoted = true;
    tick.act(Action::Start(Job::Stop { mode: StopMode::Fast, within }));
    in_phase(tick, HandOverPhase::Stopping)
}

/// Takes the next step while my Postgres is down (`control` given) or does not answer.
pub(super) fn advance(tick: &mut Tick<'_>, term: Term, control: Option<&ControlFile>) -> Reason {
    let Some(hand_over) = tick.memory.hand_over.clone() else { return Reason::Leading };
    let Some(control) = control else { return await_answer(tick, &hand_over) };
    match hand_over.phase {
        HandOverPhase::Choosing | HandOverPhase::Checkpoint | HandOverPhase::Checkpointed => {
            abort(tick, HandOverRefusal::WentDown)
        }
        HandOverPhase::Stopping => stopped(tick, &hand_over, term, control),
        HandOverPhase::Proving { .. } => prove(tick, &hand_over, term, control),
        HandOverPhase::Moving { .. } => moved(tick),
    }
}

fn await_answer(tick: &mut Tick<'_>, hand_over: &HandOver) -> Reason {
    tick.wake_in(Duration::from_millis(100), WaitingOn::Postgres);
    match hand_over.give_up_at <= tick.now {
        true => abort(tick, HandOverRefusal::Silent),
        false => Reason::HandingOver(hand_over.step()),
    }
}

fn stopped(tick: &mut Tick<'_>, hand_over: &HandOver, term: Term, control: &ControlFile) -> Reason {
    if control.state != ControlState::ShutDown {
        return abort(tick, HandOverRefusal::UncleanStop);
    }
    tick.memory.answers_since = Some(tick.now);
    tick.memory.asked_at = None;
    prove(tick, hand_over, term, control)
}

fn prove(tick: &mut Tick<'_>, hand_over: &HandOver, term: Term, control: &ControlFile) -> Reason {
    let checkpoint = control.checkpoint;
    if tick.seen.writing.is_some() {
        // An earlier write to the leader key is still under way.
        tick.wake_in(ASK_EVERY, WaitingOn::Job);
        return in_phase(tick, HandOverPhase::Proving { checkpoint });
    }
    let status = last_status(tick, checkpoint);
    let Some(to) = hand_over.to.clone() else {
        // No member can take over: a shutdown continues and leaves the key free.
        return give_key_away(tick, Job::ReleaseLeadership { term, status: Some(status) }, term, checkpoint);
    };
    let lease = tick.cluster().and_then(|cluster| cluster.members.get(&to)?.lease);
    match lease.filter(|_| is_proved(tick, &to, control)) {
        Some(to_lease) => give_key_away(tick, Job::HandOver { term, to, to_lease, status }, term, checkpoint),
        None => await_proof(tick, hand_over, to, checkpoint),
    }
}

pub(super) fn give_key_away(tick: &mut Tick<'_>, job: Job, term: Term, checkpoint: Lsn) -> Reason {
    tick.memory.released_term = Some(ReleasedTerm { term, reclaim: false });
    tick.act(Action::Start(job));
    in_phase(tick, HandOverPhase::Moving { checkpoint })
}

/// When PostgreSQL stopped: earlier answers prove nothing.
fn stopped_at(tick: &Tick<'_>) -> Moment {
    tick.memory.answers_since.unwrap_or(tick.now)
}

/// Whether the candidate has the shutdown checkpoint. A replayed position beyond the start of that record is the end of
/// a whole record at or after it.
fn is_proved(tick: &Tick<'_>, to: &MemberName, control: &ControlFile) -> bool {
    tick.peers.get(to).is_some_and(|answer| {
        let anew = stopped_at(tick) <= answer.asked_at && answer.reachable && answer.in_recovery;
        anew && answer.timeline == Some(control.checkpoint_timeline) && control.checkpoint < answer.replayed
    })
}

fn await_proof(tick: &mut Tick<'_>, hand_over: &HandOver, to: MemberName, checkpoint: Lsn) -> Reason {
    if hand_over.give_up_at <= tick.now {
        return abort(tick, HandOverRefusal::NotReplayed { to, checkpoint });
    }
    let stopped_at = stopped_at(tick);
    if let Some(why) = stalls(tick, &to, checkpoint, stopped_at) {
        return abort(tick, why);
    }
    let api_url = tick.cluster().and_then(|cluster| cluster.members.get(&to)?.record.api_url.clone());
    if let Some(api_url) = api_url
        && tick.memory.asked_at.is_none_or(|at| at + ASK_EVERY <= tick.now)
    {
        tick.memory.asked_at = Some(tick.now);
        tick.act(Action::AskPeers { who: vec![(to, api_url)] });
    }
    tick.wake_in(ASK_EVERY, WaitingOn::Members);
    in_phase(tick, HandOverPhase::Proving { checkpoint })
}

/// The last status: the shutdown checkpoint, with the slots as published before, so that the next leader keeps the
/// slots of members that are away.
fn last_status(tick: &Tick<'_>, checkpoint: Lsn) -> ClusterStatus {
    let published = tick.memory.status.as_ref().map(|(status, _)| status.clone()).unwrap_or_default();
    // The other members cannot use a timeline whose history is not published yet.
    let mine = tick.seen.postgres.branch().map(|mine| mine.timeline);
    let timeline = published.timeline.filter(|timeline| Some(*timeline) == mine);
    ClusterStatus { optime: Some(checkpoint), timeline, ..published }
}

/// I lead in a term after the attempt to move the key: the move did not happen.
pub(super) fn moved(tick: &mut Tick<'_>) -> Reason {
    let why = HandOverRefusal::NotMoved(tick.memory.failures.last.clone());
    abort(tick, why)
}

/// Aborts the hand-over: the old primary serves again (the table starts it), and the operator sees the reason.
pub(super) fn abort(tick: &mut Tick<'_>, why: HandOverRefusal) -> Reason {
    if let Some(hand_over) = tick.memory.hand_over.take() {
        match hand_over.cause {
            HandOverCause::Request { mod_revision, .. } => drop(clear(tick, mod_revision)),
            HandOverCause::Shutdown => tick.memory.ending.failed_hand_over = true,
        }
    }
    tick.memory.demoted &= matches!(tick.seen.postgres.process, Process::Down { .. });
    tick.memory.hand_over_refused = Some(why.clone());
    tick.wake_in(Duration::ZERO, WaitingOn::Postgres);
    Reason::HandOverRefused(why)
}

/// Limits a long action of the hand-over by its deadline.
pub(super) fn watch_deadline(tick: &mut Tick<'_>) {
    let Some(hand_over) = tick.memory.hand_over.clone() else { return };
    if !matches!(hand_over.phase, HandOverPhase::Checkpoint | HandOverPhase::Checkpointed) {
        return;
    }
    tick.wake_at(hand_over.give_up_at, WaitingOn::Job);
    if hand_over.give_up_at <= tick.now {
        tick.act(Action::CancelJob);
        abort(tick, HandOverRefusal::CheckpointTooSlow);
    }
}

pub(super) fn in_phase(tick: &mut Tick<'_>, phase: HandOverPhase) -> Reason {
    let Some(hand_over) = tick.memory.hand_over.as_mut() else { return Reason::Leading };
    hand_over.phase = phase;
    Reason::HandingOver(hand_over.step())
}
