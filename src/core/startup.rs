//! What a supervisor does at its start about a PostgreSQL and a guard that already run.
//!
//! **Invariants.** Unknown does not mean absent: while it is unknown whether PostgreSQL runs, no guard is disarmed and
//! nothing is started or stopped. A primary that is found running gets only deadlines that come from a lease. If no
//! guard was ever armed for it, it has five seconds to confirm its lease.

use std::time::Duration;

use super::guard::{Deadlines, LeftBehind};
use crate::model::{LeaseId, Me, Moment, Process, View};

/// How long a primary that was found running may continue before its lease is confirmed.
const ADOPTED_PRIMARY_WITHIN: Duration = Duration::from_secs(5);
/// How long an immediate stop of an unfenced primary may take before it is killed.
const UNGUARDED_STOP_WITHIN: Duration = Duration::from_millis(300);
/// The pause while it is unknown whether PostgreSQL runs.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Whether a PostgreSQL runs on the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostmasterFound {
    /// Certainly not.
    Nothing,
    /// Yes, and it is watched now.
    Running,
    /// Unknown for now.
    Unknown,
}

/// The step after a look at the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterLook {
    /// Look again after this time.
    LookAgain(Duration),
    /// No guard was armed for the running PostgreSQL: ask it whether it is a primary, then call
    /// [`Takeover::unguarded`].
    AskRole,
    /// The takeover is known.
    Take(Takeover),
}

/// A supervisor's first step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takeover {
    /// Treat the running PostgreSQL as a primary, and arm the guard with these deadlines.
    GuardPrimary(Deadlines),
    /// Stop it in mode immediate within this time, then disarm the guard.
    StopThenDisarm(Duration),
    /// Disarm the guard: no Postgres here accepts writes.
    Disarm,
}

/// The step after a look. `guard_may_kill`: the predecessor's guard may still have a process to kill.
pub fn after_look(left_behind: LeftBehind, found: PostmasterFound, guard_may_kill: bool) -> AfterLook {
    match (found, left_behind) {
        (PostmasterFound::Unknown, _) => AfterLook::LookAgain(LOOK_AGAIN_AFTER),
        (PostmasterFound::Nothing, _) if guard_may_kill => AfterLook::LookAgain(LOOK_AGAIN_AFTER),
        (PostmasterFound::Nothing, _) => AfterLook::Take(Takeover::Disarm),
        (PostmasterFound::Running, LeftBehind::Nothing) => AfterLook::AskRole,
        // The guard is armed before PostgreSQL may become a primary, and disarmed only after the primary has ended. So
        // this one may be a primary, whatever it looks like, or become one at any moment.
        (PostmasterFound::Running, LeftBehind::Armed(deadlines)) => {
            AfterLook::Take(Takeover::GuardPrimary(deadlines))
        }
        (PostmasterFound::Running, LeftBehind::Unguarded) => {
            AfterLook::Take(Takeover::StopThenDisarm(UNGUARDED_STOP_WITHIN))
        }
    }
}

impl Takeover {
    /// For a PostgreSQL without an armed guard: a standby, or a primary that another supervisor promoted.
    pub fn unguarded(primary: bool, now: Moment) -> Takeover {
        let by = now + ADOPTED_PRIMARY_WITHIN;
        match primary {
            true => Takeover::GuardPrimary(Deadlines { stop_at: by, kill_at: by }),
            false => Takeover::Disarm,
        }
    }
}

/// The lease that a restarted supervisor continues, so that its restart does not change the leader. It is the lease of
/// the leader key, if a primary runs here and both the leader key and the member record are this member's own. A guard
/// that was armed here proves that, whatever the addresses are now: it would have killed before another member with
/// this name could lead. A standby does not continue a lease: a restored store would make it a primary without a race.
pub fn previous_lease(me: &Me, first: &View, process: &Process, was_armed: bool) -> Option<LeaseId> {
    let as_primary = matches!(process, Process::Up { standby_start: false, .. });
    let leader = first.cluster.leader.as_ref().filter(|leader| as_primary && leader.name == me.name)?;
    let member = first.cluster.members.get(&me.name)?;
    let same_place = member.record.api_url.as_ref() == Some(&me.api_url)
        && member.record.conn_url.as_ref() == Some(&me.conn_url);
    leader.lease.filter(|lease| (was_armed || same_place) && member.lease == Some(*lease))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_the_processes_are_unknown_the_guard_stays() {
        let deadlines = Deadlines::default();
        for left_behind in [LeftBehind::Nothing, LeftBehind::Armed(deadlines), LeftBehind::Unguarded] {
            let then = after_look(left_behind, PostmasterFound::Unknown, false);
            assert!(matches!(then, AfterLook::LookAgain(_)), "{then:?}");
        }
        let then = after_look(LeftBehind::Armed(deadlines), PostmasterFound::Nothing, true);
        assert!(matches!(then, AfterLook::LookAgain(_)), "its guard has not finished: {then:?}");
    }

    #[test]
    fn an_adopted_primary_keeps_the_deadline_of_its_guard() {
        let paid = Deadlines { stop_at: Moment::from_millis(700), kill_at: Moment::from_millis(900) };
        let running = |left_behind| after_look(left_behind, PostmasterFound::Running, true);
        assert_eq!(running(LeftBehind::Armed(paid)), AfterLook::Take(Takeover::GuardPrimary(paid)));
        let unguarded = running(LeftBehind::Unguarded);
        assert!(matches!(unguarded, AfterLook::Take(Takeover::StopThenDisarm(_))), "{unguarded:?}");
        assert_eq!(running(LeftBehind::Nothing), AfterLook::AskRole);
        assert_eq!(Takeover::unguarded(false, Moment::default()), Takeover::Disarm);
        let by = Moment::default() + ADOPTED_PRIMARY_WITHIN;
        let deadlines = Deadlines { stop_at: by, kill_at: by };
        assert_eq!(Takeover::unguarded(true, Moment::default()), Takeover::GuardPrimary(deadlines));
    }
}
