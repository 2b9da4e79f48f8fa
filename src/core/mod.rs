//! The sans-I/O machines around [`crate::decide`]. The agent and the simulation drive the same machines.
//!
//! ```text
//!  member  events and levels in, effects out: looks at PostgreSQL, decides, orders
//!  store   etcd's keys and transactions as values
//!  job     a long action as steps: what comes next, given the answer to the step before
//! ```
//!
//! **Invariant:** no clock, no I/O, no randomness. A driver does what a machine asks for, and answers.

#![deny(clippy::disallowed_methods)]

pub mod job;
pub mod member;
pub mod store;
