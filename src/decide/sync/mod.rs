//! Synchronous replication: one owner of `synchronous_standby_names` and of the key `sync`.
//!
//! ```text
//!  what is seen ─► QuorumState ─► quorum::steps / priority::step ─► SyncStep ─► allowed? ─► one action, look again
//! ```
//!
//! The key `sync` makes a promise: the leader that it names holds every acknowledged commit, and among any `quorum + 1`
//! of the voters and the leader at least one does ([`crate::model::SyncRecord`]). Each step keeps the promise by
//! itself, so a crash between two steps keeps it too. The names change only so that every later commit keeps the
//! present promise ([`QuorumState::may_name`]). A promise is made only after enough standbys hold everything that was
//! acknowledged before the names took effect ([`QuorumState::may_promise`]). One write to the key is under way at a
//! time, and nothing else happens until it is seen done. Sources: PostgreSQL manual, "Synchronous Replication"; design,
//! section 9.

mod client_lockout;
mod eligible;
mod leader;
mod memory;
mod priority;
mod quorum;
mod remember;
mod seen;
mod standby;
mod state;
#[cfg(test)]
mod tests;

pub(super) use client_lockout::{
    let_clients_in, lock_clients_out, lock_clients_out_until_named, refuse_clients, watch_client_lockout,
};
pub(super) use eligible::{counts, let_go, may_lead, must_be_voter, vouching};
pub(super) use leader::on_leader;
pub use memory::SyncMemory;
pub use priority::step as priority_step;
pub use quorum::steps as quorum_steps;
pub(super) use standby::{keep_names, leave, prepare_first_start, prepare_promotion};
pub use state::{QuorumState, SyncStep};
