//! The lease facts of a member, and the arithmetic of the lease deadlines.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Moment;

/// An etcd lease. The member key and the leader key of one supervisor process share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseId(pub i64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// The leader key's modification revision: it grows with every change of leadership, also with a hand-over,
/// which rewrites the key in place and so keeps its create revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Term(pub i64);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether the leader key hangs on my lease, as the last confirmed renewal read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Leading {
    /// No renewal has been confirmed yet, or the lease is gone and a new one is not confirmed.
    #[default]
    Unknown,
    /// A linearizable read showed the leader key under another lease, or absent.
    No,
    /// A linearizable read showed the leader key under my lease, written in this term.
    Yes(Term),
}

/// The lease as its own task last reported it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseFacts {
    /// My lease, once etcd granted one.
    pub lease: Option<LeaseId>,
    /// Also mine: a lease with another TTL, to which the leader key is being moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving_to: Option<LeaseId>,
    /// Until when etcd certainly keeps the lease: send time of the last confirmed renewal, plus the TTL in its
    /// answer, less the drift allowance.
    pub deadline: Option<Moment>,
    /// Until when the other members have promised not to take the leader key, whatever becomes of the lease: failsafe
    /// mode. `None` when none of their promises counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promised_until: Option<Moment>,
    /// My last lease that etcd did not know any more, if a read after that showed no leader key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vanished: Option<LeaseId>,
    /// The leader key as that renewal read it.
    pub leading: Leading,
    /// The TTL of the last answer.
    pub ttl: Duration,
    /// The last trouble, for the operator; empty when the last renewal went well.
    pub trouble: Option<String>,
}

impl LeaseFacts {
    /// Whether this lease is mine.
    pub fn owns(&self, lease: LeaseId) -> bool {
        self.lease == Some(lease) || self.moving_to == Some(lease)
    }

    /// Until when no other member leads: as long as the lease lasts, or the members' promises.
    pub fn covered_until(&self) -> Option<Moment> {
        self.deadline.max(self.promised_until)
    }

    /// Whether the members' promises last beyond `now`.
    pub fn is_promised(&self, now: Moment) -> bool {
        self.promised_until.is_some_and(|until| now < until)
    }

    /// The term I lead in, if the lease or the members' promises certainly last beyond `now`.
    pub fn leading_at(&self, now: Moment) -> Option<Term> {
        match (self.leading, self.covered_until()) {
            (Leading::Yes(term), Some(until)) if now < until => Some(term),
            (Leading::Yes(_) | Leading::No | Leading::Unknown, _) => None,
        }
    }

    /// Whether I lead and the primary has to stop now. The guard stops it if nothing else has.
    pub fn runs_out(&self, now: Moment) -> bool {
        let before = LeaseTiming { ttl: self.ttl }.demote_before();
        self.leading_at(now).is_some() && self.leading_at(now + before).is_none()
    }

    /// Whether a renewal that was sent at `since` or later has confirmed that I lead in `term`.
    pub fn leads_since(&self, term: Term, since: Moment) -> bool {
        self.leading == Leading::Yes(term) && self.renewed_since(since)
    }

    /// Whether etcd has confirmed a renewal that was sent at `since` or later.
    pub fn renewed_since(&self, since: Moment) -> bool {
        let sent_then = LeaseTiming { ttl: self.ttl }.deadline(since);
        self.deadline.is_some_and(|deadline| sent_then <= deadline)
    }

    /// Whether Postgres may be promoted in `term` now: the lease itself lasts longer than a demotion takes.
    pub fn allows_promotion(&self, term: Term, now: Moment) -> bool {
        let before = LeaseTiming { ttl: self.ttl }.demote_before();
        self.leading == Leading::Yes(term) && self.deadline.is_some_and(|deadline| now + before < deadline)
    }
}

/// The spans derived from a TTL (design, "The lease").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTiming {
    /// The TTL etcd granted.
    pub ttl: Duration,
}

impl LeaseTiming {
    /// The allowance for the drift of two clocks within one TTL and for the granularity of etcd's expiry: 1 % and 50
    /// ms.
    pub fn drift_allowance(self) -> Duration {
        self.ttl / 100 + Duration::from_millis(50)
    }

    /// How often to renew: a quarter of the TTL, so that three tries in a row may fail.
    pub fn renew_every(self) -> Duration {
        self.ttl / 4
    }

    /// How long one endpoint may take before the next is asked as well: a twentieth of the TTL, at most 300 ms.
    pub fn hedge_after(self) -> Duration {
        (self.ttl / 20).min(Duration::from_millis(300))
    }

    /// How long one renewal may take in all before it is given up and sent anew.
    pub fn try_timeout(self) -> Duration {
        self.ttl / 5
    }

    /// When the renewal that was sent at `sent_at` stops counting.
    pub fn deadline(self, sent_at: Moment) -> Moment {
        sent_at + self.ttl.saturating_sub(self.drift_allowance())
    }

    /// This long before the deadline the primary locks clients out and is stopped: a tenth of the TTL, at least 1 s.
    pub fn demote_before(self) -> Duration {
        (self.ttl / 10).max(Duration::from_secs(1))
    }

    /// This long before the deadline every PostgreSQL process is killed: a thirtieth of the TTL, at least 300 ms.
    pub fn kill_before(self) -> Duration {
        (self.ttl / 30).max(Duration::from_millis(300))
    }

    /// When a primary whose lease ends at `deadline` is stopped.
    pub fn stop_at(self, deadline: Moment) -> Moment {
        deadline - self.demote_before()
    }

    /// When a primary whose lease ends at `deadline` is killed.
    pub fn kill_at(self, deadline: Moment) -> Moment {
        deadline - self.kill_before()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_spans_of_a_lease_are_in_order_for_every_legal_ttl(seconds in 3u64..3600, sent in 0u64..1 << 50) {
            let timing = LeaseTiming { ttl: Duration::from_secs(seconds) };
            let sent_at = Moment::from_nanos(sent);
            let deadline = timing.deadline(sent_at);
            prop_assert!(deadline < sent_at + timing.ttl);
            prop_assert!(timing.kill_before() < timing.demote_before());
            // Two renewals fit between the first and the demotion, so one lost answer costs nothing.
            prop_assert!(sent_at + timing.renew_every() + timing.try_timeout() < deadline - timing.demote_before());
        }
    }

    #[test]
    fn only_a_renewal_sent_later_confirms_leadership() {
        let timing = LeaseTiming { ttl: Duration::from_secs(10) };
        let sent_at = Moment::from_millis(5000);
        let facts = LeaseFacts {
            deadline: Some(timing.deadline(sent_at)),
            leading: Leading::Yes(Term(7)),
            ttl: timing.ttl,
            ..LeaseFacts::default()
        };
        assert!(facts.leads_since(Term(7), sent_at));
        assert!(!facts.leads_since(Term(7), sent_at + Duration::from_millis(1)));
        assert!(!facts.leads_since(Term(6), sent_at));
    }

    #[test]
    fn promises_prolong_leadership_and_allow_no_promotion() {
        let facts = LeaseFacts {
            deadline: Some(Moment::from_millis(100)),
            promised_until: Some(Moment::from_millis(9_000)),
            leading: Leading::Yes(Term(7)),
            ttl: Duration::from_secs(10),
            ..LeaseFacts::default()
        };
        let at = Moment::from_millis(200);
        assert_eq!(facts.leading_at(at), Some(Term(7)));
        assert!(!facts.allows_promotion(Term(7), at) && !facts.renewed_since(at));
        assert_eq!(facts.leading_at(Moment::from_millis(9_000)), None);
    }

    #[test]
    fn a_lease_past_its_deadline_gives_no_leadership() {
        let facts = LeaseFacts {
            deadline: Some(Moment::from_millis(100)),
            leading: Leading::Yes(Term(7)),
            ..LeaseFacts::default()
        };
        assert_eq!(facts.leading_at(Moment::from_millis(99)), Some(Term(7)));
        assert_eq!(facts.leading_at(Moment::from_millis(100)), None);
    }
}
