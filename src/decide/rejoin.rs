//! Coming back behind another leader: a ladder whose every rung has a count and a reason, never a silent loop.
//!
//! follow → pg_rewind → clone → stop, say so, and try the last one again.

use std::time::Duration;

use super::memory::Asked;
use super::turn::Turn;
use super::{bootstrap, start};
use crate::model::{
    Action, Branch, ControlFile, ControlState, Divergence, FollowTarget, Job, JobKind, LeaderBranch,
    LeaderKey, Lsn, MemberName, Moment, Obstacle, Reason, SyncMode, Timeline, WaitingOn,
};

/// Crash recovery is tried this often before the next rung.
const RECOVERIES_MAX: u32 = 3;
/// So are starts of a standby whose history is the leader's.
const STARTS_MAX: u32 = 10;
/// pg_rewind is tried this often before the next rung.
const REWINDS_MAX: u32 = 3;
/// Clones are tried this often in a row.
const CLONES_MAX: u32 = 10;
/// Where there is no next rung the last one is tried again after this: the disk was full, the network gone. What failed
/// has changed nothing, because a directory that pg_rewind left half done is cloned.
const TRY_AGAIN: Duration = Duration::from_secs(30);
/// A leader that tells no history this often in a row is followed without: Postgres itself refuses a fork.
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
    if turn.memory.reinitialize.is_some() {
        return clone(turn, leader, Reason::Reinitializing);
    }
    let name = leader.name.clone();
    if !bootstrap::leader_is_primary(turn, &name) {
        turn.wake_in(LOOK_AGAIN, WaitingOn::Leader);
        return Reason::LeaderNotReady { leader: name };
    }
    if let Some(reason) = stuck(turn, &name) {
        return reason;
    }
    if control.backup_label {
        return follow(turn, &name, true);
    }
    // What the leader said before this PostgreSQL went down may lack a timeline that came from it since.
    let since = turn.memory.rejoin.changed_at.unwrap_or_default();
    let Some(branch) = told(turn, leader, since, |_, branch| branch.end.is_none()) else {
        if SILENCES_MAX <= turn.memory.rejoin.silences && control.state != ControlState::InProduction {
            return follow(turn, &name, false);
        }
        turn.wake_in(LOOK_AGAIN, WaitingOn::Leader);
        return Reason::AskingHistory { leader: name };
    };
    let crashed = start::was_primary(control) && control.state != ControlState::ShutDown;
    if crashed && RECOVERIES_MAX <= turn.memory.rejoin.recovery_failures {
        return clone_or_stop(turn, leader, Obstacle::Recovery);
    }
    if crashed && !turn.memory.rejoin.recovered {
        turn.start(Job::CrashRecovery);
        return Reason::CrashRecoveryFirst;
    }
    let mine = turn.seen.postgres.branch();
    match mine.map(|mine| mine.divergence_from(&branch)) {
        Some(Divergence::None) if STARTS_MAX <= turn.memory.start_failures => {
            clone_or_stop(turn, leader, Obstacle::Start)
        }
        Some(Divergence::None) => follow(turn, &name, false),
        Some(Divergence::Forked { timeline, at }) => mend(turn, leader, control, (timeline, at)),
        // Unreachable while the control file can be read; a clone's own checks say more than a guess here.
        None => Reason::ClusterUnknown,
    }
}

/// The control file of a standby says less than it holds. Where standbys confirm commits it is started by itself first,
/// and pointed at the leader when it is known how far it is; `copied`: its history is the leader's for certain.
fn follow(turn: &mut Turn<'_>, leader: &MemberName, copied: bool) -> Reason {
    let at_once = copied || turn.seen.settings.sync.mode == SyncMode::Off;
    let follow = turn.follow_target(leader).filter(|_| at_once);
    turn.memory.following = Some(follow.clone());
    let within = Duration::from_secs(if at_once { 60 } else { 5 });
    turn.start(Job::StartStandby { follow, within });
    Reason::StartingToFollow { leader: leader.clone() }
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

/// The last rungs: a fresh clone where that is allowed, else stop and say so.
fn clone_or_stop(turn: &mut Turn<'_>, leader: &LeaderKey, obstacle: Obstacle) -> Reason {
    let (settings, name) = (&turn.seen.settings, leader.name.clone());
    let may_clone = settings.remove_data_directory_on_diverged_timelines
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
        None => turn.wake_in(LOOK_AGAIN, WaitingOn::Leader),
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
    let goes_on = |branch: &Branch| branch.end.is_none() || mine.divergence_from(branch) == Divergence::None;
    told(turn, leader, Moment::default(), |told, branch| (told.has_slot || !needs_slot) && goes_on(branch))
}

/// What the leader told lately and not before `since`, if it will do; asks otherwise.
fn told(
    turn: &mut Turn<'_>,
    leader: &LeaderKey,
    since: Moment,
    will_do: impl Fn(&LeaderBranch, &Branch) -> bool,
) -> Option<Branch> {
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
