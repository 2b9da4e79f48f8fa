//! The leader's history: asked for, and how much of what was told counts.

use std::time::Duration;

use super::memory::{Asked, Following};
use super::tick::{PROMISED_TERM, Tick};
use crate::model::{Action, Branch, Divergence, LeaderBranch, LeaderKey, Moment, Reason};

/// A leader that tells nothing is asked again after this.
const SILENT: Duration = Duration::from_millis(500);
/// One that is about to be promoted is asked more often, for as long as a promotion usually takes.
const NOT_YET_READY: Duration = Duration::from_millis(50);
const EAGER_FOR: Duration = Duration::from_secs(3);

/// After this many unanswered questions in a row about a leader's history a standby does without.
const SILENCES_MAX: u32 = 10;

/// Whether the questions about the leader's history go unanswered.
pub(super) fn is_untold(tick: &Tick<'_>) -> bool {
    SILENCES_MAX <= tick.memory.rejoin.silences
}

/// The history of a leader that is primary, if it told it lately; asks otherwise.
pub(super) fn leader_branch(tick: &mut Tick<'_>, leader: &LeaderKey) -> Option<Branch> {
    leader_branch_since(tick, leader, Moment::default())
}

/// The same, told not before `since`. In a standby cluster no leader need be a primary.
pub(super) fn leader_branch_since(tick: &mut Tick<'_>, leader: &LeaderKey, since: Moment) -> Option<Branch> {
    let in_standby_cluster = tick.in_standby_cluster();
    told(tick, leader, since, |_, branch| in_standby_cluster || branch.end.is_none())
}

/// The history of a leader that may be promoted yet, once whoever follows it finds its slot there. A standby that shows
/// less than I have may not have replayed it all: it is asked again until it shows more, or is primary.
pub(super) fn branch_to_follow(tick: &mut Tick<'_>, leader: &LeaderKey) -> Option<Branch> {
    let mine = tick.seen.postgres.branch()?;
    let needs_slot = needs_slot(tick, leader);
    let in_standby_cluster = tick.in_standby_cluster();
    let will_do =
        |branch: &Branch| shows_all_of(&mine, branch) || (in_standby_cluster && parts(&mine, branch));
    let since = left_at(tick);
    told(tick, leader, since, |told, branch| (told.has_slot || !needs_slot) && will_do(branch))
}

fn shows_all_of(mine: &Branch, theirs: &Branch) -> bool {
    theirs.end.is_none() || mine.divergence_from(theirs) == Divergence::None
}

/// Whether a leader that is behind me left my history, so that it will never show all of it.
fn parts(mine: &Branch, theirs: &Branch) -> bool {
    mine.divergence_from(&theirs.open()) != Divergence::None
}

/// A standby that streams from the leader needs its slot there; one that streams from another member has it there. A
/// receiver that is refused waits before it tries again; without room for slots it is refused all the same.
fn needs_slot(tick: &Tick<'_>, leader: &LeaderKey) -> bool {
    let from_leader = tick.follow_target(&leader.name).is_some_and(|target| target.name == leader.name);
    from_leader && is_eager(tick, leader)
}

/// What the leader said before it was left may be of another history.
pub(super) fn left_at(tick: &Tick<'_>) -> Moment {
    match tick.memory.following {
        Some(Following::Nobody { since }) => since,
        Some(Following::Source { .. }) | None => Moment::default(),
    }
}

/// What the leader told lately, in this term, and not before `since`, if it will do; asks otherwise.
pub(super) fn told(
    tick: &mut Tick<'_>,
    leader: &LeaderKey,
    since: Moment,
    will_do: impl Fn(&LeaderBranch, &Branch) -> bool,
) -> Option<Branch> {
    let since = since.max(led_since(tick, leader));
    let told = tick.seen.leader_branch.as_ref();
    let told = told.filter(|told| told.name == leader.name && counts(tick, since, told.asked_at));
    if let Some(told) = told
        && let Ok(branch) = &told.answer
        && will_do(told, branch)
    {
        tick.memory.rejoin.silences = 0;
        return Some(branch.clone());
    }
    if !waits(tick, leader, since, told) {
        ask(tick, leader, told);
    }
    None
}

/// Since when it leads. The remote primary of a standby cluster leads elsewhere, and a term that goes on by promises
/// began long ago.
fn led_since(tick: &Tick<'_>, leader: &LeaderKey) -> Moment {
    if tick.is_remote(&leader.name) || leader.term == PROMISED_TERM {
        return Moment::default();
    }
    let led_since = tick.memory.led_since.filter(|(term, _)| *term == leader.term);
    led_since.map_or(tick.now, |(_, since)| since)
}

/// True for an answer of now, and not before `since`.
fn counts(tick: &Tick<'_>, since: Moment, asked_at: Moment) -> bool {
    tick.is_recent(asked_at) && since <= asked_at
}

/// The question that this leader was last asked.
fn asked<'a>(tick: &'a Tick<'_>, leader: &LeaderKey) -> Option<&'a Asked> {
    tick.memory.rejoin.asked.as_ref().filter(|asked| asked.leader == leader.name)
}

/// One question at a time, and none soon after an answer that will not do.
fn waits(tick: &Tick<'_>, leader: &LeaderKey, since: Moment, told: Option<&LeaderBranch>) -> bool {
    let Some(asked) = asked(tick, leader) else { return false };
    let answered = told.is_some_and(|told| asked.at <= told.asked_at);
    let pause = told.map(|told| match told.answer {
        Ok(_) => ask_again_in(tick, leader),
        Err(_) => SILENT,
    });
    let under_way = counts(tick, since, asked.at) && !answered;
    under_way || pause.is_some_and(|pause| tick.now < asked.at + pause)
}

fn ask(tick: &mut Tick<'_>, leader: &LeaderKey, told: Option<&LeaderBranch>) {
    let begun = asked(tick, leader).map(|asked| asked.since);
    let refused = told.is_some_and(|told| told.answer.is_err());
    let silences = tick.memory.rejoin.silences.saturating_add(refused.into());
    tick.memory.rejoin.silences = begun.map_or(0, |_| silences);
    if let Some(from) = tick.target(&leader.name) {
        let since = begun.unwrap_or(tick.now);
        tick.memory.rejoin.asked = Some(Asked { leader: leader.name.clone(), since, at: tick.now });
        tick.act(Action::AskLeaderBranch { from });
    }
}

/// How soon to look again for the leader's history.
pub(super) fn ask_again_in(tick: &Tick<'_>, leader: &LeaderKey) -> Duration {
    if is_eager(tick, leader) { NOT_YET_READY } else { SILENT }
}

/// The leader has not been asked for long.
fn is_eager(tick: &Tick<'_>, leader: &LeaderKey) -> bool {
    asked(tick, leader).is_none_or(|asked| tick.now < asked.since + EAGER_FOR)
}

/// Why the leader's history is not known: it is being asked, or does not answer.
pub(super) fn history_unanswered(tick: &Tick<'_>, leader: &LeaderKey) -> Reason {
    let told = tick.seen.leader_branch.as_ref().filter(|told| told.name == leader.name);
    let leader = leader.name.clone();
    match told.map(|told| &told.answer) {
        Some(Err(why)) => Reason::HistoryUntold { leader, why: why.clone() },
        Some(Ok(_)) | None => Reason::AskingHistory { leader },
    }
}
