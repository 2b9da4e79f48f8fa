//! The composition root: it builds the parts, and runs what the command line asks for.
//!
//! ```text
//! dispatch ─► run ─► member ─► preflight ─► Agent::prepare ─► rest: the interface, beside it ─► Agent::run
//!     ├─────► check (preflight), guard, demo
//!     ├─────► kubectl ─► kube: the command, in a pod of the cluster
//!     └─────► every other command of `cli`
//! ```
//!
//! Everything may be imported here, and nothing imports it. Deliberately absent: anything but building and running.

mod certificates;
mod check;
mod dispatch;
mod error;
mod guard;
mod kubectl;
mod member;
mod owner;
mod preflight;
mod rest;
mod run;

pub use dispatch::main;
