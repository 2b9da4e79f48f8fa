//! Real processes in a world of their own: the shipped binary, a three-member etcd and three PostgreSQL members.
//!
//! ```text
//!  chaos ─ enters a sandbox: PID, mount and network namespaces that go away with it, however it ends
//!   └─ init (PID 1, reaps orphans)
//!       └─ chaos again, with the clients, on a bridge 10.77.0.1
//!            ├─ etcd e1 e2 e3        each in a network namespace of its own, 10.77.0.11 …
//!            └─ members m1 m2 m3     the same, 10.77.0.21 …; each in a cgroup that can be frozen
//! ```
//!
//! Everything is below one [`place::Place`]. Nothing here knows of faults or of what clients were promised.

mod cgroup;
mod cluster;
mod config;
mod etcd;
mod http;
mod key_watch;
mod member;
mod namespaces;
mod pipe;
mod place;
mod processes;
mod sandbox;
mod session;

pub(crate) use cluster::{Plan, Rig};
pub(crate) use config::{Mode, System, python_environment};
pub(crate) use http::request;
pub(crate) use key_watch::KeyWatch;
pub(crate) use member::{DISK_MEGABYTES, Member};
pub(crate) use namespaces::{Namespace, tool};
pub(crate) use pipe::fill;
pub(crate) use place::postgres_bin;
pub(crate) use processes::{is_alive, is_stopped, signal_all, wait_for};
pub(crate) use sandbox::{inside, keep, possible};
pub(crate) use session::{Session, connect, is_certain};
