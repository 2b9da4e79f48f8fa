//! Coming back behind another leader: a ladder whose every rung has a count and a reason, never a silent loop.
//!
//! follow → archive ([`super::removed_wal`]) → pg_rewind → clone → stop, say so, and try the last one again.

use std::time::Duration;

use super::attach::{self, Source};
use super::removed_wal::CLONES_MAX;
use super::turn::Turn;
use super::{clone, history};
use crate::model::{
    Branch, ControlFile, ControlState, FollowTarget, Job, JobKind, LeaderKey, Lsn, MemberName, Obstacle,
    Reason, Timeline, WaitingOn,
};

/// Crash recovery is tried this often before the next rung.
const RECOVERIES_MAX: u32 = 3;
/// So are starts of a standby whose history is the leader's.
const STARTS_MAX: u32 = 10;
/// pg_rewind is tried this often before the next rung.
const REWINDS_MAX: u32 = 3;
/// Where there is no next rung the last one is tried again after this: the disk was full, the network gone. What failed
/// has changed nothing, because a directory that pg_rewind left half done is cloned.
const TRY_AGAIN: Duration = Duration::from_secs(30);
/// Behind a leader that tells no history this often in a row a standby is started without a source, for its readers.
const SILENCES_MAX: u32 = 10;
/// How often to look again for what the leader is about to publish.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Another member leads and my Postgres is down.
pub(super) fn climb(turn: &mut Turn<'_>, leader: &LeaderKey, control: &ControlFile) -> Reason {
    if clone::is_to_be_cloned(turn, leader) {
        return reinitialize(turn, leader);
    }
    // Before etcd says which cluster this is, what lies here may be another's.
    let known = turn.cluster().is_some_and(|cluster| cluster.system_id().is_some());
    if !known || !clone::leader_is_primary(turn, &leader.name) {
        turn.wake_in(LOOK_AGAIN, WaitingOn::Leader);
        return Reason::LeaderNotReady { leader: leader.name.clone() };
    }
    if let Some(reason) = stuck(turn, &leader.name) {
        return reason;
    }
    // What the leader said before this PostgreSQL went down may lack a timeline that came from it since.
    let since = turn.memory.rejoin.changed_at.unwrap_or_default();
    let Some(branch) = history::told(turn, leader, since, |_, branch| branch.end.is_none()) else {
        return without_history(turn, leader, control);
    };
    by_history(turn, leader, control, &branch)
}

/// The leader does not tell its history. A standby that lacks nothing may serve its readers all the same, in the end.
fn without_history(turn: &mut Turn<'_>, leader: &LeaderKey, control: &ControlFile) -> Reason {
    let silent = SILENCES_MAX <= turn.memory.rejoin.silences;
    if silent && !control.is_unfinished_copy() && control.state != ControlState::InProduction {
        return start(turn, leader, None);
    }
    turn.wake_in(LOOK_AGAIN, WaitingOn::Leader);
    history::history_untold(turn, leader)
}

/// What lies here is compared with the leader's history.
fn by_history(turn: &mut Turn<'_>, leader: &LeaderKey, control: &ControlFile, theirs: &Branch) -> Reason {
    let source = attach::source(turn, leader, theirs);
    if control.is_unfinished_copy() {
        return finish_copy(turn, leader, source);
    }
    if let Some(reason) = recover(turn, leader, control) {
        return reason;
    }
    match source {
        Source::Parted(timeline, at) => mend(turn, leader, control, (timeline, at)),
        Source::Proved(_) | Source::Unproved | Source::Nobody
            if STARTS_MAX <= turn.memory.failures.starts =>
        {
            clone_or_stop(turn, leader, Obstacle::Start)
        }
        Source::Proved(target) => start(turn, leader, Some(target)),
        // It shows how far it is once it runs, and gets its source then.
        Source::Unproved | Source::Nobody => start(turn, leader, None),
    }
}

/// A primary that did not stop cleanly recovers first: only then is it known how far it got.
fn recover(turn: &mut Turn<'_>, leader: &LeaderKey, control: &ControlFile) -> Option<Reason> {
    let crashed = control.is_of_primary() && control.state != ControlState::ShutDown;
    if !crashed {
        return None;
    }
    if RECOVERIES_MAX <= turn.memory.rejoin.recovery_failures {
        return Some(clone_or_stop(turn, leader, Obstacle::Recovery));
    }
    if turn.memory.rejoin.recovered {
        return None;
    }
    turn.start(Job::CrashRecovery);
    Some(Reason::CrashRecoveryFirst)
}

/// A base backup, or what pg_rewind left, that was never consistent. With the WAL of a leader that continues its source
/// it becomes so; where that is not certain it may do by itself, and if it does not, nothing can be made of it.
fn finish_copy(turn: &mut Turn<'_>, leader: &LeaderKey, source: Source) -> Reason {
    if STARTS_MAX <= turn.memory.failures.starts {
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
        None => attach::CONSISTENT_WITHIN,
    };
    if follow.is_none() {
        attach::to_nobody(turn);
    }
    turn.start(Job::StartStandby { follow, within });
    Reason::StartingToFollow { leader: leader.name.clone() }
}

/// Throws away what lies here, as an operator asked, or the configuration allows.
pub(super) fn reinitialize(turn: &mut Turn<'_>, leader: &LeaderKey) -> Reason {
    let because = clone::why_cloned_anew(turn, leader);
    clone_anew(turn, leader, because)
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
    let name = leader.name.clone();
    let obstacle = match may_clone(turn, obstacle) {
        true if turn.memory.rejoin.clone_failures < CLONES_MAX => {
            return clone_anew(turn, leader, Reason::Recloning { leader: name });
        }
        true => Obstacle::Clone,
        false => obstacle,
    };
    let not_before = turn.memory.failures.retry_at.get(&JobKind::Clone).copied().unwrap_or_default();
    let until = (turn.now + TRY_AGAIN).max(not_before);
    turn.memory.rejoin.stuck = Some((name.clone(), obstacle, until));
    turn.wake_at(until, WaitingOn::Retry);
    Reason::CannotRejoin { leader: name, obstacle }
}

fn may_clone(turn: &Turn<'_>, obstacle: Obstacle) -> bool {
    let settings = &turn.seen.settings;
    let rewind_failed = obstacle == Obstacle::Rewind && settings.remove_data_directory_on_rewind_failure;
    obstacle == Obstacle::Clone || settings.remove_data_directory_on_diverged_timelines || rewind_failed
}

/// Nothing is left to try behind this leader for a while; after that what failed is tried once more.
fn stuck(turn: &mut Turn<'_>, leader: &MemberName) -> Option<Reason> {
    let (behind, obstacle, until) = turn.memory.rejoin.stuck.clone()?;
    if behind == *leader && turn.now < until {
        turn.wake_at(until, WaitingOn::Retry);
        return Some(Reason::CannotRejoin { leader: behind, obstacle });
    }
    turn.memory.rejoin.stuck = None;
    try_once_more(turn, obstacle);
    None
}

/// What failed too often may fail once more before nothing is left to try again.
fn try_once_more(turn: &mut Turn<'_>, obstacle: Obstacle) {
    match obstacle {
        Obstacle::Recovery => turn.memory.rejoin.recovery_failures = RECOVERIES_MAX - 1,
        Obstacle::Start => turn.memory.failures.starts = STARTS_MAX - 1,
        Obstacle::Rewind => turn.memory.rejoin.rewind_failures = REWINDS_MAX - 1,
        Obstacle::Clone => turn.memory.rejoin.clone_failures = CLONES_MAX - 1,
        Obstacle::NoRewind => {}
    }
}

fn clone_anew(turn: &mut Turn<'_>, leader: &LeaderKey, because: Reason) -> Reason {
    match clone::clone_source(turn, leader) {
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
