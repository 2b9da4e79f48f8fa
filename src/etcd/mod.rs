//! The state of the cluster in etcd: reading it, watching it, changing it, and keeping the lease on which leadership
//! depends.
//!
//! ```text
//!  core::store       keys and transactions as values              core::lease   the rounds of the lease
//!  core::list_watch  which list, which watch, and when              │
//!    │                                                              │
//!  view      lists and watches → watch::Receiver<Option<View>>    lease         their thread and connections
//!  swap      commits a transaction, hedged                          │
//!  journal   keeps its newest records                            │
//!  lease_left  how long a lease lasts yet                         │
//!    └──────────────────── endpoints ────────────────────────────────┘
//!              one client for each endpoint, ranked by health, hedged; `origin`: of one etcd cluster only
//!    reach: whether each endpoint answers
//!    discovery: the endpoints from DNS, once;  announced: those that etcd's members announce, again and again
//! ```
//!
//! Only [`EtcdError::LeaseNotFound`], [`EtcdError::NoSpace`] and [`Cas::Lost`](crate::core::store::Cas::Lost) are
//! definite. After every other error the outcome is unknown, and the caller reads the keys again.
//!
//! Deliberately absent: which member should lead, when to give up, what to retry. That is policy.

mod announced;
mod discovery;
mod endpoints;
mod error;
mod journal;
mod lease;
mod lease_left;
mod origin;
mod reach;
mod swap;
mod tls;
mod view;
mod write;

pub use announced::follow_members;
pub use discovery::SrvDomain;
pub use endpoints::{Etcd, EtcdSetup};
pub use error::EtcdError;
pub use lease::{LeaseHooks, LeaseKeeper, PromisingMembers, keep_lease};
pub use reach::unreachable;
pub use tls::TlsFiles;
pub use view::watch;
