//! What the driver of a [`KeepGuard`](super::KeepGuard) reports, and what it has to do.

use super::{GuardAnswer, GuardOrder};

/// What a driver reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardEvent {
    /// A guard was started, as [`GuardEffect::StartGuard`] asked.
    Started,
    /// The present guard said this.
    Answered(GuardAnswer),
    /// The present guard's end of the connection is closed.
    Closed,
    /// The guard's socket has the name that says armed, or has it no longer.
    Renamed {
        /// Which.
        armed: bool,
    },
    /// [`GuardEffect::KillPostgres`] found that no process is left.
    NoneLeft {
        /// As in the effect.
        sequence: u32,
    },
}

/// Why a guard does not count any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardLoss {
    /// Its end of the socket is closed.
    Died,
    /// It does not answer.
    Frozen,
}

/// What a driver has to do. A failure needs no report: the effect comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardEffect<T> {
    /// Be the fence: SIGQUIT to the postmaster.
    StopPostgres(T),
    /// Be the fence: SIGKILL to every process.
    KillPostgres {
        /// Whose processes.
        target: T,
        /// The order that said so.
        sequence: u32,
        /// The deadline lies ahead, but no guard can be had.
        without_guard: bool,
    },
    /// End the present guard, whatever state it is in.
    EndGuard {
        /// Why.
        lost: GuardLoss,
        /// Something is armed.
        armed: bool,
    },
    /// Start a guard.
    StartGuard,
    /// Give the guard's socket the name that says armed.
    NameArmed,
    /// Take that name away: from the guard's socket, or from one that a former supervisor left.
    NameIdle {
        /// The guard's own socket has it.
        ours: bool,
    },
    /// Send this to the guard; never wait for that.
    Send {
        /// The order's number.
        sequence: u32,
        /// The order.
        order: GuardOrder<T>,
    },
    /// An order is held now that was not before: whoever waits for it may go on.
    Held {
        /// This guard took the place of one that was lost while something was armed.
        replaced: bool,
    },
    /// The guard of a former supervisor may go.
    DismissPredecessor,
}
