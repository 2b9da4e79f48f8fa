//! The local Postgres: one handle, [`Postgres`], with one method for everything that can be done to it.
//!
//! ```text
//!              look ── control           the directory from outside: pg_controldata, history, half-made marker
//!        start stop ── process ── postmaster     Down only when none of its processes is left
//!             adopt ── adoption          whether one runs already, which may be unknown
//!             probe ── probe ── connection_probe storage   a thread that proves that it works, while it may be primary
//!           promote ── promote
//!      hold_primary ── start_primary  the process first, then the guard, then the start
//!         sql_facts ── facts ─┐
//!    leader_history ──────────┴─ sql ── tls
//!   every statement ── session ── sockets     the own way in: private socket directory, own role
//!         set_slots ── slots logical
//!   preflight_facts ── preflight   for the check before a switchover
//!      leader_slots ── slot_copies   logical slots for standbys, put in place by a start
//!         passwords ── rotation ┐
//!      apply follow ── running ─┼ access_rules ── configuration
//!                               └ files  every configuration file is written by us
//!         bootstrap ── bootstrap ┬ init_scripts restore
//!      make_replica ── replica   ├─ clone aside script
//!            rewind ── rewind    ┴─ program ── os::child
//!      keep_dynamic ── kept         the configuration that was last in force, beside the data
//! ```
//!
//! The marker `<data_dir>.matriarch-half-made` lies beside a directory that is being made or rewound; such a directory
//! is never started. Every start is a standby's, except for that of a leader that was the primary: it is held back
//! until it is guarded. A long operation is cancelled by dropping it: the programs that it runs die, the postmaster
//! does not.
//!
//! Deliberately absent: which member should lead. This module carries out orders and reports facts.

mod error;
mod handle;
mod password;
mod setup;

mod access_rules;
mod archive;
mod config_copies;
mod configuration;
mod conninfo;
mod control;
mod files;
mod judge;
mod program;

mod adoption;
mod facts;
mod postmaster;
mod process;
mod promote;
mod running;
mod session;
mod slot_copies;
mod slots;
mod sockets;
mod sql;
mod start_primary;
mod timelines;
mod tls;

mod aside;
mod bootstrap;
mod clone;
mod connection_probe;
mod init_scripts;
mod kept;
mod logical;
mod lowered;
mod preflight;
mod probe;
mod replica;
mod restore;
mod rewind;
mod rotation;
mod script;
mod storage;

pub use adoption::Adoption;
pub use control::lacks;
pub use error::Error;
pub use handle::{CloneStatus, LeaderHistory, Postgres, Started, Stopped};
pub use judge::{Refused, refused};
pub use kept::kept_dynamic;
pub use password::Password;
pub use probe::Probe;
pub use promote::PendingPromotion;
pub use replica::ReplicaOrder;
pub use rotation::Passwords;
pub use setup::{Parameters, RoleCredentials, Setup};
pub use start_primary::HeldPostmaster;
