//! The machines around the decision: pure, synchronous, driven from outside.
//!
//! A machine takes an input and the present moment, changes its own state, and says in data what is to be done. The
//! product drives it with threads, sockets and timers; the simulation drives the same machine with simulated ones. A
//! driver carries out what it is told in that order, and has no rules of its own.
//!
//! Deliberately absent: clocks, I/O, threads, `async`, randomness.

#![deny(clippy::disallowed_methods)]

pub mod guard;
