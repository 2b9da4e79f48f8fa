//! The leader's history: asked for, and how much of what was told counts.

use std::time::Duration;

use super::memory::{Asked, Following};
use super::turn::Turn;
use crate::model::{Action, Branch, Divergence, LeaderBranch, LeaderKey, Moment, Reason};

/// A leader that tells nothing is asked again after this.
const SILENT: Duration = Duration::from_millis(500);
/// One that is about to be promoted is asked more often, for as long as a promotion usually takes.
const NOT_YET_READY: Duration = Duration::from_millis(50);
const EAGER_FOR: Duration = Duration::from_secs(3);

/// The history of a leader that is primary, if it told it lately; asks otherwise.
pub(super) fn leader_branch(turn: &mut Turn<'_>, leader: &LeaderKey) -> Option<Branch> {
    told(turn, leader, Moment::default(), |_, branch| branch.end.is_none())
}

/// The history of a leader that may be promoted yet, once whoever follows it finds its slot there. A standby that shows
/// less than I have may not have replayed it all: it is asked again until it shows more, or is primary.
pub(super) fn branch_to_follow(turn: &mut Turn<'_>, leader: &LeaderKey) -> Option<Branch> {
    let mine = turn.seen.postgres.branch()?;
    let needs_slot = needs_slot(turn, leader);
    let goes_on = |branch: &Branch| branch.end.is_none() || mine.divergence_from(branch) == Divergence::None;
    let since = left_at(turn);
    told(turn, leader, since, |told, branch| (told.has_slot || !needs_slot) && goes_on(branch))
}

/// A standby that streams from the leader needs its slot there; one that streams from another member has it there. A
/// receiver that is refused waits before it tries again; without room for slots it is refused all the same.
fn needs_slot(turn: &Turn<'_>, leader: &LeaderKey) -> bool {
    let from_leader = turn.follow_target(&leader.name).is_some_and(|target| target.name == leader.name);
    from_leader && is_eager(turn, leader)
}

/// What the leader said before it was left may be of another history.
fn left_at(turn: &Turn<'_>) -> Moment {
    match turn.memory.following {
        Some(Following::Nobody { since }) => since,
        Some(Following::Source { .. }) | None => Moment::default(),
    }
}

/// What the leader told lately, in this term, and not before `since`, if it will do; asks otherwise.
pub(super) fn told(
    turn: &mut Turn<'_>,
    leader: &LeaderKey,
    since: Moment,
    will_do: impl Fn(&LeaderBranch, &Branch) -> bool,
) -> Option<Branch> {
    let led_since = turn.memory.led_since.filter(|(term, _)| *term == leader.term);
    let since = since.max(led_since.map_or(turn.now, |(_, since)| since));
    let told = turn.seen.leader_branch.as_ref();
    let told = told.filter(|told| told.name == leader.name && counts(turn, since, told.asked_at));
    if let Some(told) = told
        && let Ok(branch) = &told.answer
        && will_do(told, branch)
    {
        turn.memory.rejoin.silences = 0;
        return Some(branch.clone());
    }
    if !waits(turn, leader, since, told) {
        ask(turn, leader, told);
    }
    None
}

/// True for an answer of now, and not before `since`.
fn counts(turn: &Turn<'_>, since: Moment, asked_at: Moment) -> bool {
    turn.is_recent(asked_at) && since <= asked_at
}

/// The question that this leader was last asked.
fn asked<'a>(turn: &'a Turn<'_>, leader: &LeaderKey) -> Option<&'a Asked> {
    turn.memory.rejoin.asked.as_ref().filter(|asked| asked.leader == leader.name)
}

/// One question at a time, and none soon after an answer that will not do.
fn waits(turn: &Turn<'_>, leader: &LeaderKey, since: Moment, told: Option<&LeaderBranch>) -> bool {
    let Some(asked) = asked(turn, leader) else { return false };
    let answered = told.is_some_and(|told| asked.at <= told.asked_at);
    let pause = told.map(|told| match told.answer {
        Ok(_) => ask_again_in(turn, leader),
        Err(_) => SILENT,
    });
    let under_way = counts(turn, since, asked.at) && !answered;
    under_way || pause.is_some_and(|pause| turn.now < asked.at + pause)
}

fn ask(turn: &mut Turn<'_>, leader: &LeaderKey, told: Option<&LeaderBranch>) {
    let begun = asked(turn, leader).map(|asked| asked.since);
    let refused = told.is_some_and(|told| told.answer.is_err());
    let silences = turn.memory.rejoin.silences.saturating_add(refused.into());
    turn.memory.rejoin.silences = begun.map_or(0, |_| silences);
    if let Some(from) = turn.target(&leader.name) {
        let since = begun.unwrap_or(turn.now);
        turn.memory.rejoin.asked = Some(Asked { leader: leader.name.clone(), since, at: turn.now });
        turn.act(Action::AskLeaderBranch { from });
    }
}

/// How soon to look again for the leader's history.
pub(super) fn ask_again_in(turn: &Turn<'_>, leader: &LeaderKey) -> Duration {
    if is_eager(turn, leader) { NOT_YET_READY } else { SILENT }
}

/// The leader has not been asked for long.
fn is_eager(turn: &Turn<'_>, leader: &LeaderKey) -> bool {
    asked(turn, leader).is_none_or(|asked| turn.now < asked.since + EAGER_FOR)
}

/// Why the leader's history is not known: it is being asked, or does not answer.
pub(super) fn history_untold(turn: &Turn<'_>, leader: &LeaderKey) -> Reason {
    let told = turn.seen.leader_branch.as_ref().filter(|told| told.name == leader.name);
    let leader = leader.name.clone();
    match told.map(|told| &told.answer) {
        Some(Err(why)) => Reason::HistoryUntold { leader, why: why.clone() },
        Some(Ok(_)) | None => Reason::AskingHistory { leader },
    }
}
