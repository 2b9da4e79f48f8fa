//! The return as a standby of another leader, in stages. Each stage has a limit of tries and a reason, so it never
//! loops without a message.
//!
//! follow → archive ([`super::removed_wal`]) → pg_rewind → clone → stop, report it, and try the last stage again.

use std::time::Duration;

use super::attach::{self, AttachSource};
use super::removed_wal::CLONES_MAX;
use super::tick::Tick;
use super::{clone, history};
use crate::model::{
    Branch, ControlFile, ControlState, FollowTarget, Job, JobKind, LeaderKey, Lsn, MemberName, Obstacle,
    Reason, Timeline, WaitingOn,
};

/// Attempts at crash recovery before the next measure.
const RECOVERIES_MAX: u32 = 3;
/// Attempts to start a standby whose history is the leader's.
const STARTS_MAX: u32 = 10;
/// Attempts at pg_rewind before the next measure.
const REWINDS_MAX: u32 = 3;
/// Where no further measure exists the last one is tried again after this, because a full disk or a network failure can
/// end. A failed attempt has changed nothing: a directory that pg_rewind left incomplete is cloned.
const TRY_AGAIN: Duration = Duration::from_secs(30);
/// The interval between checks for a record that the leader is about to publish.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Another member leads and my Postgres is down.
pub(super) fn climb(tick: &mut Tick<'_>, leader: &LeaderKey, control: &ControlFile) -> Reason {
    if clone::is_to_be_cloned(tick, leader) {
        return reinitialize(tick, leader);
    }
    // Before etcd has the cluster's system identifier, the local data may belong to another cluster.
    let known = tick.cluster().is_some_and(|cluster| cluster.system_id().is_some());
    if !known || !clone::leader_serves(tick, &leader.name) {
        tick.wake_in(LOOK_AGAIN, WaitingOn::Leader);
        return Reason::LeaderNotReady { leader: leader.name.clone() };
    }
    if let Some(reason) = stuck(tick, &leader.name) {
        return reason;
    }
    // An answer of the leader from before this PostgreSQL went down may lack a timeline that arrived from it since.
    let since = tick.memory.rejoin.changed_at.unwrap_or_default();
    let Some(branch) = history::leader_branch_since(tick, leader, since) else {
        return without_history(tick, leader, control);
    };
    by_history(tick, leader, control, &branch)
}

/// The leader does not report its history. In the end a standby that lacks no WAL may serve its readers all the same. A
/// copy of the remote primary of a standby cluster is followed up without a comparison.
fn without_history(tick: &mut Tick<'_>, leader: &LeaderKey, control: &ControlFile) -> Reason {
    let follow = attach::to_untold_remote(tick, leader);
    let is_whole = follow.is_some() || !control.is_unfinished_copy();
    // The control file of a copy is that of the running primary.
    let has_crashed = control.state == ControlState::InProduction && !control.backup_label;
    if history::is_untold(tick) && is_whole && !has_crashed {
        return start(tick, leader, follow);
    }
    tick.wake_in(LOOK_AGAIN, WaitingOn::Leader);
    history::history_unanswered(tick, leader)
}

/// Compares the local WAL with the leader's history.
fn by_history(tick: &mut Tick<'_>, leader: &LeaderKey, control: &ControlFile, theirs: &Branch) -> Reason {
    let source = attach::source(tick, leader, theirs);
    if control.is_unfinished_copy() {
        return finish_copy(tick, leader, source);
    }
    if let Some(reason) = recover(tick, leader, control) {
        return reason;
    }
    match source {
        AttachSource::Parted(timeline, at) => rewind_or_clone(tick, leader, control, (timeline, at)),
        AttachSource::Proved(_) | AttachSource::Unproved | AttachSource::Nobody
            if STARTS_MAX <= tick.memory.failures.starts =>
        {
            clone_or_stop(tick, leader, Obstacle::Start)
        }
        AttachSource::Proved(target) => start(tick, leader, Some(target)),
        // It shows its position once it runs, and gets its source then.
        AttachSource::Unproved | AttachSource::Nobody => start(tick, leader, None),
    }
}

/// A primary that did not stop cleanly recovers first: its last position is known only after that.
fn recover(tick: &mut Tick<'_>, leader: &LeaderKey, control: &ControlFile) -> Option<Reason> {
    let crashed = control.is_of_primary() && control.state != ControlState::ShutDown;
    if !crashed {
        return None;
    }
    if RECOVERIES_MAX <= tick.memory.rejoin.recovery_failures {
        return Some(clone_or_stop(tick, leader, Obstacle::Recovery));
    }
    if tick.memory.rejoin.recovered {
        return None;
    }
    tick.start(Job::CrashRecovery);
    Some(Reason::CrashRecoveryFirst)
}

/// A base backup, or the result of pg_rewind, that was never consistent. It becomes consistent with the WAL of a leader
/// that continues its source. Where that relation is uncertain it may become consistent with its own WAL; if it does
/// not, it is useless.
fn finish_copy(tick: &mut Tick<'_>, leader: &LeaderKey, source: AttachSource) -> Reason {
    if STARTS_MAX <= tick.memory.failures.starts {
        return clone_or_stop(tick, leader, Obstacle::Start);
    }
    match source {
        AttachSource::Proved(target) => start(tick, leader, Some(target)),
        AttachSource::Unproved | AttachSource::Parted(..) if tick.memory.rejoin.rejoin_alone_failed => {
            clone_or_stop(tick, leader, Obstacle::Clone)
        }
        AttachSource::Unproved | AttachSource::Parted(..) | AttachSource::Nobody => start(tick, leader, None),
    }
}

/// Starts it as a standby, behind a source that was found right, or behind none.
fn start(tick: &mut Tick<'_>, leader: &LeaderKey, follow: Option<FollowTarget>) -> Reason {
    let within = match follow {
        Some(_) => Duration::from_secs(60),
        None => attach::CONSISTENT_WITHIN,
    };
    if follow.is_none() {
        attach::to_nobody(tick);
    }
    tick.start(Job::StartStandby { follow, within, lowers: false });
    Reason::StartingToFollow { leader: leader.name.clone() }
}

/// Replaces the local data, as an operator asked or the configuration allows.
pub(super) fn reinitialize(tick: &mut Tick<'_>, leader: &LeaderKey) -> Reason {
    let because = clone::why_cloned_anew(tick, leader);
    clone_anew(tick, leader, because)
}

/// The timelines diverged: rewind if that is possible, else clone if that is allowed, else stop and report it.
fn rewind_or_clone(
    tick: &mut Tick<'_>,
    leader: &LeaderKey,
    control: &ControlFile,
    fork: (Timeline, Lsn),
) -> Reason {
    let settings = &tick.seen.settings;
    let rewindable = settings.use_pg_rewind && (control.checksums || control.wal_log_hints);
    let name = leader.name.clone();
    if rewindable && tick.memory.rejoin.rewind_failures < REWINDS_MAX {
        let Some(from) = rewind_source(tick, &name) else {
            tick.wake_in(LOOK_AGAIN, WaitingOn::Leader);
            return Reason::AwaitingCheckpoint { leader: name };
        };
        tick.start(Job::Rewind { from, fork });
        return Reason::Diverged { leader: name };
    }
    clone_or_stop(tick, leader, if rewindable { Obstacle::Rewind } else { Obstacle::NoRewind })
}

/// The last measures: a clone where that is allowed, else stop and report it. An incomplete clone may always be cloned
/// again.
fn clone_or_stop(tick: &mut Tick<'_>, leader: &LeaderKey, obstacle: Obstacle) -> Reason {
    let name = leader.name.clone();
    let obstacle = match may_clone(tick, obstacle) {
        true if tick.memory.rejoin.clone_failures < CLONES_MAX => {
            return clone_anew(tick, leader, Reason::Recloning { leader: name });
        }
        true => Obstacle::Clone,
        false => obstacle,
    };
    let not_before = tick.memory.failures.retry_at.get(&JobKind::Clone).copied().unwrap_or_default();
    let until = (tick.now + TRY_AGAIN).max(not_before);
    tick.memory.rejoin.stuck = Some((name.clone(), obstacle, until));
    tick.wake_at(until, WaitingOn::Retry);
    Reason::CannotRejoin { leader: name, obstacle }
}

fn may_clone(tick: &Tick<'_>, obstacle: Obstacle) -> bool {
    let settings = &tick.seen.settings;
    let rewind_failed = obstacle == Obstacle::Rewind && settings.remove_data_directory_on_rewind_failure;
    let wipes = settings.remove_data_directory_on_diverged_timelines || rewind_failed;
    obstacle == Obstacle::Clone || (wipes && !settings.pause)
}

/// Nothing is tried behind this leader for a while. After that the failed measure gets one more attempt.
fn stuck(tick: &mut Tick<'_>, leader: &MemberName) -> Option<Reason> {
    let (behind, obstacle, until) = tick.memory.rejoin.stuck.clone()?;
    if behind == *leader && tick.now < until {
        tick.wake_at(until, WaitingOn::Retry);
        return Some(Reason::CannotRejoin { leader: behind, obstacle });
    }
    tick.memory.rejoin.stuck = None;
    try_once_more(tick, obstacle);
    None
}

/// Allows one more attempt of the measure that failed too often.
fn try_once_more(tick: &mut Tick<'_>, obstacle: Obstacle) {
    match obstacle {
        Obstacle::Recovery => tick.memory.rejoin.recovery_failures = RECOVERIES_MAX - 1,
        Obstacle::Start => tick.memory.failures.starts = STARTS_MAX - 1,
        Obstacle::Rewind => tick.memory.rejoin.rewind_failures = REWINDS_MAX - 1,
        Obstacle::Clone => tick.memory.rejoin.clone_failures = CLONES_MAX - 1,
        Obstacle::NoRewind => {}
    }
}

fn clone_anew(tick: &mut Tick<'_>, leader: &LeaderKey, because: Reason) -> Reason {
    match clone::clone_source(tick, leader) {
        Some(from) => clone::clone_from(tick, from),
        None => {
            tick.wake_in(LOOK_AGAIN, WaitingOn::Leader);
            return Reason::LeaderNotReady { leader: leader.name.clone() };
        }
    }
    because
}

/// The source for pg_rewind: in a standby cluster the remote primary, whose history its leader has as well.
fn rewind_source(tick: &Tick<'_>, leader: &MemberName) -> Option<FollowTarget> {
    match &tick.seen.settings.standby_cluster {
        Some(standby_cluster) => standby_cluster.remote.clone().or_else(|| tick.target(leader)),
        None => checkpointed(tick, leader),
    }
}

/// The leader as a source for pg_rewind, once its checkpoint after promotion is done. Before that its control file
/// still has the old timeline, and pg_rewind would find nothing to do.
fn checkpointed(tick: &Tick<'_>, leader: &MemberName) -> Option<FollowTarget> {
    let record = &tick.cluster()?.members.get(leader)?.record;
    match record.checkpoint_after_promote {
        Some(_) => None,
        None => tick.target(leader),
    }
}
