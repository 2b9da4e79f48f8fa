//! Whether Postgres proves that it works: the ages of the proofs, and what follows from them.
//!
//! ```text
//!  a new connection answered ──┐
//!  a small write was flushed ──┼─► Liveness ──► verdict(now) ──► Alive · Doubtful since · Dead because
//!  a needed process is stopped ┘        └─────► withheld(now) ─► why the lease must not be renewed
//! ```
//!
//! If no PostgreSQL runs that has to prove anything, a loop that hangs ends the lease, because the loop is needed to
//! restart PostgreSQL or to release the key. While PostgreSQL proves that it works, a loop that hangs does not end the
//! lease.
//!
//! Both proofs must be recent. One failed or slow probe is no verdict; only a time without any proof is. Time in which
//! the probe itself did not run does not count, because it shows nothing about Postgres.

mod probe_rounds;
mod verdict;

use std::time::Duration;

pub use self::verdict::{Death, LivenessFacts, LivenessVerdict, Proof, StoppedPart, Unfit};

use super::{FailoverBy, Moment, Settings, SyncMode};

/// The probe runs far more often than this. A longer pause between two runs means that the probe was not scheduled, and
/// the excess does not count against Postgres.
const GAP_MAX: Duration = Duration::from_millis(500);

/// An upper bound for one step of the loop on a machine that still works.
const LOOP_STEP_MAX: Duration = Duration::from_secs(10);

/// The spans derived from a TTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LivenessTiming {
    /// The TTL in force.
    pub ttl: Duration,
    /// The `suspect_after` of a cluster that replaces a leader before the lease ends; `None`: this one does not.
    pub suspect_after: Option<Duration>,
}

impl LivenessTiming {
    /// The spans that the settings demand. `has_voters`: the key `sync` names standbys that could replace the leader.
    pub fn of(settings: &Settings, has_voters: bool) -> LivenessTiming {
        let recruits = settings.failover == FailoverBy::Recruit && settings.sync.mode != SyncMode::Off;
        let suspect_after = (recruits && has_voters).then_some(settings.suspect_after);
        LivenessTiming { ttl: settings.ttl, suspect_after }
    }

    /// The interval between probes: a quarter of [`Self::dead_after`], within bounds that limit the cost of probing.
    pub fn probe_every(self) -> Duration {
        (self.ttl / 8).clamp(Duration::from_millis(500), Duration::from_secs(2))
    }

    /// Postgres without a proof for this long is dead: half the TTL, so that the stop and the promotion of another
    /// member fit in the other half. At least 2.5 s, because a disk may be slow for a second or two.
    pub fn dead_after(self) -> Duration {
        (self.ttl / 2).max(Duration::from_millis(2500))
    }

    /// A Postgres all of whose processes are stopped for this long is dead. It serves nobody, and only a signal lets
    /// it go on, so where members do not wait for the lease, this counts as much as the silence of a leader.
    pub fn stopped_whole_after(self) -> Duration {
        self.suspect_after.map_or(self.dead_after(), |suspect_after| suspect_after.min(self.dead_after()))
    }

    /// How long one attempt may take: half of [`Self::dead_after`], so that a second attempt, on a new connection, can
    /// end before the verdict. At most 5 s: a long TTL does not justify a long wait for a lost answer.
    pub fn try_within(self) -> Duration {
        (self.dead_after() / 2).min(Duration::from_secs(5))
    }
}

/// The state of the probe. The probe's thread writes it; the lease's thread and the loop read it.
#[derive(Clone, Debug, PartialEq)]
pub struct Liveness {
    timing: LivenessTiming,
    paused: bool,
    suspended_until: Option<Moment>,
    ran_at: Moment,
    /// The latest time of the loop's next step, as the loop announced it; `None` before the loop began.
    loop_due: Option<Moment>,
    watched: Option<Watched>,
    /// The postmaster of the leader of a standby cluster, since it has answered; it proves all but a write.
    standby_leader: Option<i32>,
    /// A postmaster that was started as a primary and has not been one yet: it recovers first, which may take long.
    starting: Option<i32>,
}

/// One postmaster that may be primary.
#[derive(Clone, Debug, PartialEq)]
struct Watched {
    pid: i32,
    connection: ProofTrack,
    write: ProofTrack,
    stopped: Option<(StoppedPart, Moment)>,
    excused_until: Moment,
    /// It cannot write.
    is_standby: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct ProofTrack {
    /// The start of the proof's age: the last proof, moved forward by the time in which the probe did not run.
    from: Moment,
    proved_at: Option<Moment>,
    trouble: Option<String>,
}

impl Liveness {
    /// Nothing is watched yet; `now` counts as a run of the probe.
    pub fn new(ttl: Duration, now: Moment) -> Liveness {
        let timing = LivenessTiming { ttl, suspect_after: None };
        Liveness {
            timing,
            paused: false,
            suspended_until: None,
            ran_at: now,
            loop_due: None,
            watched: None,
            standby_leader: None,
            starting: None,
        }
    }

    /// Takes over new settings, as for [`LivenessTiming::of`].
    pub fn configure(&mut self, settings: &Settings, has_voters: bool) {
        self.timing = LivenessTiming::of(settings, has_voters);
        self.paused = settings.pause;
    }

    /// The spans in force.
    pub fn timing(&self) -> LivenessTiming {
        self.timing
    }

    /// The postmaster that has to prove this.
    pub fn watched(&self, proof: Proof) -> Option<i32> {
        let owes = |watched: &&Watched| proof == Proof::Connection || !watched.is_standby;
        self.watched.as_ref().filter(owes).map(|watched| watched.pid)
    }

    /// This postmaster, if any, is the leader's of a standby cluster and has answered.
    pub fn lead_standby_cluster(&mut self, postmaster: Option<i32>) {
        self.standby_leader = postmaster;
    }

    /// Records what was seen stopped of `pid`, if anything.
    pub fn stopped(&mut self, pid: i32, stopped: Option<StoppedPart>, now: Moment) {
        let Some(watched) = self.watched.as_mut().filter(|watched| watched.pid == pid) else { return };
        watched.stopped = match (stopped, watched.stopped.take()) {
            (None, _) => None,
            (Some(stopped), Some((same, since))) if stopped == same => Some((stopped, since)),
            (Some(stopped), _) => Some((stopped, now)),
        };
    }

    /// Excuses an orderly stop until then: no proof is due before.
    pub fn excuse_until(&mut self, until: Moment) {
        if let Some(watched) = &mut self.watched {
            watched.excused_until = watched.excused_until.max(until);
        }
    }

    /// Allows renewals of the lease until then, whatever the verdict: no other member can lead, and this Postgres still
    /// serves part of its clients. The permission ends by itself, so that only a live loop can extend it.
    pub fn suspend_liveness_check(&mut self, until: Moment) {
        self.suspended_until = Some(until);
    }

    /// Records that the loop runs and takes its next step at `due` at the latest.
    pub fn loop_runs(&mut self, due: Moment) {
        self.loop_due = Some(due);
    }

    /// How late the loop is, when it hangs rather than being slow: later than a TTL and than the longest of its steps.
    pub fn loop_hangs(&self, now: Moment) -> Option<Duration> {
        let late = now.since(self.loop_due?);
        (self.timing.ttl.max(LOOP_STEP_MAX) < late).then_some(late)
    }

    /// The verdict at `now`.
    pub fn verdict(&self, now: Moment) -> LivenessVerdict {
        let Some(watched) = &self.watched else { return LivenessVerdict::Alive };
        let within = self.timing.dead_after();
        // The probe has not run since.
        let now = now.min(self.ran_at + GAP_MAX);
        let age = |from: Moment| now.since(from.max(watched.excused_until));
        if let Some((stopped, since)) = &watched.stopped
            && let Some(death) = self.died_of(stopped, age(*since))
        {
            return LivenessVerdict::Dead(death);
        }
        if self.is_starting(watched) {
            return LivenessVerdict::Alive;
        }
        let trouble = |track: &ProofTrack| track.trouble.clone().unwrap_or_else(|| "no answer".to_owned());
        let (connection, write) = (&watched.connection, &watched.write);
        if within <= age(connection.from) {
            return LivenessVerdict::Dead(Death::NoConnection { within, trouble: trouble(connection) });
        }
        if !watched.is_standby && within <= age(write.from) {
            return LivenessVerdict::Dead(Death::NoWrite { within, trouble: trouble(write) });
        }
        let oldest = match watched.is_standby {
            true => connection.from,
            false => connection.from.min(write.from),
        };
        match age(oldest) < within / 2 {
            true => LivenessVerdict::Alive,
            false => LivenessVerdict::Doubtful { since: oldest },
        }
    }

    /// The death of a Postgres of which so much has been stopped for so long.
    fn died_of(&self, stopped: &StoppedPart, age: Duration) -> Option<Death> {
        let (within, death) = match stopped {
            StoppedPart::Process(process) => {
                let within = self.timing.dead_after();
                (within, Death::Stopped { process: process.clone(), within })
            }
            StoppedPart::Whole => {
                let within = self.timing.stopped_whole_after();
                (within, Death::StoppedWhole { within })
            }
        };
        (within <= age).then_some(death)
    }

    /// Why the lease must not be renewed at `now`; `None` when it may be. A probe that does not run gives no proof.
    pub fn withheld(&self, now: Moment) -> Option<String> {
        if self.paused || self.suspended_until.is_some_and(|until| now < until) {
            return None;
        }
        if self.ran_at + self.timing.ttl < now {
            return Some(format!(
                "PostgreSQL has not been probed for {} s",
                now.since(self.ran_at).as_secs()
            ));
        }
        match (self.verdict(now), self.watched.as_ref().filter(|watched| !self.is_starting(watched))) {
            (LivenessVerdict::Dead(death), _) => Some(death.to_string()),
            (LivenessVerdict::Alive | LivenessVerdict::Doubtful { .. }, Some(_)) => None,
            (LivenessVerdict::Alive | LivenessVerdict::Doubtful { .. }, None) => {
                self.loop_hangs(now).map(|late| {
                    format!(
                        "the loop has hung for {} s, and no primary runs that proves anything",
                        late.as_secs()
                    )
                })
            }
        }
    }

    /// A verdict with the last proofs.
    pub fn facts(&self, verdict: LivenessVerdict) -> LivenessFacts {
        let watched = self.watched.as_ref();
        LivenessFacts {
            verdict,
            connected_at: watched.and_then(|watched| watched.connection.proved_at),
            wrote_at: watched.and_then(|watched| watched.write.proved_at),
        }
    }

    /// Whether `pid` has ever flushed a write under this probe.
    pub fn has_written(&self, pid: i32) -> bool {
        let watched = self.watched.as_ref().filter(|watched| watched.pid == pid);
        watched.is_some_and(|watched| watched.write.proved_at.is_some())
    }

    fn track(&mut self, pid: i32, proof: Proof) -> Option<&mut ProofTrack> {
        let watched = self.watched.as_mut().filter(|watched| watched.pid == pid)?;
        Some(match proof {
            Proof::Connection => &mut watched.connection,
            Proof::Write => &mut watched.write,
        })
    }
}

#[cfg(test)]
mod tests;
