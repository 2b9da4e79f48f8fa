//! Another TTL: a new lease, and leadership moves to it.
//!
//! The new lease is renewed once, the guard is armed with the earlier of both deadlines and, when it has acknowledged
//! that, leadership moves. Until the move is known to be done or lost it is tried again, nothing is renewed, and the
//! earlier deadline holds. As long as nothing has moved, what fails keeps the lease as it is.

use std::time::Duration;

use super::rounds::{LeasePhase, LeaseRounds, TERMS_DIFFER};
use super::{KeepAliveAnswer, LeaderRead, LeaseAnswer, LeaseNext, LeaseNotice, LeaseQuestion};
use crate::core::store::WriteError;
use crate::model::{LeaseId, LeaseTiming, Moment, Term};

/// The pause after a change of the TTL could not begin: the lease is kept as it is meanwhile.
const CHANGE_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The lease that leadership moves to.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewLease {
    lease: LeaseId,
    ttl: Duration,
}

/// Which question of a change is open.
#[derive(Clone, Copy, Debug)]
pub(super) enum TtlChangePhase {
    Granting,
    /// The new lease can be renewed in its time.
    Renewing(NewLease),
    Confirming(NewLease, KeepAliveAnswer),
    /// The guard holds what the new lease promises.
    AskingGuard(NewLease),
    /// Leadership may have been taken, or moved by an earlier try, since the last renewal.
    ReadingOwner(NewLease),
    Moving(NewLease),
}

impl LeaseRounds {
    pub(super) fn begin_change(&mut self) -> LeaseNext {
        self.ask_of_change(TtlChangePhase::Granting, LeaseQuestion::Grant { ttl: self.wanted_ttl })
    }

    /// From here on the move may have been done.
    pub(super) fn continue_move(&mut self, to: NewLease) -> LeaseNext {
        self.moving_to = Some(to);
        self.read_leader(LeasePhase::Changing(TtlChangePhase::ReadingOwner(to)))
    }

    /// What comes next in a change.
    pub(super) fn change(&mut self, phase: TtlChangePhase, answer: LeaseAnswer, now: Moment) -> LeaseNext {
        match (phase, answer) {
            (TtlChangePhase::Granting, LeaseAnswer::Granted(lease)) => {
                let ttl = self.wanted_ttl;
                let question = LeaseQuestion::KeepAlive { lease, timing: LeaseTiming { ttl } };
                self.ask_of_change(TtlChangePhase::Renewing(NewLease { lease, ttl }), question)
            }
            (TtlChangePhase::Renewing(to), LeaseAnswer::Renewed(answer)) => {
                self.read_leader(LeasePhase::Changing(TtlChangePhase::Confirming(to, answer)))
            }
            (TtlChangePhase::Confirming(to, answer), LeaseAnswer::Leader(read)) => {
                self.prepare_move(to, &answer, &read, now)
            }
            (TtlChangePhase::AskingGuard(to), LeaseAnswer::GuardHolds(true)) => self.continue_move(to),
            (TtlChangePhase::AskingGuard(_), LeaseAnswer::GuardHolds(false)) => {
                let why = "the guard has not confirmed the other deadline";
                self.keep(WriteError::Unknown(why.to_owned()), now)
            }
            (TtlChangePhase::ReadingOwner(to), LeaseAnswer::Leader(read)) => self.move_to(to, &read, now),
            (TtlChangePhase::Moving(to), LeaseAnswer::Moved(cas)) => {
                self.moved(to, cas.revision().map(Term), now)
            }
            (TtlChangePhase::Moving(_), LeaseAnswer::Failed(WriteError::Unknown(why))) => {
                self.failed(why, now)
            }
            (TtlChangePhase::ReadingOwner(_), LeaseAnswer::Failed(error)) => {
                self.failed(error.to_string(), now)
            }
            (_, LeaseAnswer::Failed(error)) => self.keep(error, now),
            (_, answer) => self.out_of_turn(&answer, now),
        }
    }

    /// Before anything moves: the new deadline is known, and is shown before the guard is armed, so that nobody arms it
    /// with the longer deadline afterwards.
    fn prepare_move(
        &mut self,
        to: NewLease,
        answer: &KeepAliveAnswer,
        read: &LeaderRead,
        now: Moment,
    ) -> LeaseNext {
        if !self.renewal.moving(answer, read) {
            return self.keep(WriteError::Unknown(TERMS_DIFFER.to_owned()), now);
        }
        self.publish();
        self.ask_of_change(TtlChangePhase::AskingGuard(to), LeaseQuestion::AskGuard)
    }

    fn move_to(&mut self, to: NewLease, read: &LeaderRead, now: Moment) -> LeaseNext {
        let old = self.facts().lease;
        match read.leader {
            Some((owner, term)) if owner == to.lease => self.moved(to, Some(term), now),
            Some((owner, term)) if Some(owner) == old => {
                let question = LeaseQuestion::Commit(self.keys.move_leadership((term, owner), to.lease));
                self.ask_of_change(TtlChangePhase::Moving(to), question)
            }
            Some(_) | None => self.moved(to, None, now),
        }
    }

    /// The new lease is the present one; it leads in `term`, if it leads.
    fn moved(&mut self, to: NewLease, term: Option<Term>, now: Moment) -> LeaseNext {
        self.renewal.moved(to.lease, term);
        (self.moving_to, self.granted_ttl) = (None, to.ttl);
        self.say(LeaseNotice::TtlChanged { lease: to.lease, ttl: to.ttl, term });
        self.publish();
        self.renew(now)
    }

    /// Nothing has moved: what cannot be changed now is kept as it is.
    fn keep(&mut self, error: WriteError, now: Moment) -> LeaseNext {
        self.moving_to = None;
        self.renewal.stays();
        self.change_at = now + CHANGE_AGAIN_AFTER;
        self.say(LeaseNotice::TtlKept { ttl: self.wanted_ttl, error });
        self.renew(now)
    }

    fn ask_of_change(&mut self, phase: TtlChangePhase, question: LeaseQuestion) -> LeaseNext {
        self.ask(LeasePhase::Changing(phase), question)
    }
}
