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
    // Who streams from another member has its slot there.
    let needs_slot = turn.follow_target(&leader.name).is_some_and(|target| target.name == leader.name);
    // A receiver that is refused waits before it tries again; without room for slots it is refused all the same.
    let asked = turn.memory.rejoin.asked.as_ref().filter(|asked| asked.leader == leader.name);
    let needs_slot = needs_slot && asked.is_none_or(|asked| turn.now < asked.since + EAGER_FOR);
    let goes_on = |branch: &Branch| branch.end.is_none() || mine.divergence_from(branch) == Divergence::None;
    // What it said before it was left may be of another history.
    let since = match turn.memory.following {
        Some(Following::Nobody { since }) => since,
        Some(Following::Source { .. }) | None => Moment::default(),
    };
    told(turn, leader, since, |told, branch| (told.has_slot || !needs_slot) && goes_on(branch))
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
    let counts = |asked_at: Moment| turn.is_recent(asked_at) && since <= asked_at;
    let told = turn.seen.leader_branch.as_ref();
    let told = told.filter(|told| told.name == leader.name && counts(told.asked_at));
    let asked = turn.memory.rejoin.asked.clone().filter(|asked| asked.leader == leader.name);
    let begun = asked.as_ref().map_or(turn.now, |asked| asked.since);
    let last_asked = asked.as_ref().map(|asked| asked.at);
    let asked_within = |within: Duration| last_asked.is_some_and(|at| turn.now < at + within);
    let answered = |at: Moment| told.is_some_and(|told| at <= told.asked_at);
    let not_yet_ready = if turn.now < begun + EAGER_FOR { NOT_YET_READY } else { SILENT };
    match told.map(|told| (told, &told.answer)) {
        Some((told, Ok(branch))) if will_do(told, branch) => {
            turn.memory.rejoin.silences = 0;
            return Some(branch.clone());
        }
        // One question at a time.
        _ if last_asked.is_some_and(|at| counts(at) && !answered(at)) => return None,
        Some((_, Ok(_))) if asked_within(not_yet_ready) => return None,
        Some((_, Err(_))) if asked_within(SILENT) => return None,
        Some((_, Err(_))) => turn.memory.rejoin.silences = turn.memory.rejoin.silences.saturating_add(1),
        Some((_, Ok(_))) | None => {}
    }
    if asked.is_none() {
        turn.memory.rejoin.silences = 0;
    }
    if let Some(from) = turn.target(&leader.name) {
        turn.memory.rejoin.asked = Some(Asked { leader: leader.name.clone(), since: begun, at: turn.now });
        turn.act(Action::AskLeaderBranch { from });
    }
    None
}

/// How soon to look again for the leader's history.
pub(super) fn ask_again_in(turn: &Turn<'_>, leader: &LeaderKey) -> Duration {
    let asked = turn.memory.rejoin.asked.as_ref().filter(|asked| asked.leader == leader.name);
    match asked.is_none_or(|asked| turn.now < asked.since + EAGER_FOR) {
        true => NOT_YET_READY,
        false => SILENT,
    }
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
