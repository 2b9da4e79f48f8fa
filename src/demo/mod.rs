//! `demo`: a whole cluster on this machine, with a real etcd and real PostgreSQL, on loopback and free ports.
//!
//! ```text
//! run      the whole demo, and its end after every error or signal
//! place    the directory, the programs, the user, the ports
//! members  etcd and the members as processes: start, kill, stop
//! tour     the faults, one after the other ─► report
//! writer   one client that writes continuously and remembers every acknowledged row
//! ```
//!
//! Everything lives in one directory that is removed at the end, however the demo ends. Only processes that the demo
//! started are ever signalled: by pid, found from its own children and the `postmaster.pid` in its own directory.

pub mod members;
pub mod place;
pub mod report;
mod run;
pub mod tour;
pub mod tree;
pub mod writer;
pub mod yaml;

pub use run::execute;
