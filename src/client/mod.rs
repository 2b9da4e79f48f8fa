//! Access to a cluster from outside, for a command line or a program: it reads etcd, and sends orders to the members'
//! REST interfaces.
//!
//! ```text
//! configuration, environment ─► target ─► cluster: Client ─► etcd (read), members (REST)
//! ```
//!
//! Deliberately absent: the terminal, and any way to change a cluster that the REST interface or etcd's
//! compare-and-swap does not guard.

mod cluster;
mod error;
mod target;

pub use cluster::{ASK_WITHIN, Client, ORDER_WITHIN, RestAnswer};
pub use error::ClientError;
pub use target::Target;
