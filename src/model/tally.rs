//! What a member has counted and measured since it started, for `/metrics`. No decision reads it.

use std::time::Duration;

use super::{
    ChangeKind, JournalEntry, JournalFact, JournalRecord, LeaseFacts, Moment, Reason, Sighting, TermBegan,
    TermEnd, short_sentence,
};

/// A sign so long before the new leader served has nothing to do with the change.
const SIGN_COUNTS_MS: i64 = 600_000;

/// The counts. The loop owns them and publishes a copy with its status, so that a scrape needs no lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Terms of mine that began, in the order of `TermStart::ALL`.
    began: [u64; TermStart::ALL.len()],
    /// Terms of mine that ended, in the order of `TERM_ENDS`.
    ended: [u64; TERM_ENDS.len()],
    /// Hand-overs of mine that did not happen.
    pub refused: u64,
    /// Crashes of PostgreSQL while I led.
    pub crashes: u64,
    /// Decisions that differed from the one before.
    pub decisions: u64,
    /// Times without a primary that ended here, in the order of `OUTAGES`.
    outages: [Histogram; OUTAGES.len()],
    /// From the first sign until I decided to lead.
    pub detection: Histogram,
    /// From there until PostgreSQL served.
    pub promotion: Histogram,
    /// What was left of the lease at each renewal.
    pub lease_margin: Histogram,
    deadline: Option<Moment>,
    crashed_at: Option<Moment>,
    served: bool,
    down_since: Option<Moment>,
    because: Option<Reason>,
}

/// How my term began, and the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TermStart {
    First,
    SwitchoverAsked,
    Switchover,
    FailoverAsked,
    LeaseEnded,
    Released,
    HeartbeatsMissed,
    OtherFailover,
    Again,
    FoundAgain,
}

/// The values of the label `reason` of terms that ended.
const TERM_ENDS: [&str; 5] = ["handed_over", "released", "ran_out", "replaced", "deleted"];
/// The values of the label `kind` of outages.
const OUTAGES: [&str; 4] = ["switchover", "failover", "again", "restart"];
/// Where the last one stands: PostgreSQL served again under the same leader.
const RESTART: usize = 3;

impl TermStart {
    const ALL: [TermStart; 10] = [
        TermStart::First,
        TermStart::SwitchoverAsked,
        TermStart::Switchover,
        TermStart::FailoverAsked,
        TermStart::LeaseEnded,
        TermStart::Released,
        TermStart::HeartbeatsMissed,
        TermStart::OtherFailover,
        TermStart::Again,
        TermStart::FoundAgain,
    ];

    fn of(began: &TermBegan) -> TermStart {
        let saw = |is: fn(&JournalFact) -> bool| began.seen.iter().any(|sighting| is(&sighting.what));
        // A request that names the leader is a switchover; a failover that follows one has a cause of its own.
        let asked = began.request.as_ref().is_some_and(|request| request.leader.is_none());
        match began.kind {
            ChangeKind::First => TermStart::First,
            ChangeKind::HandOver if began.request.is_some() => TermStart::SwitchoverAsked,
            ChangeKind::HandOver => TermStart::Switchover,
            ChangeKind::Failover if asked => TermStart::FailoverAsked,
            ChangeKind::Failover if saw(|what| matches!(what, JournalFact::LeaseEnded { .. })) => {
                TermStart::LeaseEnded
            }
            ChangeKind::Failover if saw(|what| matches!(what, JournalFact::KeyReleased { .. })) => {
                TermStart::Released
            }
            ChangeKind::Failover => TermStart::OtherFailover,
            ChangeKind::Recruited => TermStart::HeartbeatsMissed,
            ChangeKind::Again => TermStart::Again,
            ChangeKind::FoundAgain => TermStart::FoundAgain,
        }
    }

    /// The labels `kind` and `reason`.
    fn labels(self) -> (&'static str, &'static str) {
        match self {
            TermStart::First => ("first", "new_cluster"),
            TermStart::SwitchoverAsked => ("switchover", "operator"),
            TermStart::Switchover => ("switchover", "leader"),
            TermStart::FailoverAsked => ("failover", "operator"),
            TermStart::LeaseEnded => ("failover", "lease_ended"),
            TermStart::Released => ("failover", "released"),
            TermStart::HeartbeatsMissed => ("failover", "heartbeats_missed"),
            TermStart::OtherFailover => ("failover", "other"),
            TermStart::Again => ("again", "restarted"),
            TermStart::FoundAgain => ("again", "kept_running"),
        }
    }
}

impl Tally {
    /// Counts a record of mine.
    pub fn record(&mut self, record: &JournalRecord) {
        match &record.entry {
            JournalEntry::Began(began) => {
                let start = TermStart::of(began);
                self.began[start as usize] += 1;
                let kind = OUTAGES.iter().position(|kind| *kind == start.labels().0);
                if let (Some(kind), Some(first)) = (kind, first_sign(record, began)) {
                    self.outages[kind].add(between(first, record.at.0));
                    let decided = decided_at(began).unwrap_or(record.at.0);
                    self.detection.add(between(first, decided));
                    self.promotion.add(between(decided, record.at.0));
                }
            }
            JournalEntry::Ended(ended) => {
                let how = match &ended.how {
                    TermEnd::HandedOver { .. } => 0,
                    TermEnd::Released => 1,
                    TermEnd::RanOut => 2,
                    TermEnd::Replaced { .. } => 3,
                    TermEnd::Deleted => 4,
                };
                self.ended[how] += 1;
            }
            JournalEntry::Refused { .. } => self.refused += 1,
            JournalEntry::Discarded { .. } => {}
        }
    }

    /// Takes note of the lease: a later deadline is a renewal.
    pub fn lease(&mut self, lease: &LeaseFacts, now: Moment) {
        let deadline = lease.deadline.filter(|_| lease.leading_at(now).is_some());
        if let (Some(old), Some(new)) = (self.deadline, deadline)
            && old < new
        {
            self.lease_margin.add(now.until(old));
        }
        self.deadline = deadline;
    }

    /// Takes note of whether I lead, and whether PostgreSQL serves as the primary.
    pub fn serving(&mut self, leads: bool, serves: bool, now: Moment) {
        if !leads {
            (self.served, self.down_since) = (false, None);
        } else if serves {
            if let Some(since) = self.down_since.take() {
                self.outages[RESTART].add(now.since(since));
            }
            self.served = true;
        } else if self.served {
            self.down_since.get_or_insert(now);
        }
    }

    /// Takes note of a decision's reason.
    pub fn decided(&mut self, because: Option<&Reason>) {
        if self.because.as_ref() != because {
            self.decisions += 1;
            self.because = because.cloned();
        }
    }

    /// Takes note of the newest crash.
    pub fn crash(&mut self, at: Option<Moment>) {
        if self.crashed_at < at {
            self.crashes += 1;
            self.crashed_at = at;
        }
    }

    /// Terms that began, with the labels `kind` and `reason`.
    pub fn terms_began(&self) -> impl Iterator<Item = ((&'static str, &'static str), u64)> {
        TermStart::ALL.into_iter().map(TermStart::labels).zip(self.began)
    }

    /// Terms that ended, with the label `reason`.
    pub fn terms_ended(&self) -> impl Iterator<Item = (&'static str, u64)> {
        TERM_ENDS.into_iter().zip(self.ended)
    }

    /// Outages, with the label `kind`.
    pub fn outages(&self) -> impl Iterator<Item = (&'static str, &Histogram)> {
        OUTAGES.into_iter().zip(&self.outages)
    }
}

/// The first sign of the change that the new leader recorded, in milliseconds.
fn first_sign(record: &JournalRecord, began: &TermBegan) -> Option<i64> {
    let signs = began.seen.iter().map(|it| it.at.0).chain(began.steps.iter().map(|it| it.at.0));
    signs.filter(|at| record.at.0 - at <= SIGN_COUNTS_MS).min()
}

/// When it decided to lead; after a hand-over, when it saw the key moved.
fn decided_at(began: &TermBegan) -> Option<i64> {
    let because = short_sentence(&began.because);
    let decision = began.steps.iter().find(|step| step.because == because).map(|step| step.at.0);
    let moved = |it: &&Sighting| matches!(it.what, JournalFact::KeyMoved { .. });
    decision.or(began.seen.iter().find(moved).map(|it| it.at.0))
}

/// A clock that was set back gives zero.
fn between(from: i64, to: i64) -> Duration {
    Duration::from_millis(u64::try_from(to - from).unwrap_or(0))
}

/// Durations by size. Counts only grow, so no scrape loses any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Those up to each bound and above the one before; the last: those above all.
    counts: [u64; Histogram::BOUNDS_MS.len() + 1],
    sum: Duration,
}

impl Histogram {
    const BOUNDS_MS: [u64; 11] =
        [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 20_000, 30_000, 60_000, 300_000];

    fn add(&mut self, span: Duration) {
        let index = Self::BOUNDS_MS.partition_point(|bound| Duration::from_millis(*bound) < span);
        self.counts[index] += 1;
        self.sum += span;
    }

    /// The number up to each bound in seconds; the last bound is infinite.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = Self::BOUNDS_MS.into_iter().map(|bound| Duration::from_millis(bound).as_secs_f64());
        let sums = self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        bounds.chain([f64::INFINITY]).zip(sums)
    }

    /// The number of all.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all.
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }

    #[test]
    fn a_bound_belongs_to_its_bucket_and_buckets_add_up() {
        let mut histogram = Histogram::default();
        [100, 101, 300_001].into_iter().for_each(|millis| histogram.add(Duration::from_millis(millis)));
        let buckets: Vec<_> = histogram.buckets().collect();
        assert_eq!(buckets[..2], [(0.1, 1), (0.25, 2)]);
        assert_eq!(buckets[10..], [(300.0, 2), (f64::INFINITY, 3)]);
        assert_eq!((histogram.count(), histogram.sum().as_millis()), (3, 300_202));
    }

    #[test]
    fn an_outage_ends_where_the_same_leader_serves_again() {
        let mut tally = Tally::default();
        let restarts = |tally: &Tally| tally.outages[RESTART].sum().as_millis();
        tally.serving(true, false, ms(0));
        tally.serving(true, true, ms(100));
        assert_eq!(restarts(&tally), 0, "a leader that never served had no outage");
        tally.serving(true, false, ms(1_000));
        tally.serving(true, false, ms(2_000));
        tally.serving(true, true, ms(3_500));
        assert_eq!(restarts(&tally), 2_500);
        tally.serving(true, false, ms(4_000));
        tally.serving(false, false, ms(5_000));
        tally.serving(true, true, ms(9_000));
        assert_eq!(restarts(&tally), 2_500, "the next leader measures it");
    }

    #[test]
    fn a_crash_counts_once() {
        let mut tally = Tally::default();
        [None, Some(ms(5)), Some(ms(5)), None, Some(ms(5)), Some(ms(9))]
            .into_iter()
            .for_each(|at| tally.crash(at));
        assert_eq!(tally.crashes, 2);
    }
}
