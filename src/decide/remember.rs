//! The changes to the memory at the start of a tick: ends of long actions, ends of the postmaster, changes of
//! leadership.

use super::leadership::Leadership;
use super::ledgers::{LeaderKeyPhase, Leaderless, Registered};
use super::memory::{Rejoin, Served};
use super::server::Server;
use super::tick::Tick;
use crate::model::{Finished, JobKind, Outcome, Process};

impl Tick<'_> {
    /// Records ended actions and changes since the last tick, before any rule runs.
    pub(super) fn remember(&mut self, leadership: &Leadership, server: &Server<'_>) {
        self.remember_finished();
        self.remember_process(leadership);
        self.memory.rebuilds &= self.cluster().is_some_and(|cluster| cluster.system_id().is_none());
        if self.cluster().is_some_and(|cluster| cluster.initialize.is_some()) {
            self.memory.registered = Registered::default();
        }
        self.remember_key(leadership);
        self.remember_term(leadership);
        self.memory.ending.failed_hand_over &= self.ends() || self.pod_end().is_some();
        self.forget_restart_for_slots(leadership);
        self.remember_arrival(leadership, server);
        self.remember_liveness(leadership, server);
        self.remember_sync(leadership);
        self.remember_leading(leadership);
        if !self.seen.postgres.may_be_primary() {
            self.memory.checkpoint = None;
        }
    }

    fn remember_finished(&mut self) {
        for Finished { job, outcome } in &self.seen.finished {
            self.remember_end(*job, outcome);
            if *outcome == Outcome::LeaseGone {
                self.memory.lease.gone = self.memory.lease.asked_under;
            }
        }
    }

    /// A restart for copies of slots is for a standby of a leader: no race and no promotion waits for it.
    fn forget_restart_for_slots(&mut self, leadership: &Leadership) {
        let led = matches!(leadership, Leadership::Other(_));
        self.memory.restart.take_if(|restart| restart.for_slots && !restart.stopped && !led);
    }

    /// PostgreSQL runs in a role now: failures on the way there no longer count.
    fn remember_arrival(&mut self, leadership: &Leadership, server: &Server<'_>) {
        match server {
            Server::Standby(_) => self.remember_standby(leadership),
            Server::Primary(_) => self.remember_primary(leadership),
            Server::Unknown
            | Server::Empty
            | Server::HalfMade
            | Server::Inaccessible(_)
            | Server::Foreign(_)
            | Server::Down(_)
            | Server::Silent => {}
        }
    }

    fn remember_standby(&mut self, leadership: &Leadership) {
        self.memory.rejoin.stuck = None;
        // The leader of a standby cluster follows, too.
        let stays = leadership.mine().is_some() && self.in_standby_cluster();
        if stays || leadership.other().is_some() {
            self.memory.demoted = false;
            self.memory.failures.starts = 0;
            self.memory.rejoin.recovered = false;
            self.memory.rejoin.rejoin_alone_failed = false;
            self.memory.rejoin.rewind_failures = 0;
            self.memory.yield_until = None;
        } else if *leadership == Leadership::Nobody && !self.memory.yields(self.now) {
            // It runs, and the other members had their chance to lead.
            self.memory.failures.starts = 0;
        }
    }

    fn remember_primary(&mut self, leadership: &Leadership) {
        if let Leadership::Mine(_) = leadership
            && self.memory.hand_over.is_none()
        {
            (self.memory.demoted, self.memory.is_new_cluster) = (false, false);
            self.memory.rejoin = Rejoin::default();
        }
    }

    /// Memory that holds only while I lead, or while no other member does.
    fn remember_leading(&mut self, leadership: &Leadership) {
        if let Leadership::Other(_) | Leadership::Nobody = leadership {
            self.memory.hand_over = None;
        }
        if let Leadership::Other(_) = leadership {
            self.memory.failures.crashes.clear();
            // The leader publishes the status now.
            self.memory.status = None;
            self.memory.is_new_cluster = false;
        }
        let unconfirmed = *leadership == Leadership::Unconfirmed;
        let may_lead = |term| unconfirmed || leadership.held_term() == Some(term);
        self.memory.released_term = self.memory.released_term.take().filter(|given| may_lead(given.term));
        self.remember_served(leadership);
        if leadership.mine().is_none() {
            self.memory.slots.inherited = false;
        }
    }

    /// A loop that was frozen knows nothing of the time between: another member may have led, under a store that etcd
    /// does not have any more.
    fn remember_served(&mut self, leadership: &Leadership) {
        let (now, mine) = (self.now, leadership.mine());
        let served =
            self.memory.served.take().filter(|served| mine == Some(served.term) && now < served.until);
        self.memory.served = served.map(|served| Served { until: self.next_tick_by(), ..served });
    }

    /// Answers from before the key became vacant do not count, nor do those from before a lost race.
    fn remember_key(&mut self, leadership: &Leadership) {
        let before = std::mem::take(&mut self.memory.leader_key);
        self.memory.leader_key = match leadership {
            Leadership::Nobody => self.vacant_since(before),
            Leadership::Unconfirmed => self.unconfirmed_since(&before),
            Leadership::Mine(_)
            | Leadership::Expiring(_)
            | Leadership::FormerSelf(_)
            | Leadership::Other(_)
            | Leadership::Unknown => LeaderKeyPhase::Held,
        };
        if *leadership != Leadership::Nobody {
            self.memory.answers_since = self.memory.answers_since.filter(|_| self.memory.hand_over.is_some());
        }
    }

    fn vacant_since(&mut self, before: LeaderKeyPhase) -> LeaderKeyPhase {
        let mut leaderless = match before {
            LeaderKeyPhase::Vacant(leaderless) => leaderless,
            LeaderKeyPhase::Held | LeaderKeyPhase::Unconfirmed { .. } => Leaderless::default(),
        };
        leaderless.lag_disqualified = false;
        if leaderless.revision.is_none() {
            leaderless.revision = Some(self.cluster().map_or(0, |cluster| cluster.revision));
            self.memory.answers_since = Some(self.now);
        }
        LeaderKeyPhase::Vacant(leaderless)
    }

    fn unconfirmed_since(&self, before: &LeaderKeyPhase) -> LeaderKeyPhase {
        match before {
            LeaderKeyPhase::Unconfirmed { since } => LeaderKeyPhase::Unconfirmed { since: *since },
            LeaderKeyPhase::Held | LeaderKeyPhase::Vacant(_) => {
                LeaderKeyPhase::Unconfirmed { since: self.now }
            }
        }
    }

    /// Answers about the history of an earlier leader, or of the same leader in an earlier term, do not count. A
    /// request to replace this directory was made for a standby: it ends when this member leads.
    fn remember_term(&mut self, leadership: &Leadership) {
        match leadership {
            Leadership::Other(leader) => {
                let known = self.memory.led_since.filter(|(term, _)| *term == leader.term);
                self.memory.led_since = known.or(Some((leader.term, self.now)));
            }
            Leadership::Mine(_) => (self.memory.led_since, self.memory.reinitialize) = (None, None),
            Leadership::Expiring(_)
            | Leadership::Unconfirmed
            | Leadership::FormerSelf(_)
            | Leadership::Nobody
            | Leadership::Unknown => {}
        }
    }

    /// The decision about an unhealthy Postgres holds until it works again, or another member leads.
    fn remember_liveness(&mut self, leadership: &Leadership, server: &Server<'_>) {
        let dead = self.seen.postgres.liveness.death().is_some();
        let leads = matches!(
            leadership,
            Leadership::Mine(_) | Leadership::Expiring(_) | Leadership::Unconfirmed | Leadership::Unknown
        );
        let works = match server {
            Server::Primary(_) => true,
            Server::Standby(_) => self.in_standby_cluster(),
            Server::Unknown
            | Server::Empty
            | Server::HalfMade
            | Server::Inaccessible(_)
            | Server::Foreign(_)
            | Server::Down(_)
            | Server::Silent => false,
        };
        let serves = works && !dead && !self.runs(JobKind::Stop);
        if !leads || serves {
            self.memory.unhealthy = None;
        }
        self.memory.kept_serving &= dead;
        if !self.runs(JobKind::Promote) {
            self.memory.promotion = None;
        }
    }

    fn runs(&self, job: JobKind) -> bool {
        self.seen.job.as_ref().is_some_and(|running| running.job.kind() == job)
    }

    /// Records an unexpected end of the postmaster while I led.
    fn remember_process(&mut self, leadership: &Leadership) {
        if !matches!(self.seen.postgres.process, Process::Down { .. }) || !self.seen.finished.is_empty() {
            self.memory.rejoin.changed_at = Some(self.now);
        }
        match (&self.seen.postgres.process, self.memory.last_pid) {
            (Process::Up { pid, .. }, _) => self.memory.last_pid = Some(*pid),
            (Process::Down { .. }, Some(_)) => {
                self.remember_crash(leadership);
                self.memory.last_pid = None;
                self.memory.rejoin.recovered = false;
            }
            (Process::Down { .. }, None) => {}
        }
    }

    fn remember_crash(&mut self, leadership: &Leadership) {
        if leadership.mine().is_some() && !self.is_end_planned() {
            self.memory.failures.crashes.push(self.now);
        }
    }

    /// Whether the end of the postmaster was planned.
    fn is_end_planned(&self) -> bool {
        // A start that fails is counted as that; its process may never have been PostgreSQL.
        let started_or_stopped = [JobKind::Stop, JobKind::StartPrimary];
        let stops = started_or_stopped.into_iter().any(|job| self.just_finished(job) || self.runs(job));
        let operated = self.memory.hand_over.is_some() || self.memory.restart.is_some();
        stops || operated || self.ends()
    }
}
