//! The listening side of a leader's heartbeats: what their arrival says, and how long their absence says nothing.
//!
//! One late heartbeat is no silence: the allowed time grows with the longest gap of the last minute, and time in which
//! the listener itself did not run does not count. The driver reports every heartbeat and, in between, polls at least
//! every [`HeartbeatWatch::POLL_EVERY`].

use std::time::Duration;

use crate::model::{HearingFacts, Heartbeat, LeaderHearing, Moment, Settings, Term};

/// A longer time between two polls means that the listener was not scheduled. The excess is no silence.
const POLL_GAP_MAX: Duration = Duration::from_millis(300);
/// The largest gap is kept for one to two such spans.
const GAP_KEPT: Duration = Duration::from_secs(30);
/// So many times the largest gap is no silence yet.
const GAPS_ALLOWED: u32 = 3;

/// What one member hears of its leader.
#[derive(Clone, Debug)]
pub struct HeartbeatWatch {
    configured: Duration,
    term: Option<Term>,
    /// The number of the last heartbeat of the present stream.
    number: u64,
    last: Option<LastHeartbeat>,
    polled_at: Option<Moment>,
    gaps: RecentGaps,
    /// Heartbeats that counted, of all terms.
    received: u64,
}

#[derive(Clone, Copy, Debug)]
struct LastHeartbeat {
    heard_at: Moment,
    /// The start of the silence: the arrival, moved forward by the time in which the listener did not run.
    silent_from: Moment,
}

impl HeartbeatWatch {
    /// The longest time until the next poll: longer than from one heartbeat to the next, each of which is one.
    pub const POLL_EVERY: Duration = Duration::from_millis(150);

    /// Listens to nobody yet.
    pub fn new(suspect_after: Duration) -> HeartbeatWatch {
        HeartbeatWatch {
            configured: suspect_after,
            term: None,
            number: 0,
            last: None,
            polled_at: None,
            gaps: RecentGaps::default(),
            received: 0,
        }
    }

    /// Takes over the configured `suspect_after`.
    pub fn configure(&mut self, suspect_after: Duration) {
        self.configured = suspect_after;
    }

    /// Listens to the leader of this term; `None`: to nobody. All that was heard in another term is forgotten.
    pub fn listen_to(&mut self, term: Option<Term>) {
        if self.term != term {
            let kept = HeartbeatWatch::new(self.configured);
            *self = HeartbeatWatch { term, number: self.number, received: self.received, ..kept };
        }
    }

    /// A new stream begins: its numbers start anew.
    pub fn begin_stream(&mut self) {
        self.number = 0;
    }

    /// The leader refuses to be heard: its silence says nothing.
    pub fn refused(&mut self) {
        self.last = None;
    }

    /// The listener runs. Time that it missed is no silence.
    pub fn poll(&mut self, now: Moment) {
        let missed = self.polled_at.map_or(Duration::ZERO, |at| now.since(at).saturating_sub(POLL_GAP_MAX));
        if let Some(last) = &mut self.last {
            last.silent_from = last.silent_from + missed;
        }
        self.polled_at = self.polled_at.max(Some(now));
        self.gaps.forget_old(now);
    }

    /// A heartbeat has arrived. One of another term, or that is no newer than the last, does not count.
    pub fn heard(&mut self, heartbeat: &Heartbeat, now: Moment) {
        self.poll(now);
        if self.term != Some(heartbeat.term) || heartbeat.number <= self.number {
            return;
        }
        self.number = heartbeat.number;
        self.received += 1;
        let heard = LastHeartbeat { heard_at: now, silent_from: now };
        if let Some(before) = self.last.replace(heard) {
            self.gaps.note(now.since(before.silent_from));
        }
    }

    /// What is heard of the leader.
    pub fn hearing(&self, now: Moment) -> LeaderHearing {
        let (Some(term), Some(last)) = (self.term, self.last) else { return LeaderHearing::Unknown };
        // The listener has not run since.
        let now = self.polled_at.map_or(now, |polled_at| now.min(polled_at + POLL_GAP_MAX));
        match now.since(last.silent_from) < self.effective() {
            true => LeaderHearing::Heard { term },
            false => LeaderHearing::Silent { term, last: last.heard_at },
        }
    }

    /// When the leader would turn silent; `None` where it is not heard.
    pub fn next_check(&self) -> Option<Moment> {
        let silent_at = self.last?.silent_from + self.effective();
        (self.polled_at < Some(silent_at)).then_some(silent_at)
    }

    /// The `suspect_after` in force: the configured one, or more where the link has shown longer gaps.
    pub fn effective(&self) -> Duration {
        let most = Settings::SUSPECT_AFTER_MAX.max(self.configured);
        (self.gaps.largest() * GAPS_ALLOWED).clamp(self.configured, most)
    }

    /// All of it, to be shown.
    pub fn facts(&self, now: Moment) -> HearingFacts {
        HearingFacts {
            hearing: self.hearing(now),
            heard_at: self.last.map(|last| last.heard_at),
            suspect_after: self.effective(),
            received: self.received,
        }
    }
}

/// The largest gaps of the present span and of the one before it.
#[derive(Clone, Copy, Debug, Default)]
struct RecentGaps {
    began_at: Option<Moment>,
    present: Duration,
    before: Duration,
}

impl RecentGaps {
    fn forget_old(&mut self, now: Moment) {
        let age = now.since(*self.began_at.get_or_insert(now));
        if GAP_KEPT <= age {
            let before = if age < 2 * GAP_KEPT { self.present } else { Duration::ZERO };
            *self = RecentGaps { began_at: Some(now), present: Duration::ZERO, before };
        }
    }

    fn note(&mut self, gap: Duration) {
        self.present = self.present.max(gap);
    }

    fn largest(&self) -> Duration {
        self.present.max(self.before)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Lsn;

    const TERM: Term = Term(7);

    fn ms(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }

    fn heartbeat(term: Term, number: u64) -> Heartbeat {
        Heartbeat { term, number, flushed: Lsn(1), proof_age: Duration::ZERO, sync_revision: 0 }
    }

    fn listening() -> HeartbeatWatch {
        let mut watch = HeartbeatWatch::new(Duration::from_millis(600));
        watch.listen_to(Some(TERM));
        watch
    }

    /// Hears one every `every` until `until`, and polls in between. The next number.
    fn hear(watch: &mut HeartbeatWatch, mut number: u64, times: std::ops::Range<u64>, every: usize) -> u64 {
        for at in times.clone().step_by(50) {
            watch.poll(ms(at));
            if (at - times.start).is_multiple_of(every as u64) {
                watch.heard(&heartbeat(TERM, number), ms(at));
                number += 1;
            }
        }
        number
    }

    /// Polls as a driver does. What is heard at the end.
    fn polled(watch: &mut HeartbeatWatch, times: std::ops::RangeInclusive<u64>) -> LeaderHearing {
        let end = *times.end();
        times.step_by(50).for_each(|at| watch.poll(ms(at)));
        watch.poll(ms(end));
        watch.hearing(ms(end))
    }

    #[test]
    fn a_leader_is_unknown_then_heard_then_silent() {
        let mut watch = listening();
        assert_eq!(polled(&mut watch, 0..=5_000), LeaderHearing::Unknown);
        assert_eq!(watch.next_check(), None);
        let number = hear(&mut watch, 1, 5_000..6_050, 100);
        assert_eq!(watch.hearing(ms(6_000)), LeaderHearing::Heard { term: TERM });
        assert_eq!(watch.next_check(), Some(ms(6_600)));
        assert_eq!(polled(&mut watch, 6_000..=6_599), LeaderHearing::Heard { term: TERM });
        let silent = LeaderHearing::Silent { term: TERM, last: ms(6_000) };
        assert_eq!(polled(&mut watch, 6_599..=6_600), silent);
        assert_eq!(watch.next_check(), None);
        assert_eq!(polled(&mut watch, 6_600..=20_000), silent);
        watch.heard(&heartbeat(TERM, number), ms(20_000));
        assert_eq!(watch.hearing(ms(20_000)), LeaderHearing::Heard { term: TERM });
    }

    #[test]
    fn heartbeats_of_another_term_and_repeated_ones_do_not_count() {
        let mut watch = listening();
        watch.heard(&heartbeat(Term(6), 1), ms(0));
        assert_eq!(watch.hearing(ms(0)), LeaderHearing::Unknown);
        watch.heard(&heartbeat(TERM, 5), ms(100));
        for number in [5, 4, 1] {
            watch.heard(&heartbeat(TERM, number), ms(300));
        }
        assert_eq!(watch.facts(ms(300)).heard_at, Some(ms(100)));
        watch.begin_stream();
        watch.heard(&heartbeat(TERM, 1), ms(400));
        assert_eq!(watch.facts(ms(400)).heard_at, Some(ms(400)), "a new stream has numbers of its own");
        watch.listen_to(Some(TERM));
        assert_eq!(watch.facts(ms(400)).heard_at, Some(ms(400)), "the same term");
        watch.listen_to(Some(Term(8)));
        assert_eq!(watch.hearing(ms(400)), LeaderHearing::Unknown, "another term forgets all");
        watch.heard(&heartbeat(Term(8), 2), ms(500));
        assert_eq!(watch.hearing(ms(500)), LeaderHearing::Heard { term: Term(8) }, "in the same stream");
        let mut refused = watch.clone();
        refused.refused();
        assert_eq!(polled(&mut refused, 500..=5_000), LeaderHearing::Unknown, "its silence says nothing");
        watch.listen_to(None);
        assert_eq!(watch.hearing(ms(500)), LeaderHearing::Unknown);
    }

    #[test]
    fn the_allowed_time_adapts_to_the_link() {
        let mut watch = listening();
        let number = hear(&mut watch, 1, 0..5_000, 100);
        assert_eq!(watch.effective(), Duration::from_millis(600));
        let number = hear(&mut watch, number, 5_000..8_000, 250);
        assert_eq!(watch.effective(), Duration::from_millis(750));
        assert_eq!(polled(&mut watch, 8_000..=8_450), LeaderHearing::Heard { term: TERM });
        let number = hear(&mut watch, number, 9_000..9_050, 100);
        assert_eq!(watch.effective(), Settings::SUSPECT_AFTER_MAX, "a gap of 1.25 s");
        let number = hear(&mut watch, number, 9_100..30_000, 100);
        assert_eq!(watch.effective(), Settings::SUSPECT_AFTER_MAX);
        hear(&mut watch, number, 30_000..75_000, 100);
        assert_eq!(watch.effective(), Duration::from_millis(600), "a minute later");
        watch.configure(Duration::from_secs(1));
        assert_eq!(watch.effective(), Duration::from_secs(1));
    }

    #[test]
    fn time_in_which_the_listener_did_not_run_is_no_silence() {
        let mut watch = listening();
        let number = hear(&mut watch, 1, 0..1_050, 100);
        // Nobody polls: whoever asks meanwhile gets no silence.
        assert_eq!(watch.hearing(ms(9_000)), LeaderHearing::Heard { term: TERM });
        watch.poll(ms(9_000));
        assert_eq!(watch.hearing(ms(9_000)), LeaderHearing::Heard { term: TERM });
        let mut without = watch.clone();
        watch.heard(&heartbeat(TERM, number), ms(9_050));
        assert_eq!(watch.effective(), Duration::from_millis(1_050), "only 350 ms of it were a gap");
        let silent = LeaderHearing::Silent { term: TERM, last: ms(1_000) };
        assert_eq!(polled(&mut without, 9_000..=9_299), LeaderHearing::Heard { term: TERM });
        assert_eq!(polled(&mut without, 9_299..=9_300), silent);
    }

    proptest! {
        #[test]
        fn it_turns_silent_at_its_next_check(gaps in prop::collection::vec(1u64..290, 1..50)) {
            let (mut watch, mut now) = (listening(), 0);
            for (number, gap) in (1..).zip(gaps) {
                now += gap;
                watch.heard(&heartbeat(TERM, number), ms(now));
                prop_assert_eq!(watch.hearing(ms(now)), LeaderHearing::Heard { term: TERM });
            }
            let check = watch.next_check().expect("it is heard").as_nanos() / 1_000_000;
            prop_assert_eq!(polled(&mut watch, now..=check - 1), LeaderHearing::Heard { term: TERM });
            prop_assert_eq!(polled(&mut watch, check - 1..=check), LeaderHearing::Silent { term: TERM, last: ms(now) });
        }
    }
}
