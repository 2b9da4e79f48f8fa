//! Synchronous replication: one owner of `synchronous_standby_names` and of the key `sync`.
//!
//! ```text
//!  what is seen ─► State ─► quorum::steps / priority::step ─► Step ─► allowed? ─► one action, then look again
//! ```
//!
//! The key `sync` promises that among any `quorum + 1` of the voters and the leader one holds every acknowledged commit
//! ([`crate::model::SyncRecord`]). Each step keeps that promise by itself, so a crash between two of them does too:
//! names only change so that every later commit keeps the present promise ([`State::may_name`]), and a promise is only
//! made once enough standbys hold everything that was acknowledged before the names took effect
//! ([`State::may_promise`]). Sources: PostgreSQL manual, "Synchronous Replication"; design, section 9.

mod eligible;
mod gate;
mod leader;
mod priority;
mod quorum;
mod standby;
mod state;
#[cfg(test)]
mod tests;

pub(super) use eligible::{can_take_over, refusal, voters_only};
pub(super) use gate::{is_gated, must_gate};
pub(super) use leader::on_leader;
pub(super) use standby::{keep_names, leave, prepare_promotion};
pub use state::{State, Step};

pub use priority::step as priority_step;
pub use quorum::steps as quorum_steps;
