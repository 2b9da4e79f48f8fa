//! Access to a cluster from outside, for a command line or a program: it reads etcd, sends orders to the members' REST
//! interfaces, and runs an operator's SQL.
//!
//! ```text
//! configuration, environment ─► target ─► cluster: Client ─► etcd (read), members (REST)
//!                             └► libpq ─► sql: SqlLogin ─► PostgreSQL, as a user of the database
//! ```
//!
//! Deliberately absent: the terminal, and any way to change a cluster that the REST interface or etcd's
//! compare-and-swap does not guard, except for the removal of a whole cluster.

mod cluster;
mod error;
mod libpq;
mod sql;
mod target;

pub use cluster::{ASK_WITHIN, Client, ORDER_WITHIN, RestAnswer};
pub use error::ClientError;
pub use sql::{SqlError, SqlLogin, SqlRows, SqlSession};
pub use target::Target;
