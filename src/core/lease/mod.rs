//! The lease that leadership hangs on: granted, renewed, moved to another TTL, lost.
//!
//! ```text
//!  Wait ──► KeepAlive ──► ReadLeader ──► confirmed: TellGuard, Publish ──► Wait
//!    │          ▲            └─ not confirmed: once more
//!    │          ├──── Grant (there is no lease)
//!    └─ another TTL: Grant ──► KeepAlive ──► ReadLeader ──► AskGuard ──► ReadLeader ──► Commit
//! ```
//!
//! [`LeaseRounds::next`] takes the answer to the question before, and says what is done now and what is asked next. A
//! driver carries the effects out in their order, then finds the answer. A driver that is frozen, killed or cut off
//! stops between two questions or within one; the deadline that was published and told to the guard holds meanwhile.
//!
//! [`Renewal`] judges the answers: it alone moves the deadline. While trouble lasts the rounds go on, before the
//! deadline and after it: to give up is not decided here.
//!
//! Beside the rounds a leader that etcd does not answer asks the members to let it lead on (failsafe mode). All that
//! could take the leader key have to promise that, each time for one TTL from when they were asked.

mod renewal;
mod rounds;
mod ttl_change;

use std::collections::BTreeSet;
use std::time::Duration;

pub use renewal::{KeepAliveAnswer, LeaderRead, PromiseRound, Renewal, RenewalVerdict};
pub use rounds::LeaseRounds;

use super::store::{Cas, Txn, WriteError};
use crate::model::{FailsafeMembers, LeaseId, LeaseTiming, MemberName, Moment, Term};

/// What the driver does next: the effects in their order, then the question.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseNext {
    /// To be done.
    pub effects: Vec<LeaseEffect>,
    /// To be answered.
    pub ask: LeaseQuestion,
}

/// What is done without an answer in turn. [`LeaseRounds::facts`] are what it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseEffect {
    /// Show the facts to everybody else.
    Publish,
    /// A renewal is confirmed, or the members have promised: the guard, if it is armed, gets the deadline in the facts.
    TellGuard,
    /// Ask all members that could take the leader key, beside all else, whether they let me lead for one more TTL. What
    /// they answered within this time, each or none, goes to [`LeaseRounds::promised`].
    AskMembers {
        /// The question; it is sent now.
        round: PromiseRound,
        /// Who did not promise the last time. They are asked first, and the others only when these have promised: a
        /// promise delays a failover, and is of no use without those of all.
        first: BTreeSet<MemberName>,
        /// How long they have.
        within: Duration,
    },
    /// Tell operators.
    Say(LeaseNotice),
}

/// What became of a question to the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromiseAnswers {
    /// The question.
    pub round: PromiseRound,
    /// Who had to be asked.
    pub asked: FailsafeMembers,
    /// Who has promised.
    pub promised: BTreeSet<MemberName>,
    /// Who has to promise by now.
    pub needed: Option<FailsafeMembers>,
}

impl PromiseAnswers {
    /// Who was asked and has not promised.
    fn missing(&self) -> BTreeSet<MemberName> {
        self.asked.keys().filter(|name| !self.promised.contains(*name)).cloned().collect()
    }

    /// All that could take the leader key have promised.
    fn suffice(&self) -> bool {
        let all = |needed: &FailsafeMembers| needed.keys().all(|name| self.promised.contains(name));
        self.needed.as_ref().is_some_and(|needed| self.asked == *needed && all(needed))
    }
}

/// What operators are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseNotice {
    /// etcd does not know this lease any more.
    Gone(LeaseId),
    /// The lease has another TTL.
    TtlChanged {
        /// The new lease.
        lease: LeaseId,
        /// Its TTL.
        ttl: Duration,
        /// The term that it leads in; `None`: it does not lead.
        term: Option<Term>,
    },
    /// The TTL stays as it is for now.
    TtlKept {
        /// The TTL that is wanted.
        ttl: Duration,
        /// Why it cannot be had.
        error: WriteError,
    },
}

/// What the driver finds the answer to. Each request to etcd may also be answered by [`LeaseAnswer::Failed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseQuestion {
    /// Wait until then, or until somebody wants a renewal at once, or another TTL. Answer: [`LeaseAnswer::Woke`].
    Wait {
        /// At the latest.
        until: Moment,
    },
    /// Grant a lease, in the time that one of this TTL has. Answer: [`LeaseAnswer::Granted`].
    Grant {
        /// Its TTL.
        ttl: Duration,
    },
    /// Renew this lease. Answer: [`LeaseAnswer::Renewed`].
    KeepAlive {
        /// Which.
        lease: LeaseId,
        /// The time for it.
        timing: LeaseTiming,
    },
    /// Read the leader key, linearizable. Answer: [`LeaseAnswer::Leader`].
    ReadLeader {
        /// The time for it.
        timing: LeaseTiming,
    },
    /// Have the guard, if it is armed, armed with the deadline in the facts, and wait for its acknowledgement. Answer:
    /// [`LeaseAnswer::GuardHolds`].
    AskGuard,
    /// Commit this transaction, which moves leadership. Answer: [`LeaseAnswer::Moved`].
    Commit(Txn),
}

/// The answer to a [`LeaseQuestion`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseAnswer {
    /// The wait is over, or the machine begins.
    Woke {
        /// The TTL that the lease should have, in whole seconds.
        ttl: Duration,
        /// Why nothing may be renewed now.
        withheld: Option<String>,
    },
    /// A lease was granted.
    Granted(LeaseId),
    /// The lease was renewed.
    Renewed(KeepAliveAnswer),
    /// The leader key.
    Leader(LeaderRead),
    /// Whether no guard kills later than the deadline in the facts says.
    GuardHolds(bool),
    /// How the transaction ended.
    Moved(Cas),
    /// The request failed.
    Failed(WriteError),
}

#[cfg(test)]
mod tests;
