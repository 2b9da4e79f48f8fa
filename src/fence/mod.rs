//! The guard: a process of its own that kills a Postgres when a deadline passes, whatever the supervisor does.
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
//! * **Armed before writable.** A promotion asks [`Link::holds`]: the guard has acknowledged the very deadlines.
//! * **Fed by proof only.** The guard's deadlines change by an order to arm and by nothing else, and the lease gives
//!   that order only for a confirmed renewal that still showed the leader key. A guard, or a supervisor, that takes the
//!   place of another goes on with the deadlines that the other had.
//! * **Whoever freezes or dies, somebody is left.** Supervisor gone or frozen: the guard fires. Guard gone: its end of
//!   the socket closes, the link's thread starts another at once. Guard frozen: it does not answer, is killed, and
//!   replaced, within two seconds. No replacement to be had: the link's thread stops Postgres. Both frozen: the
//!   dead-man timer, by which the kernel kills Postgres while nobody runs; the guard kills whoever was born too late
//!   for that when it goes on. Where the kernel stands still, too (a paused virtual machine, the freezer of cgroup v1,
//!   which holds back even SIGKILL), the guard that goes on has to be quick; the machine's watchdog, where there is
//!   one, is for that. Both dead: Postgres runs on until a supervisor starts, which then stops it: under an orderly
//!   service manager that is a second or two, and `watchdog.mode: required` covers the rest.
//! * **A name says armed.** The guard's socket lies beside the data directory as `….matriarch-guard` from before it is
//!   first armed until after it is disarmed, and as `….matriarch-guard-idle` otherwise. So a supervisor that starts
//!   knows: no such name, and nobody was ever fenced here (a primary taken over from Patroni); the name, and nobody who
//!   answers behind it, and a primary may run without a fence.
//! * **Proof of death.** Fired is over only when two looks through `/proc` in a row found no process.
//!
//! Deliberately absent: who should lead, and what a lease is.

mod dead_man_timer;
mod descriptors;
mod error;
mod guard;
mod keeping;
mod link;
mod message;
mod predecessor;
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
pub use protection::Protection;
pub use watchdog::{DeviceDriver, WatchdogTrouble};
