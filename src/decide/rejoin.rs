//! Coming back behind another leader: a ladder whose every rung has a count and a reason, never a silent loop.
//!
//! follow → archive ([`super::removed_wal`]) → pg_rewind → clone → stop, say so, and try the last one again.

use std::time::Duration;

use super::attach::{self, Source};
use super::memory::{Asked, Following};
use super::turn::Turn;
use super::{bootstrap, follow, start};
use crate::model::{
    Action, Branch, ControlFile, ControlState, Divergence, FollowTarget, Job, JobKind, LeaderBranch,
    LeaderKey, Lsn, MemberName, Moment, Obstacle, Reason, Timeline, WaitingOn,
};

/// Crash recovery is tried this often before the next rung.
const RECOVERIES_MAX: u32 = 3;
/// So are starts of a standby whose history is the leader's.
const STARTS_MAX: u32 = 10;
/// pg_rewind is tried this often before the next rung.
const REWINDS_MAX: u32 = 3;
/// Clones are tried this often in a row.
pub(super) const CLONES_MAX: u32 = 10;
/// Where there is no next rung the last one is tried again after this: the disk was full, the network gone. What failed
/// has changed nothing, because a directory that pg_rewind left half done is cloned.
const TRY_AGAIN: Duration = Duration::from_secs(30);
/// Behind a leader that tells no history this often in a row a standby is started without a source, for its readers.
const SILENCES_MAX: u32 = 10;
/// A leader that tells nothing is asked again after this.
const SILENT: Duration = Duration::from_millis(500);
/// One that is about to be promoted is asked more often, for as long as a promotion usually takes.
const NOT_YET_READY: Duration = Duration::from_millis(50);
const EAGER_FOR: Duration = Duration::from_secs(3);
/// How often to look again for what the leader is about to publish.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Another member leads and my Postgres is down.
pub(super) fn climb(turn: &mut Turn<'_>, leader: &LeaderKey, control: &ControlFile) -> Reason {
    if follow::is_to_be_cloned(turn, leader) {
        return reinitialize(turn, leader);
    }
    let name = leader.name.clone();
    // Before etcd says which cluster this is, what lies here may be another's.
    let known = turn.cluster().is_some_and(|cluster| cluster.system_id().is_some());
    if !known || !bootstrap::leader_is_primary(turn, &name) {
        turn.wake_in(LOOK_AGAIN, WaitingOn::Leader);
        return Reason::LeaderNotReady { leader: name };
    }
    if let Some(reason) = stuck(turn, &name) {
        return reason;
    }
    // What the leader said before this PostgreSQL went down may lack a timeline that came from it since.
    let since = turn.memory.rejoin.changed_at.unwrap_or_default();
    let Some(branch) = told(turn, leader, since, |_, branch| branch.end.is_none()) else {
        let silent = SILENCES_MAX <= turn.memory.rejoin.silences;
        if silent && !control.is_unfinished_copy() && control.state != ControlState::InProduction {
            return start(turn, leader, None);
        }
        turn.wake_in(LOOK_AGAIN, WaitingOn::Leader);
        return history_untold(turn, leader);
    };
    let source = attach::source(turn, leader, &branch);
    if control.is_unfinished_copy() {
        return finish_copy(turn, leader, source);
    }
    let crashed = start::was_primary(control) && control.state != ControlState::ShutDown;
    if crashed && RECOVERIES_MAX <= turn.memory.rejoin.recovery_failures {
        return clone_or_stop(turn, leader, Obstacle::Recovery);
    }
    if crashed && !turn.memory.rejoin.recovered {
        turn.start(Job::CrashRecovery);
        return Reason::CrashRecoveryFirst;
    }
    match source {
        Source::Parted(timeline, at) => mend(turn, leader, control, (timeline, at)),
        Source::Proved(_) | Source::Unproved | Source::Nobody if STARTS_MAX <= turn.memory.start_failures => {
            clone_or_stop(turn, leader, Obstacle::Start)
        }
        Source::Proved(target) => start(turn, leader, Some(target)),
        // It shows how far it is once it runs, and gets its source then.
        Source::Unproved | Source::Nobody => start(turn, leader, None),
    }
}

/// A base backup, or what pg_rewind left, that was never consistent. With the WAL of a leader that continues its source
/// it becomes so; where that is not certain it may do by itself, and if it does not, nothing can be made of it.
fn finish_copy(turn: &mut Turn<'_>, leader: &LeaderKey, source: Source) -> Reason {
    if STARTS_MAX <= turn.memory.start_failures {
        return clone_or_stop(turn, leader, Obstacle::Start);
    }
    match source {
        Source::Proved(target) => start(turn, leader, Some(target)),
        Source::Unproved | Source::Parted(..) if turn.memory.rejoin.alone_in_vain => {
            clone_or_stop(turn, leader, Obstacle::Clone)
        }
        Source::Unproved | Source::Parted(..) | Source::Nobody => start(turn, leader, None),
    }
}

/// Starts it as a standby, behind what was found right or nobody.
fn start(turn: &mut Turn<'_>, leader: &LeaderKey, follow: Option<FollowTarget>) -> Reason {
    let within = match follow {
        Some(_) => Duration::from_secs(60),
        None => follow::CONSISTENT_WITHIN,
    };
    if follow.is_none() {
        attach::to_nobody(turn);
    }
    turn.start(Job::StartStandby { follow, within });
    Reason::StartingToFollow { leader: leader.name.clone() }
}

/// Throws away what lies here, as an operator asked, or the configuration allows.
pub(super) fn reinitialize(turn: &mut Turn<'_>, leader: &LeaderKey) -> Reason {
    let because = why_cloned_anew(turn, leader);
    clone(turn, leader, because)
}

/// An operator asked for it, or the WAL that is needed here is gone.
pub(super) fn why_cloned_anew(turn: &Turn<'_>, leader: &LeaderKey) -> Reason {
    match turn.memory.reinitialize {
        Some(_) => Reason::Reinitializing,
        None => Reason::Recloning { leader: leader.name.clone() },
    }
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

/// Histories parted: rewind if that is possible, else clone if that is allowed, else stop and say so.
fn mend(turn: &mut Turn<'_>, leader: &LeaderKey, control: &ControlFile, fork: (Timeline, Lsn)) -> Reason {
    let settings = &turn.seen.settings;
    let rewindable = settings.use_pg_rewind && (control.checksums || control.wal_log_hints);
    let name = leader.name.clone();
    if rewindable && turn.memory.rejoin.rewind_failures < REWINDS_MAX {
        let Some(from) = checkpointed(turn, &name) else {
            turn.wake_in(LOOK_AGAIN, WaitingOn::Leader);
            return Reason::AwaitingCheckpoint { leader: name };
        };
        turn.start(Job::Rewind { from, fork });
        return Reason::Diverged { leader: name };
    }
    clone_or_stop(turn, leader, if rewindable { Obstacle::Rewind } else { Obstacle::NoRewind })
}

/// The last rungs: a fresh clone where that is allowed, else stop and say so. What is only the beginning of a clone may
/// always be cloned again.
fn clone_or_stop(turn: &mut Turn<'_>, leader: &LeaderKey, obstacle: Obstacle) -> Reason {
    let (settings, name) = (&turn.seen.settings, leader.name.clone());
    let may_clone = obstacle == Obstacle::Clone
        || settings.remove_data_directory_on_diverged_timelines
        || obstacle == Obstacle::Rewind && settings.remove_data_directory_on_rewind_failure;
    let obstacle = match may_clone {
        true if turn.memory.rejoin.clone_failures < CLONES_MAX => {
            return clone(turn, leader, Reason::Recloning { leader: name });
        }
        true => Obstacle::Clone,
        false => obstacle,
    };
    let not_before = turn.memory.retry_at.get(&JobKind::Clone).copied().unwrap_or_default();
    let until = (turn.now + TRY_AGAIN).max(not_before);
    turn.memory.rejoin.stuck = Some((name.clone(), obstacle, until));
    turn.wake_at(until, WaitingOn::Retry);
    Reason::CannotRejoin { leader: name, obstacle }
}

/// Nothing is left to try behind this leader for a while; after that what failed is tried once more.
fn stuck(turn: &mut Turn<'_>, leader: &MemberName) -> Option<Reason> {
    let (behind, obstacle, until) = turn.memory.rejoin.stuck.clone()?;
    if behind == *leader && turn.now < until {
        turn.wake_at(until, WaitingOn::Retry);
        return Some(Reason::CannotRejoin { leader: behind, obstacle });
    }
    turn.memory.rejoin.stuck = None;
    match obstacle {
        Obstacle::Recovery => turn.memory.rejoin.recovery_failures = RECOVERIES_MAX - 1,
        Obstacle::Start => turn.memory.start_failures = STARTS_MAX - 1,
        Obstacle::Rewind => turn.memory.rejoin.rewind_failures = REWINDS_MAX - 1,
        Obstacle::Clone => turn.memory.rejoin.clone_failures = CLONES_MAX - 1,
        Obstacle::NoRewind => {}
    }
    None
}

fn clone(turn: &mut Turn<'_>, leader: &LeaderKey, because: Reason) -> Reason {
    match bootstrap::clone_source(turn, leader) {
        Some(from) => turn.start(Job::Clone { from }),
        None => {
            turn.wake_in(LOOK_AGAIN, WaitingOn::Leader);
            return Reason::LeaderNotReady { leader: leader.name.clone() };
        }
    }
    because
}

/// The leader as a source for pg_rewind, once its checkpoint after promotion is done: before that its control file
/// still names the old timeline, and pg_rewind would find nothing to do.
fn checkpointed(turn: &Turn<'_>, leader: &MemberName) -> Option<FollowTarget> {
    let record = &turn.cluster()?.members.get(leader)?.record;
    match record.checkpoint_after_promote {
        Some(_) => None,
        None => turn.target(leader),
    }
}

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
fn told(
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
