//! Settings: the local file, the environment over it, and the dynamic configuration under both.
//!
//! ```text
//! file(s) ─► tree ◄─ environment        every value knows its file and line
//!             │
//!           local: Config               complete; every fault reported at once
//!             │      ◄─ key `config`
//!          effective: Effective         what is in force
//! ```
//!
//! Deliberately absent: any use of the settings. Only `load` and `machine` touch the world.

mod dynamic;
mod environment;
mod fault;
mod guc;
mod known;
mod load;
mod local;
mod machine;
mod postgresql;
mod reader;
mod tree;
mod units;

#[cfg(test)]
mod tests;

pub use dynamic::{Effective, effective};
pub use fault::{Fault, Faults, Origin};
pub use load::{Loaded, load};
pub use local::{Address, Bootstrap, Config, Credentials, Etcd, Log, LogKind, RestApi};
pub use machine::{POSTGRES_MAJORS, check_machine, data_major, server_major};
pub use postgresql::{Login, Postgresql, local_host};
