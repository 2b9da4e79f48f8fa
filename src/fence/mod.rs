//! The guard: a separate process that kills a Postgres when a deadline passes, even if the supervisor hangs or is gone.
//!
//! ```text
//!  lease's thread ─► Link (supervisor) ══ one socket ══► guard (process) ──► SIGQUIT, then SIGKILL until none is left
//!  loop, jobs     ─►      │                                 ├── dead-man timer: the kernel kills when both are frozen
//!                         │                                 └── watchdog: resets the machine
//!                    link thread: keeps a guard alive, and is the fence itself while there is none
//! ```
//!
//! The protocol itself is [`crate::core::guard`]: the process and the link's thread are drivers of its machines.
//!
//! # Invariants
//!
//! * **Armed before writable.** A promotion, and the start of a primary in place, ask [`Link::holds`]: the guard has
//!   acknowledged the very deadlines.
//! * **Armed only by proof.** Only an order to arm changes the guard's deadlines, and the lease gives that order only
//!   for a confirmed renewal that still showed the leader key. A guard, or a supervisor, that replaces another
//!   continues with the deadlines of the other.
//! * **One failure never leaves a primary without a fence.** Supervisor gone or frozen: the guard fires. Guard gone:
//!   its end of the socket closes, and the link's thread starts another at once. Guard frozen: it does not answer, and
//!   is killed and replaced within two seconds. No replacement possible: the link's thread stops Postgres. Both frozen:
//!   the kernel kills Postgres by the dead-man timer, without any program; when the guard continues, it kills the
//!   processes that were forked too late for a trigger. If the kernel stands still too (a paused virtual machine, the
//!   freezer of cgroup v1, which holds back even SIGKILL), the guard has to act quickly when it continues; the
//!   machine's watchdog, if there is one, covers that case. Both dead: Postgres runs until a supervisor starts, which
//!   then stops it. With a service manager that restarts it, that takes a second or two; `watchdog.mode: required`
//!   covers the other cases.
//! * **The name of the socket shows whether the guard is armed.** The guard's socket lies beside the data directory.
//!   Its name is `….matriarch-guard` from before it is first armed until after it is disarmed, and
//!   `….matriarch-guard-idle` otherwise. So a supervisor that starts can tell two cases apart. No such name: no guard
//!   was ever armed here (a primary taken over from Patroni). The name, but no answer behind it: a primary may run
//!   without a fence.
//! * **Proof of death.** Firing ends only when two looks through `/proc` in a row found no process.
//!
//! Deliberately absent: which member should lead, and what a lease is.

mod dead_man_timer;
mod descriptors;
mod error;
mod guard;
mod keeping;
mod link;
mod message;
mod predecessor;
mod program;
mod protection;
mod running;
mod socket;
mod trigger;
mod watchdog;

pub use crate::core::guard::{ArmedDeadlines, Deadlines, GuardPhase};
pub use error::FenceError;
pub use guard::{GuardSetup, run};
pub use link::{GuardFacts, Link, LinkSetup, WatchdogSetup};
pub use message::WatchdogFacts;
pub use predecessor::Found;
pub use program::run_separate;
pub use protection::Protection;
pub use watchdog::{DeviceDriver, WatchdogTrouble};
