//! What the answers of etcd prove about the lease.

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

/// A question to all members that could take the leader key: whether they let me lead for one more TTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromiseRound {
    /// The term in which I lead.
    pub term: Term,
    /// My lease.
    pub lease: LeaseId,
    /// The TTL that is asked for.
    pub ttl: Duration,
    /// Read before the first question was sent.
    pub sent_at: Moment,
}

/// What an answer and the read after it amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewalVerdict {
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
        let LeaseFacts { promised_until, vanished, .. } = self.facts;
        self.facts =
            LeaseFacts { lease: Some(lease), ttl, promised_until, vanished, ..LeaseFacts::default() };
    }

    /// A keepalive was answered, and the leader key was read after that.
    pub fn confirm(&mut self, answer: &KeepAliveAnswer, read: &LeaderRead) -> RenewalVerdict {
        if self.facts.lease != Some(answer.lease) {
            return RenewalVerdict::OtherLease;
        }
        if answer.raft_term != read.raft_term {
            return RenewalVerdict::TermsDiffer;
        }
        let deadline = LeaseTiming { ttl: answer.ttl }.deadline(answer.sent_at);
        self.facts.deadline = self.facts.deadline.max(Some(deadline));
        self.facts.ttl = answer.ttl;
        self.facts.leading = leading(read, answer.lease);
        self.facts.trouble = None;
        self.note_owner(read);
        RenewalVerdict::Confirmed
    }

    /// All members that could take the leader key have promised, when they were asked at `sent_at`, not to take it for
    /// a TTL. False if that proves nothing: they were asked about another term or lease, or the promises came too late.
    pub fn promised(&mut self, asked: &PromiseRound, now: Moment) -> bool {
        let same = self.facts.lease == Some(asked.lease) && self.facts.ttl == asked.ttl;
        let leads = self.facts.leading_at(now) == Some(asked.term) && self.facts.moving_to.is_none();
        if !same || !leads {
            return false;
        }
        let until = LeaseTiming { ttl: asked.ttl }.deadline(asked.sent_at);
        self.facts.promised_until = self.facts.promised_until.max(Some(until));
        true
    }

    /// The promises were made to a leader. They end where another member leads.
    fn note_owner(&mut self, read: &LeaderRead) {
        let mine = |owner: &(LeaseId, Term)| self.facts.owns(owner.0);
        if read.leader.as_ref().is_some_and(|owner| !mine(owner)) {
            self.facts.promised_until = None;
        }
    }

    /// etcd said that the lease does not exist, and the leader key was read after that. False when the read shows the
    /// leader key still hanging on it, so that one of the two is wrong and nothing is known.
    pub fn gone(&mut self, read: &LeaderRead) -> bool {
        if self.facts.lease.is_some_and(|lease| matches!(leading(read, lease), Leading::Yes(_))) {
            return false;
        }
        self.note_owner(read);
        let LeaseFacts { lease, promised_until, ttl, .. } = self.facts;
        let vanished = lease.filter(|_| read.leader.is_none());
        self.facts =
            LeaseFacts { leading: Leading::No, ttl, promised_until, vanished, ..LeaseFacts::default() };
        true
    }

    /// The leader key is about to move to another lease, which has just been renewed, too, and the key was read after
    /// that: from now on both leases are mine, and the earlier of the two deadlines holds, with the TTL that belongs to
    /// it. The only case in which a deadline moves back. False when the two answers prove nothing: then nothing may
    /// move.
    pub fn moving(&mut self, answer: &KeepAliveAnswer, read: &LeaderRead) -> bool {
        if answer.raft_term != read.raft_term {
            return false;
        }
        let deadline = LeaseTiming { ttl: answer.ttl }.deadline(answer.sent_at);
        if self.facts.deadline.is_some_and(|known| deadline < known) {
            self.facts.deadline = Some(deadline);
            self.facts.ttl = answer.ttl;
        }
        self.facts.moving_to = Some(answer.lease);
        true
    }

    /// Nothing moves: the leader key stays on the lease that it is on.
    pub fn stays(&mut self) {
        self.facts.moving_to = None;
    }

    /// The lease that was moved to is mine from now on; `term` when the leader key is known to hang on it. Deadline and
    /// TTL stay what they are until it is renewed.
    pub fn moved(&mut self, lease: LeaseId, term: Option<Term>) {
        (self.facts.lease, self.facts.moving_to) = (Some(lease), None);
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
        assert_eq!(renewal.confirm(&answer(2_000), &read(7)), RenewalVerdict::Confirmed);
        assert_eq!(renewal.facts().deadline, Some(Moment::from_millis(11_850)));
        assert_eq!(renewal.facts().leading, Leading::Yes(Term(5)));
        assert_eq!(renewal.confirm(&answer(1_000), &read(8)), RenewalVerdict::Confirmed);
        assert_eq!(renewal.facts().deadline, Some(Moment::from_millis(11_850)));
        assert_eq!(renewal.facts().leading, Leading::No);
    }

    #[test]
    fn answers_of_two_raft_terms_or_of_another_lease_prove_nothing() {
        let mut renewal = granted();
        assert_eq!(
            renewal.confirm(&answer(1), &LeaderRead { raft_term: 3, ..read(7) }),
            RenewalVerdict::TermsDiffer
        );
        let other = KeepAliveAnswer { lease: LeaseId(8), ..answer(1) };
        assert_eq!(renewal.confirm(&other, &read(8)), RenewalVerdict::OtherLease);
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
        let short = Duration::from_secs(3);
        let shorter = KeepAliveAnswer { lease: LeaseId(8), ttl: short, ..answer(1_000) };
        assert!(!renewal.moving(&shorter, &LeaderRead { raft_term: 3, ..read(7) }), "of two raft terms");
        assert_eq!(renewal.facts().deadline, Some(Moment::from_millis(9_850)));
        assert_eq!(renewal.facts().moving_to, None);
        assert!(renewal.moving(&shorter, &read(7)));
        assert!(renewal.facts().owns(MINE) && renewal.facts().owns(LeaseId(8)));
        assert_eq!(
            (renewal.facts().deadline, renewal.facts().ttl),
            (Some(Moment::from_millis(3_920)), short)
        );
        let stop_at = LeaseTiming { ttl: renewal.facts().ttl }.stop_at(Moment::from_millis(3_920));
        assert!(Moment::from_millis(1_000) < stop_at, "nobody is stopped for the change");
        let longer = KeepAliveAnswer { lease: LeaseId(9), ..answer(9_000) };
        assert!(renewal.moving(&longer, &read(7)));
        assert_eq!(
            (renewal.facts().deadline, renewal.facts().ttl),
            (Some(Moment::from_millis(3_920)), short)
        );
    }

    #[test]
    fn a_longer_lease_counts_from_its_first_renewal() {
        let mut renewal = granted();
        renewal.confirm(&answer(0), &read(7));
        let long = Duration::from_secs(60);
        let longer = |sent_at| KeepAliveAnswer { lease: LeaseId(8), ttl: long, ..answer(sent_at) };
        assert!(renewal.moving(&longer(1_000), &read(7)));
        renewal.moved(LeaseId(8), Some(Term(6)));
        // With the long TTL's arithmetic the short deadline would be a stop in the past.
        assert_eq!((renewal.facts().deadline, renewal.facts().ttl), (Some(Moment::from_millis(9_850)), TTL));
        assert_eq!(renewal.confirm(&longer(2_000), &read(8)), RenewalVerdict::Confirmed);
        assert_eq!(renewal.facts().ttl, long);
    }
}
