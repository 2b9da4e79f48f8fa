//! Decisions: the whole situation table as a snapshot an operator can read, and scenarios with their stories.

mod liveness;
mod rejoin;
mod scenarios;
mod simulated;
mod table;
mod watchdog;
mod world;
