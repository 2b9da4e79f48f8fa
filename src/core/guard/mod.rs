//! The guard's protocol: which process kills PostgreSQL at which deadline, and when that is certain.
//!
//! ```text
//!  lease, loop ─► Arming ─► KeepGuard ═ GuardOrder, GuardAnswer ═► Guard ─► GuardActions: stop, kill, timer, watchdog
//!                 (rules)   (supervisor)                           (guard's process)
//! ```
//!
//! Three machines, each with one owner:
//!
//! * [`Arming`]: which lease arms the guard, with which deadlines, and whether PostgreSQL may be promoted under it.
//! * [`KeepGuard`]: keeps one guard alive, gives it the newest order, knows which order the present guard has
//!   acknowledged, and is the fence itself while there is no guard.
//! * [`Guard`]: the process that kills. It allocates nothing.
//!
//! The target is a type parameter: the processes of one PostgreSQL in the product, a value without content in the
//! simulation and the models.

mod arming;
mod effect;
mod guard_action;
mod keep;
mod message;
mod process;

pub use arming::{Arming, LeaseMoveArming, WatchdogRule, WatchdogState};
pub use effect::{GuardEffect, GuardEvent, GuardLoss};
pub use guard_action::{GuardAction, GuardActions};
pub use keep::KeepGuard;
pub use message::{ArmedDeadlines, Deadlines, GuardAnswer, GuardOrder, GuardPhase, LeftBehind};
pub use process::{Guard, GuardInput};
