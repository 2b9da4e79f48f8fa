//! What this member says to others in its heartbeats, and what it hears in theirs: beside the loop, so that a loop that
//! hangs neither silences a leader nor deafens a standby.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::Status;
use crate::core::heartbeat::HeartbeatWatch;
use crate::model::{
    HearingFacts, Heartbeat, LeaderHearing, LeaseFacts, LivenessFacts, Moment, Settings, SqlFacts, Term,
};
use crate::os::clock;
use crate::peer::PeerSessions;
use crate::postgres::Probe;

/// The channel between this member and the others, shared by the loop, the listener and the REST interface.
pub struct PeerChannel {
    sessions: PeerSessions,
    leading: OnceLock<LeadingProofs>,
    watch: Mutex<HeartbeatWatch>,
    hearers: Mutex<Hearers>,
    hearing: watch::Sender<LeaderHearing>,
}

/// How many streams of heartbeats members have open here.
#[derive(Debug, Default)]
struct Hearers {
    open: usize,
    /// There were some in this term of mine, and there are none.
    lost_in: Option<Term>,
}

impl Hearers {
    fn begin(&mut self) {
        *self = Hearers { open: self.open + 1, lost_in: None };
    }

    /// While I lead in this term, if I do.
    fn end(&mut self, term: Option<Term>) {
        self.open -= 1;
        self.lost_in = term.filter(|_| self.open == 0);
    }

    fn are_lost(&self, term: Option<Term>) -> bool {
        term.is_some() && self.lost_in == term
    }
}

/// One open stream of heartbeats.
#[derive(Debug)]
pub struct Hearer(Arc<PeerChannel>);

impl Drop for Hearer {
    fn drop(&mut self) {
        self.0.tell(Hearers::end, clock::now());
    }
}

/// What a leader's heartbeats rest on, as its own threads say it.
struct LeadingProofs {
    lease: watch::Receiver<LeaseFacts>,
    probe: Probe,
}

impl std::fmt::Debug for PeerChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerChannel").field("hearing", &*self.hearing.borrow()).finish_non_exhaustive()
    }
}

impl PeerChannel {
    /// Of the member `name`. It says and hears nothing yet.
    pub fn new(scope: &str, name: &str) -> PeerChannel {
        PeerChannel {
            sessions: PeerSessions::new(scope, name),
            leading: OnceLock::new(),
            watch: Mutex::new(HeartbeatWatch::new(Settings::default().suspect_after)),
            hearers: Mutex::default(),
            hearing: watch::Sender::default(),
        }
    }

    /// Who may listen.
    pub fn sessions(&self) -> &PeerSessions {
        &self.sessions
    }

    /// From now on the heartbeats rest on these, and no more on the loop's status.
    pub(super) fn lead_by(&self, lease: watch::Receiver<LeaseFacts>, probe: Probe) {
        // Once in the life of a process.
        let _ = self.leading.set(LeadingProofs { lease, probe });
    }

    /// The heartbeat of this number; `None` without a lease that is valid at this moment.
    pub(super) fn heartbeat(&self, status: &Status, number: u64, now: Moment) -> Option<Heartbeat> {
        let (term, liveness) = match self.leading.get() {
            Some(LeadingProofs { lease, probe }) => (lease.borrow().leading_at(now)?, probe.facts()),
            None => (status.lease.leading_at(now)?, status.postgres.liveness.clone()),
        };
        let sync = status.last_view.as_ref().and_then(|view| view.sync.as_ref());
        Some(Heartbeat {
            term,
            number,
            flushed: status.postgres.answering().map(SqlFacts::lsn).unwrap_or_default(),
            proof_age: proof_age(&liveness, now),
            sync_revision: sync.map_or(0, |sync| sync.mod_revision),
        })
    }

    /// Changes with what is heard.
    pub(super) fn hearing(&self) -> watch::Receiver<LeaderHearing> {
        self.hearing.subscribe()
    }

    /// What is heard, to be shown.
    pub fn facts(&self, now: Moment) -> HearingFacts {
        self.watch().facts(now)
    }

    /// Takes over the configured `suspect_after`.
    pub(super) fn configure(&self, suspect_after: Duration) {
        self.watch().configure(suspect_after);
    }

    /// The listener runs, and may have something to add. Says when it has to run again.
    pub(super) fn listen(&self, add: impl FnOnce(&mut HeartbeatWatch, Moment)) -> Moment {
        let now = clock::now();
        let next = {
            let mut watch = self.watch();
            watch.poll(now);
            add(&mut watch, now);
            let next = now + HeartbeatWatch::POLL_EVERY;
            watch.next_check().map_or(next, |check| check.min(next))
        };
        self.tell(|_, _| {}, now);
        next
    }

    /// A member begins to listen. It does until what this returns is dropped.
    pub fn hearer(self: &Arc<PeerChannel>) -> Hearer {
        self.tell(|hearers, _| hearers.begin(), clock::now());
        Hearer(self.clone())
    }

    /// Several threads do this, one after the other.
    fn tell(&self, count: impl FnOnce(&mut Hearers, Option<Term>), now: Moment) {
        let mut hearers = self.hearers.lock().unwrap_or_else(PoisonError::into_inner);
        let term = self.leading.get().and_then(|proofs| proofs.lease.borrow().leading_at(now));
        count(&mut hearers, term);
        let hearing = match self.watch().hearing(now) {
            LeaderHearing::Unknown if hearers.are_lost(term) => LeaderHearing::Unheard,
            heard => heard,
        };
        self.hearing.send_if_modified(|shown| {
            let is_new = *shown != hearing;
            *shown = hearing;
            is_new
        });
    }

    fn watch(&self) -> MutexGuard<'_, HeartbeatWatch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The age of the older of the two proofs. The leader of a standby cluster owes no write.
fn proof_age(liveness: &LivenessFacts, now: Moment) -> Duration {
    let proofs = [liveness.connected_at, liveness.wrote_at];
    proofs.into_iter().flatten().map(|at| now.since(at)).max().unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Lsn, Term};

    /// The loop is woken by what changes, and by nothing else.
    #[test]
    fn only_news_wake_the_loop() {
        let channel = PeerChannel::new("herd", "m2");
        let mut hearing = channel.hearing();
        let heard = |number| {
            let heartbeat = Heartbeat {
                term: Term(5),
                number,
                flushed: Lsn(1),
                proof_age: Duration::ZERO,
                sync_revision: 0,
            };
            channel.listen(|watch, now| watch.heard(&heartbeat, now))
        };
        channel.listen(|watch, _| watch.listen_to(Some(Term(5))));
        assert!(!hearing.has_changed().expect("it is there"));
        heard(1);
        assert_eq!(*hearing.borrow_and_update(), LeaderHearing::Heard { term: Term(5) });
        heard(2);
        assert!(!hearing.has_changed().expect("it is there"));
        channel.listen(|watch, _| watch.listen_to(None));
        assert_eq!(*hearing.borrow_and_update(), LeaderHearing::Unknown);
    }

    #[test]
    fn a_leader_is_unheard_when_the_last_of_its_hearers_is_lost_in_its_term() {
        let term = Some(Term(5));
        let mut hearers = Hearers::default();
        assert!(!hearers.are_lost(term) && !hearers.are_lost(None), "nobody has listened");
        hearers.begin();
        hearers.begin();
        hearers.end(term);
        assert!(!hearers.are_lost(term));
        hearers.end(term);
        assert!(hearers.are_lost(term));
        assert!(!hearers.are_lost(Some(Term(6))) && !hearers.are_lost(None));
        hearers.begin();
        assert!(!hearers.are_lost(term));
        hearers.end(None);
        assert!(!hearers.are_lost(term) && !hearers.are_lost(None), "I did not lead");
    }

    #[test]
    fn the_older_proof_counts() {
        let now = Moment::from_millis(10_000);
        let age = |connected_at: Option<u64>, wrote_at: Option<u64>| {
            let at = |millis: Option<u64>| millis.map(Moment::from_millis);
            let (connected_at, wrote_at) = (at(connected_at), at(wrote_at));
            proof_age(&LivenessFacts { connected_at, wrote_at, ..LivenessFacts::default() }, now)
        };
        assert_eq!(age(Some(9_000), Some(7_000)), Duration::from_secs(3));
        assert_eq!(age(Some(9_000), None), Duration::from_secs(1));
        assert_eq!(age(None, None), Duration::MAX);
    }
}
