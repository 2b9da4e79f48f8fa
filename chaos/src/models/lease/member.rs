//! One member: the lease as its supervisor knows it, its guard, its Postgres.

use std::time::Duration;

use matriarch::core::guard::{ArmedDeadlines, Arming, Guard, GuardInput, GuardOrder};
use matriarch::core::lease::{KeepAliveAnswer, LeaderRead, Renewal, RenewalVerdict};
use matriarch::model::{LeaseFacts, LeaseId, LeaseTiming, Moment};

use super::Mutation;

/// What the guard needs at most from its deadline until the last process is gone: within `kill_before` of the smallest
/// TTL.
pub(super) const KILL_TAKES: Duration = Duration::from_millis(250);

/// How far the clocks of two members are apart: a moment of one must mean nothing to the other.
const APART: Duration = Duration::from_secs(1000);

#[derive(Clone, Debug)]
pub(super) struct Member {
    /// As the lease's thread knows it.
    pub(super) renewal: Renewal,
    /// As the rest of the supervisor was last told.
    pub(super) shown: LeaseFacts,
    /// Of the lease, as it was last asked for.
    pub(super) ttl: Duration,
    pub(super) asking: Asking,
    pub(super) moving: Moving,
    /// Postgres may be primary: every confirmed renewal arms the guard.
    pub(super) arming: Arming,
    /// It reads this member's clock.
    pub(super) guard: Guard,
    pub(super) postgres: Postgres,
}

/// One renewal, as far as it is. A keepalive arrives as soon as it is sent: one that arrives late makes the lease last
/// longer than anybody counts on.
#[derive(Clone, Debug)]
pub(super) enum Asking {
    Nothing,
    /// It was carried out, and its answer is on its way.
    Answered(KeepAliveAnswer),
    /// etcd does not know the lease.
    NotFound,
}

/// A change to a lease with a shorter TTL, as far as it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Moving {
    Nothing,
    /// The new lease was granted.
    Granted {
        lease: LeaseId,
        sent_at: Moment,
    },
    /// The shorter deadline holds, and the transaction is on its way.
    Shortened {
        lease: LeaseId,
    },
    /// The transaction was carried out.
    Moved {
        lease: LeaseId,
        read: LeaderRead,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Postgres {
    Standby,
    /// The lease allowed the promotion a moment ago; it may become primary at any time.
    Allowed,
    Primary,
}

impl Member {
    pub(super) fn new(lease: LeaseId, ttl: Duration) -> Member {
        let mut renewal = Renewal::default();
        renewal.granted(lease, ttl);
        Member {
            shown: renewal.facts().clone(),
            renewal,
            ttl,
            asking: Asking::Nothing,
            moving: Moving::Nothing,
            arming: Arming::default(),
            guard: Guard::default(),
            postgres: Postgres::Standby,
        }
    }

    /// This member's clock.
    pub(super) fn clock(index: usize, now: Moment) -> Moment {
        now + APART * index as u32
    }

    /// The moment that this member's clock calls `moment`.
    pub(super) fn truly(index: usize, moment: Moment) -> Moment {
        moment - APART * index as u32
    }

    /// When the guard kills, by this member's clock.
    pub(super) fn kill_at(&self) -> Option<Moment> {
        self.guard.armed().map(|deadlines| deadlines.kill_at)
    }

    /// Postgres may be writable from now on: the lease arms the guard.
    pub(super) fn want(&mut self, clock: Moment, mutation: Option<Mutation>) {
        let armed = self.arming.want(&self.shown, Some(()));
        self.order(armed, clock, mutation);
    }

    /// What the lease's thread knows arms the guard, if it is wanted.
    fn renewed(&mut self, clock: Moment, mutation: Option<Mutation>) {
        let armed = self.arming.renewed(self.renewal.facts(), Some(()));
        self.order(armed, clock, mutation);
    }

    /// The guard takes an order.
    fn order(&mut self, armed: Option<ArmedDeadlines<()>>, clock: Moment, mutation: Option<Mutation>) {
        let Some(mut armed) = armed else { return };
        match mutation {
            Some(Mutation::NoGuard) => return,
            Some(Mutation::KillAtTheDeadline) => {
                let timing = LeaseTiming { ttl: self.renewal.facts().ttl };
                armed.deadlines.kill_at = armed.deadlines.kill_at + timing.kill_before();
            }
            _ => {}
        }
        // It fires as soon as it is time, and takes no other deadline then.
        let tick: GuardInput<'_, ()> = GuardInput::Tick;
        let _deeds = self.guard.step(tick, clock);
        let _deeds =
            self.guard.step(GuardInput::Ordered { sequence: 1, order: &GuardOrder::Arm(armed) }, clock);
    }

    /// The keepalive was answered, and the leader key is read now.
    pub(super) fn hear(&mut self, mut read: LeaderRead, clock: Moment, mutation: Option<Mutation>) {
        match std::mem::replace(&mut self.asking, Asking::Nothing) {
            Asking::Answered(mut answer) => {
                match mutation {
                    Some(Mutation::DeadlineFromAnswer) => answer.sent_at = clock,
                    Some(Mutation::RaftTermsNotCompared) => read.raft_term = answer.raft_term,
                    _ => {}
                }
                if self.renewal.confirm(&answer, &read) == RenewalVerdict::Confirmed {
                    self.renewed(clock, mutation);
                }
            }
            Asking::NotFound => drop(self.renewal.gone(&read)),
            Asking::Nothing => {}
        }
        self.shown = self.renewal.facts().clone();
    }

    /// A shorter lease is about to be moved to.
    pub(super) fn shorten(
        &mut self,
        (lease, sent_at): (LeaseId, Moment),
        ttl: Duration,
        clock: Moment,
        mutation: Option<Mutation>,
    ) {
        if mutation != Some(Mutation::OldDeadlineAfterMove) {
            // The one renewal before the move, and the read after it, are one step with the grant here.
            let answer = KeepAliveAnswer { lease, sent_at, ttl, raft_term: 0 };
            let _proved = self.renewal.moving(&answer, &LeaderRead { raft_term: 0, leader: None });
        }
        if mutation != Some(Mutation::MoveShownLate) {
            self.shown = self.renewal.facts().clone();
        }
        self.renewed(clock, mutation);
        self.moving = Moving::Shortened { lease };
    }

    /// The move is known to be done or lost.
    pub(super) fn hear_moved(&mut self, lease: LeaseId, read: LeaderRead, ttl: Duration) {
        let term = read.leader.filter(|(owner, _)| *owner == lease).map(|(_, term)| term);
        self.renewal.moved(lease, term);
        self.ttl = ttl;
        self.moving = Moving::Nothing;
        self.shown = self.renewal.facts().clone();
    }

    /// Every process of Postgres is gone, the guard has nothing left to guard; and it is started again.
    pub(super) fn dies(&mut self) {
        self.postgres = Postgres::Standby;
        self.guard = Guard::default();
        self.arming = Arming::default();
    }

    /// The supervisor is started again and goes on with its former lease, if the leader key hangs on it. The guard
    /// stays as it is.
    pub(super) fn restart(&mut self, former: Option<LeaseId>) {
        self.renewal = Renewal::default();
        if let Some(lease) = former {
            self.renewal.granted(lease, self.ttl);
        }
        self.shown = self.renewal.facts().clone();
        (self.asking, self.moving) = (Asking::Nothing, Moving::Nothing);
        self.arming = Arming::default();
        if self.postgres == Postgres::Standby {
            self.guard = Guard::default();
        } else if let Some(deadlines) = self.guard.armed() {
            // The deadlines that the guard has go on.
            let _same = self.arming.want_until(deadlines, Some(()));
        }
    }
}
