//! The rounds of the probe: whom it watches, what a try amounts to, and when it tries again.

use std::time::Duration;

use super::{GAP_MAX, Liveness, LivenessTiming, Proof, ProofTrack, Watched};
use crate::model::{Moment, Process};

/// The pause after a try that failed.
const RETRY_AFTER: Duration = Duration::from_millis(200);

impl LivenessTiming {
    /// How often the probe judges, and looks whether there is a postmaster to probe.
    pub const TICK: Duration = Duration::from_millis(200);
}

impl Liveness {
    /// The probe judges. It watches the postmaster that may be primary now, or leads a standby cluster, if one runs:
    /// whom.
    pub fn look(&mut self, process: &Process, now: Moment) -> Option<i32> {
        let (postmaster, is_standby) = match *process {
            Process::Up { pid, standby_start: false, .. } => (Some(pid), false),
            Process::Up { pid, .. } => (self.standby_leader.filter(|leader| *leader == pid), true),
            Process::Down { .. } => (None, false),
        };
        self.ran(now);
        // One that is being promoted has to prove itself anew.
        self.watched.take_if(|watched| watched.is_standby != is_standby);
        self.watch(postmaster, is_standby, now);
        postmaster
    }

    /// A try to have `pid` prove it, which began at `began_at`, has ended. When the next begins.
    pub fn tried(
        &mut self,
        (pid, proof): (i32, Proof),
        began_at: Moment,
        ended: Result<(), String>,
        now: Moment,
    ) -> Moment {
        // What the probe slept through is no time without a proof, whichever of its tasks runs first.
        self.ran(now);
        match ended {
            Ok(()) => {
                self.proved(pid, proof, now);
                began_at + self.timing.probe_every()
            }
            Err(trouble) => {
                self.failed(pid, proof, trouble);
                now + RETRY_AFTER
            }
        }
    }

    /// The probe runs. What it missed since its last run is added to every proof: nobody looked.
    pub(super) fn ran(&mut self, now: Moment) {
        let missed = now.since(self.ran_at).saturating_sub(GAP_MAX);
        self.ran_at = self.ran_at.max(now);
        if let Some(watched) = self.watched.as_mut().filter(|_| !missed.is_zero()) {
            for track in [&mut watched.connection, &mut watched.write] {
                track.from = track.from + missed;
            }
            if let Some((_, since)) = &mut watched.stopped {
                *since = *since + missed;
            }
        }
    }

    /// `pid` is about to start as a primary: no proof is due until it has. A stopped process counts all the same.
    /// How long that may take is for the
    /// loop to say, so until then a loop that hangs ends the lease.
    pub fn starts(&mut self, pid: i32) {
        self.starting = Some(pid);
    }

    /// `pid` accepts connections, and what it owes counts from now on.
    pub fn has_started(&mut self, pid: i32, now: Moment) {
        if self.starting.take_if(|starting| *starting == pid).is_none() {
            return;
        }
        for proof in [Proof::Connection, Proof::Write] {
            if let Some(track) = self.track(pid, proof) {
                track.from = track.from.max(now);
            }
        }
    }

    /// The program that was started as the postmaster runs it as `postmaster`.
    pub fn replaced(&mut self, started: i32, postmaster: i32) {
        if self.starting == Some(started) {
            self.starting = Some(postmaster);
        }
    }

    pub(super) fn is_starting(&self, watched: &Watched) -> bool {
        self.starting == Some(watched.pid)
    }

    /// The postmaster to watch, if one runs. A new one has to prove itself from `now` on.
    pub(super) fn watch(&mut self, pid: Option<i32>, is_standby: bool, now: Moment) {
        if self.watched.as_ref().map(|watched| watched.pid) == pid {
            return;
        }
        let unproved = ProofTrack { from: now, proved_at: None, trouble: None };
        self.suspended_until = None;
        self.starting = self.starting.filter(|_| pid.is_some());
        self.watched = pid.map(|pid| Watched {
            pid,
            connection: unproved.clone(),
            write: unproved,
            stopped: None,
            excused_until: Moment::default(),
            is_standby,
        });
    }

    /// The postmaster `pid` has just proved it.
    pub(super) fn proved(&mut self, pid: i32, proof: Proof, now: Moment) {
        if let Some(track) = self.track(pid, proof) {
            *track = ProofTrack { from: now, proved_at: Some(now), trouble: None };
        }
    }

    /// A try to have it proved ended with `trouble`.
    pub(super) fn failed(&mut self, pid: i32, proof: Proof, trouble: String) {
        if let Some(track) = self.track(pid, proof) {
            track.trouble = Some(trouble);
        }
    }
}
