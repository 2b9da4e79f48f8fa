//! The sans-I/O machines around [`crate::decide`]. The agent and the simulation drive the same machines.
//!
//! ```text
//!  member  events and levels in, effects out: looks at PostgreSQL, decides, orders
//!  guard   who kills PostgreSQL at which deadline: the rules, the supervisor's side, the guard's process
//!  store   etcd's keys and transactions as values
//!  startup what becomes of a PostgreSQL and a guard that a supervisor finds when it starts
//!  job     a long action as steps: what comes next, given the answer to the step before
//!  work_queue  what waits for a worker that does one thing at a time: looks and statements
//! ```
//!
//! A machine takes an input and the present moment, changes its own state, and says in data what is to be done. A
//! driver carries that out in order, answers, and has no rules of its own.
//!
//! **Invariant:** no clock, no I/O, no randomness.

#![deny(clippy::disallowed_methods)]

pub mod guard;
pub mod job;
pub mod member;
pub mod startup;
pub mod store;
pub mod work_queue;
