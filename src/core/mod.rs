//! The sans-I/O machines around [`crate::decide`]. The agent and the simulation drive the same machines.
//!
//! ```text
//!  member      events and levels in, effects out: looks at PostgreSQL, decides, orders
//!  guard       which process kills PostgreSQL at which deadline: the rules, the supervisor's side, the guard's process
//!  lease       the rounds of the lease: renewed, confirmed, moved to another TTL, lost
//!  list_watch  the cluster's view: a list, the watch after it, and a list again
//!  store       etcd's keys and transactions as values
//!  roles       what is due on the roles in PostgreSQL that a supervisor uses
//!  startup     what a supervisor does at its start about a PostgreSQL and a guard that already run
//!  callbacks   which script is due after a decision
//!  job         a long action as steps: the next step, given the answer to the last one
//!  journal     the records of changes of leadership, from what the decisions saw
//!  heartbeat   what a member hears of its leader
//!  last_written  what a file has, and when a write that failed is tried again
//!  work_queue  what waits for a worker that does one thing at a time: looks and statements
//! ```
//!
//! A machine takes an input and the present moment, changes its own state, and returns effects as data. A driver
//! carries them out in order, reports the answers, and has no rules of its own.
//!
//! **Invariant:** no clock, no I/O, no randomness.

#![deny(clippy::disallowed_methods)]

pub mod callbacks;
pub mod guard;
pub mod heartbeat;
pub mod job;
pub mod journal;
pub mod last_written;
pub mod lease;
pub mod list_watch;
pub mod member;
pub mod roles;
pub mod startup;
pub mod store;
pub mod work_queue;
