//! The events for a [`KeepGuard`](super::KeepGuard), and the effects that it asks its driver for.

use super::{GuardAnswer, GuardOrder};

/// A report of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardEvent {
    /// A guard was started, as [`GuardEffect::StartGuard`] asked.
    Started,
    /// An answer of the present guard.
    Answered(GuardAnswer),
    /// The present guard's end of the connection is closed.
    Closed,
    /// The guard's socket was renamed.
    Renamed {
        /// Whether it has the name of an armed guard now.
        armed: bool,
    },
    /// [`GuardEffect::KillPostgres`] found no process left.
    NoneLeft {
        /// The number from the effect.
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

/// An instruction for the driver. A failure needs no report: the effect is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardEffect<T> {
    /// Act in the guard's place: SIGQUIT to the postmaster.
    StopPostgres(T),
    /// Act in the guard's place: SIGKILL to every process.
    KillPostgres {
        /// The processes.
        target: T,
        /// The number of the order.
        sequence: u32,
        /// The deadline is not reached, but no guard can be started.
        without_guard: bool,
    },
    /// End the present guard, whatever its state.
    EndGuard {
        /// The reason.
        lost: GuardLoss,
        /// Whether deadlines are armed.
        armed: bool,
    },
    /// Start a guard.
    StartGuard,
    /// Give the guard's socket the name of an armed guard.
    NameArmed,
    /// Remove that name: from the guard's socket, or from one that a former supervisor left.
    NameIdle {
        /// Whether the guard's own socket has it.
        ours: bool,
    },
    /// Send this order to the guard without waiting.
    Send {
        /// The order's number.
        sequence: u32,
        /// The order.
        order: GuardOrder<T>,
    },
    /// The guard has acknowledged an order: threads that wait for it may continue.
    Held {
        /// This guard replaced one that was lost while it was armed.
        replaced: bool,
    },
    /// The guard of a former supervisor may end.
    DismissPredecessor,
}
