//! The operating system: the clock, signals, child processes, durable files, certificates in files, output, and the
//! service manager.
//!
//! Every child is spawned through [`child`]. [`reap`] collects the orphans that PID 1 or a subreaper inherits; it never
//! takes the exit status of a child that other code waits for.

pub mod child;
pub mod clock;
pub mod durable;
pub mod error_chain;
pub mod file_id;
pub mod notify;
pub mod output;
pub mod pidfd;
pub mod postgres_processes;
mod private_key;
pub mod process;
mod procfs;
pub mod random;
pub mod reap;
pub mod rotated_file;
mod server_processes;
pub mod signal;
pub mod text;
pub mod tls;
pub mod user;
