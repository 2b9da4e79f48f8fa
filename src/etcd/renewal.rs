//! What the answers of etcd prove about the lease. Pure: moments come in as arguments, so a simulation can run it.

use std::time::Duration;

use crate::model::{Leading, LeaseFacts, LeaseId, LeaseTiming, Moment, Term};

/// An answer to one keepalive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAliveAnswer {
    /// For which lease.
    pub lease: LeaseId,
    /// Read before that very request was sent.
    pub sent_at: Moment,
    /// The lease's time to live, as the answer says.
    pub ttl: Duration,
    /// Of the answering member.
    pub raft_term: u64,
}

/// A linearizable read of the leader key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderRead {
    /// Of the answering member.
    pub raft_term: u64,
    /// The key's lease (0 for none) and modification revision; `None` when it is absent.
    pub leader: Option<(LeaseId, Term)>,
}

/// What an answer and the read after it amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The deadline has moved (never back).
    Confirmed,
    /// They come from different raft terms, so a deposed etcd leader may have answered the keepalive: try again.
    TermsDiffer,
    /// The answer is about a lease that is not mine (any more): it proves nothing.
    OtherLease,
}

/// The lease as it is known, from grant to loss.
#[derive(Clone, Debug, Default)]
pub struct Renewal {
    facts: LeaseFacts,
}

impl Renewal {
    /// What is known now.
    pub fn facts(&self) -> &LeaseFacts {
        &self.facts
    }

    /// A first lease was granted, or one in place of a lost one. It counts from its first confirmed renewal.
    pub fn granted(&mut self, lease: LeaseId, ttl: Duration) {
        self.facts = LeaseFacts { lease: Some(lease), ttl, ..LeaseFacts::default() };
    }

    /// A keepalive was answered, and the leader key was read after that.
    pub fn confirm(&mut self, answer: &KeepAliveAnswer, read: &LeaderRead) -> Verdict {
        if self.facts.lease != Some(answer.lease) {
            return Verdict::OtherLease;
        }
        if answer.raft_term != read.raft_term {
            return Verdict::TermsDiffer;
        }
        let deadline = LeaseTiming { ttl: answer.ttl }.deadline(answer.sent_at);
        self.facts.deadline = self.facts.deadline.max(Some(deadline));
        self.facts.ttl = answer.ttl;
        self.facts.leading = leading(read, answer.lease);
        self.facts.trouble = None;
        Verdict::Confirmed
    }

    /// etcd said that the lease does not exist, and the leader key was read after that. False when the read shows the
    /// leader key still hanging on it, so that one of the two is wrong and nothing is known.
    pub fn gone(&mut self, read: &LeaderRead) -> bool {
        if self.facts.lease.is_some_and(|lease| matches!(leading(read, lease), Leading::Yes(_))) {
            return false;
        }
        self.facts = LeaseFacts { leading: Leading::No, ttl: self.facts.ttl, ..LeaseFacts::default() };
        true
    }

    /// The leader key is about to move to a lease that was asked for at `sent_at`: from then on the earlier of the two
    /// deadlines holds. The only case in which a deadline moves back.
    pub fn moving(&mut self, ttl: Duration, sent_at: Moment) {
        let deadline = LeaseTiming { ttl }.deadline(sent_at);
        self.facts.deadline = self.facts.deadline.map(|known| known.min(deadline));
    }

    /// The lease that was moved to is mine from now on; `term` when the leader key is known to hang on it.
    pub fn moved(&mut self, lease: LeaseId, ttl: Duration, term: Option<Term>) {
        self.facts.lease = Some(lease);
        self.facts.ttl = ttl;
        self.facts.leading = term.map_or(Leading::No, Leading::Yes);
    }

    /// A try failed in a way that proves nothing.
    pub fn trouble(&mut self, text: String) {
        self.facts.trouble = Some(text);
    }
}

fn leading(read: &LeaderRead, lease: LeaseId) -> Leading {
    match read.leader {
        Some((owner, term)) if owner == lease => Leading::Yes(term),
        Some(_) | None => Leading::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);
    const MINE: LeaseId = LeaseId(7);

    fn answer(sent_at: u64) -> KeepAliveAnswer {
        KeepAliveAnswer { lease: MINE, sent_at: Moment::from_millis(sent_at), ttl: TTL, raft_term: 2 }
    }

    fn read(owner: i64) -> LeaderRead {
        LeaderRead { raft_term: 2, leader: Some((LeaseId(owner), Term(5))) }
    }

    fn granted() -> Renewal {
        let mut renewal = Renewal::default();
        renewal.granted(MINE, TTL);
        renewal
    }

    #[test]
    fn a_grant_alone_proves_nothing() {
        assert_eq!(granted().facts().deadline, None);
        assert_eq!(granted().facts().leading, Leading::Unknown);
    }

    #[test]
    fn the_deadline_counts_from_sending_and_never_moves_back() {
        let mut renewal = granted();
        assert_eq!(renewal.confirm(&answer(2_000), &read(7)), Verdict::Confirmed);
        assert_eq!(renewal.facts().deadline, Some(Moment::from_millis(11_850)));
        assert_eq!(renewal.facts().leading, Leading::Yes(Term(5)));
        assert_eq!(renewal.confirm(&answer(1_000), &read(8)), Verdict::Confirmed);
        assert_eq!(renewal.facts().deadline, Some(Moment::from_millis(11_850)));
        assert_eq!(renewal.facts().leading, Leading::No);
    }

    #[test]
    fn answers_of_two_raft_terms_or_of_another_lease_prove_nothing() {
        let mut renewal = granted();
        assert_eq!(
            renewal.confirm(&answer(1), &LeaderRead { raft_term: 3, ..read(7) }),
            Verdict::TermsDiffer
        );
        let other = KeepAliveAnswer { lease: LeaseId(8), ..answer(1) };
        assert_eq!(renewal.confirm(&other, &read(8)), Verdict::OtherLease);
        assert_eq!(renewal.facts().deadline, None);
    }

    #[test]
    fn a_lease_is_lost_only_when_the_read_does_not_contradict() {
        let mut renewal = granted();
        renewal.confirm(&answer(1), &read(7));
        assert!(!renewal.gone(&read(7)));
        assert_eq!(renewal.facts().lease, Some(MINE));
        assert!(renewal.gone(&LeaderRead { raft_term: 2, leader: None }));
        assert_eq!((renewal.facts().lease, renewal.facts().leading), (None, Leading::No));
    }

    #[test]
    fn a_shorter_lease_shortens_the_deadline_before_the_key_moves() {
        let mut renewal = granted();
        renewal.confirm(&answer(0), &read(7));
        renewal.moving(Duration::from_secs(3), Moment::from_millis(1_000));
        assert_eq!(renewal.facts().deadline, Some(Moment::from_millis(3_920)));
        renewal.moving(TTL, Moment::from_millis(9_000));
        assert_eq!(renewal.facts().deadline, Some(Moment::from_millis(3_920)));
    }
}
