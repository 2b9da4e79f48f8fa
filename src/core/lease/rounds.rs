//! The rounds: one renewal each, with what it takes to have a lease that can be renewed.

use std::collections::BTreeSet;
use std::time::Duration;

use super::ttl_change::{NewLease, TtlChangePhase};
use super::{
    KeepAliveAnswer, LeaderRead, LeaseAnswer, LeaseEffect, LeaseNext, LeaseNotice, LeaseQuestion,
    PromiseAnswers, PromiseRound, Renewal, RenewalVerdict,
};
use crate::core::store::{Keys, WriteError};
use crate::model::{LeaseFacts, LeaseId, LeaseTiming, MemberName, Moment};

/// The pause after a round that failed.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// A round tries this often: an answer of a deposed etcd leader, or a lease that is gone, is no reason to wait.
const TRIES_MAX: u32 = 2;
/// Why a renewal does not count.
pub(super) const TERMS_DIFFER: &str = "keepalive and read come from different raft terms";

/// The lease of one supervisor process. It begins with [`LeaseAnswer::Woke`].
#[derive(Clone, Debug)]
pub struct LeaseRounds {
    pub(super) keys: Keys,
    pub(super) renewal: Renewal,
    /// The TTL that was asked for with the present lease.
    pub(super) granted_ttl: Duration,
    /// The present lease is of a previous incarnation, and its TTL is not known before its first renewal.
    resumed: bool,
    /// A lease that leadership may have moved to already; nothing is renewed before that is known.
    pub(super) moving_to: Option<NewLease>,
    /// No change of the TTL begins before.
    pub(super) change_at: Moment,
    began_at: Moment,
    /// The TTL that the lease should have, as of the beginning of this round.
    pub(super) wanted_ttl: Duration,
    tries_left: u32,
    /// The members are not asked before.
    ask_members_at: Moment,
    /// Who did not promise the last time.
    unpromised: BTreeSet<MemberName>,
    phase: LeasePhase,
    effects: Vec<LeaseEffect>,
}

/// Which question is open.
#[derive(Clone, Copy, Debug)]
pub(super) enum LeasePhase {
    Waiting,
    /// Another TTL is wanted.
    Changing(TtlChangePhase),
    /// There is no lease.
    Granting,
    Renewing,
    /// The renewal was answered, and counts if the leader key is read in the same raft term.
    Confirming(KeepAliveAnswer),
    /// The lease was not found, and is gone if the leader key does not hang on it.
    ConfirmingLoss,
}

impl LeaseRounds {
    /// For a lease of this TTL. With `resumed` it first goes on with that lease, which a previous incarnation of this
    /// supervisor left behind; if it is gone, a new one is granted.
    ///
    /// A lease that is gone on with is known from the first moment: the loop would take the leader key on it for one of
    /// a previous incarnation, stop its Postgres and revoke it.
    pub fn new(keys: Keys, ttl: Duration, resumed: Option<LeaseId>) -> LeaseRounds {
        let mut renewal = Renewal::default();
        if let Some(lease) = resumed {
            renewal.granted(lease, ttl);
        }
        LeaseRounds {
            keys,
            renewal,
            granted_ttl: ttl,
            resumed: resumed.is_some(),
            moving_to: None,
            change_at: Moment::default(),
            began_at: Moment::default(),
            wanted_ttl: ttl,
            tries_left: 0,
            ask_members_at: Moment::default(),
            unpromised: BTreeSet::new(),
            phase: LeasePhase::Waiting,
            effects: Vec::new(),
        }
    }

    /// The lease as it is known now.
    pub fn facts(&self) -> &LeaseFacts {
        self.renewal.facts()
    }

    /// What comes next, given the answer to the question before.
    pub fn next(&mut self, answer: LeaseAnswer, now: Moment) -> LeaseNext {
        match (self.phase, answer) {
            (LeasePhase::Waiting, LeaseAnswer::Woke { ttl, withheld }) => {
                (self.began_at, self.wanted_ttl, self.tries_left) = (now, ttl, TRIES_MAX);
                match withheld {
                    None => self.begin(now),
                    Some(why) => self.withheld(format!("not renewed: {why}"), now),
                }
            }
            (LeasePhase::Changing(phase), answer) => self.change(phase, answer, now),
            (LeasePhase::Granting, LeaseAnswer::Granted(lease)) => self.granted(lease),
            (LeasePhase::Renewing, LeaseAnswer::Renewed(answer)) => {
                self.read_leader(LeasePhase::Confirming(answer))
            }
            (LeasePhase::Renewing, LeaseAnswer::Failed(WriteError::LeaseNotFound)) => {
                self.read_leader(LeasePhase::ConfirmingLoss)
            }
            (LeasePhase::Confirming(answer), LeaseAnswer::Leader(read)) => self.confirm(&answer, &read, now),
            (LeasePhase::ConfirmingLoss, LeaseAnswer::Leader(read)) => self.confirm_loss(&read, now),
            (_, LeaseAnswer::Failed(error)) => self.failed(error.to_string(), now),
            (_, answer) => self.out_of_turn(&answer, now),
        }
    }

    fn begin(&mut self, now: Moment) -> LeaseNext {
        // Only a deadline that is known can be shortened: a lease that is gone on with is confirmed first. Promises
        // cannot be shortened.
        let confirmed = self.facts().deadline.is_some() && !self.facts().is_promised(now);
        let wanted = confirmed && self.wanted_ttl != self.granted_ttl && self.change_at <= now;
        match self.moving_to {
            Some(to) => self.continue_move(to),
            None if wanted => self.begin_change(),
            None => self.renew(now),
        }
    }

    /// Renews the lease that there is, or has one granted.
    pub(super) fn renew(&mut self, now: Moment) -> LeaseNext {
        if self.tries_left == 0 {
            return self.failed(TERMS_DIFFER.to_owned(), now);
        }
        self.tries_left -= 1;
        match self.facts().lease {
            Some(lease) => self.keep_alive(lease),
            None => self.ask(LeasePhase::Granting, LeaseQuestion::Grant { ttl: self.wanted_ttl }),
        }
    }

    fn granted(&mut self, lease: LeaseId) -> LeaseNext {
        self.renewal.granted(lease, self.wanted_ttl);
        (self.granted_ttl, self.resumed) = (self.wanted_ttl, false);
        self.publish();
        self.keep_alive(lease)
    }

    fn confirm(&mut self, answer: &KeepAliveAnswer, read: &LeaderRead, now: Moment) -> LeaseNext {
        match self.renewal.confirm(answer, read) {
            RenewalVerdict::TermsDiffer | RenewalVerdict::OtherLease => return self.renew(now),
            RenewalVerdict::Confirmed => {}
        }
        if std::mem::take(&mut self.resumed) {
            self.granted_ttl = self.facts().ttl;
        }
        self.effects.push(LeaseEffect::TellGuard);
        // The wish may not be granted yet.
        let ttl = self.wanted_ttl.min(self.granted_ttl);
        self.wait(self.began_at + LeaseTiming { ttl }.renew_every())
    }

    fn confirm_loss(&mut self, read: &LeaderRead, now: Moment) -> LeaseNext {
        let lease = self.facts().lease;
        if !self.renewal.gone(read) {
            return self.failed("the leader key hangs on a lease not found".to_owned(), now);
        }
        self.effects.extend(lease.map(|lease| LeaseEffect::Say(LeaseNotice::Gone(lease))));
        self.publish();
        self.renew(now)
    }

    /// The round ends without a confirmed lease, and the deadline stays what it is, unless the members prolong it.
    pub(super) fn failed(&mut self, trouble: String, now: Moment) -> LeaseNext {
        self.ask_members(now);
        self.withheld(trouble, now)
    }

    /// This PostgreSQL must not be primary for longer than the deadline says.
    fn withheld(&mut self, trouble: String, now: Moment) -> LeaseNext {
        self.renewal.trouble(trouble);
        self.wait(now + RETRY_AFTER)
    }

    /// A leader that etcd does not answer asks the members. They have half of the time that is left, so that a lost
    /// message, or a member that is slow once, can be asked again.
    fn ask_members(&mut self, now: Moment) {
        let facts = self.facts();
        let (Some(term), Some(lease), Some(until)) =
            (facts.leading_at(now), facts.lease, facts.covered_until())
        else {
            return;
        };
        let timing = LeaseTiming { ttl: facts.ttl };
        // Members without this member's wish promise their own TTL, which may be the shorter one by now.
        if now < self.ask_members_at || facts.moving_to.is_some() || self.wanted_ttl < timing.ttl {
            return;
        }
        self.ask_members_at = now + timing.renew_every();
        let within = timing.stop_at(until).since(now) / 2;
        let round = PromiseRound { term, lease, ttl: timing.ttl, sent_at: now };
        let (first, within) = (self.unpromised.clone(), within.max(timing.hedge_after()));
        self.effects.push(LeaseEffect::AskMembers { round, first, within });
    }

    /// What the members answered. True: the guard, if it is armed, gets the deadline in the facts, and these are shown
    /// to everybody else. Answers that do not suffice change nothing, and the members are asked again.
    pub fn promised(&mut self, answers: &PromiseAnswers, now: Moment) -> bool {
        let changing = matches!(self.phase, LeasePhase::Changing(_));
        self.unpromised = answers.missing();
        let count = !changing && answers.suffice() && self.renewal.promised(&answers.round, now);
        if !count {
            self.ask_members_at = now;
        }
        count
    }

    /// An answer to another question than the one that is open: a driver's fault.
    pub(super) fn out_of_turn(&mut self, answer: &LeaseAnswer, now: Moment) -> LeaseNext {
        self.failed(format!("an answer out of turn: {answer:?}"), now)
    }

    fn wait(&mut self, until: Moment) -> LeaseNext {
        self.publish();
        self.ask(LeasePhase::Waiting, LeaseQuestion::Wait { until })
    }

    fn keep_alive(&mut self, lease: LeaseId) -> LeaseNext {
        let timing = LeaseTiming { ttl: self.granted_ttl };
        self.ask(LeasePhase::Renewing, LeaseQuestion::KeepAlive { lease, timing })
    }

    pub(super) fn read_leader(&mut self, phase: LeasePhase) -> LeaseNext {
        self.ask(phase, LeaseQuestion::ReadLeader { timing: LeaseTiming { ttl: self.granted_ttl } })
    }

    pub(super) fn ask(&mut self, phase: LeasePhase, ask: LeaseQuestion) -> LeaseNext {
        self.phase = phase;
        LeaseNext { effects: std::mem::take(&mut self.effects), ask }
    }

    pub(super) fn publish(&mut self) {
        self.effects.push(LeaseEffect::Publish);
    }

    pub(super) fn say(&mut self, notice: LeaseNotice) {
        self.effects.push(LeaseEffect::Say(notice));
    }
}
