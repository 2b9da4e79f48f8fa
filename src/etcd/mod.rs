//! The cluster's shared truth: reading it, watching it, changing it, and keeping the lease that leadership hangs on.
//!
//! ```text
//!  core::store       keys and transactions as values              core::lease   the rounds of the lease
//!  core::list_watch  which list, which watch, and when              │
//!    │                                                              │
//!  view      lists and watches → watch::Receiver<Option<View>>    lease         their thread and connections
//!  swap      commits a transaction, hedged                          │
//!    └──────────────────── endpoints ────────────────────────────────┘
//!              one client for each endpoint, ranked by health, hedged; `origin`: of one etcd cluster only
//! ```
//!
//! Errors are a closed world: only [`EtcdError::LeaseNotFound`], [`EtcdError::NoSpace`] and
//! [`Cas::Lost`](crate::core::store::Cas::Lost) are definite. Everything else means that nobody knows what
//! happened, and the caller reads back.
//! Deliberately absent: who should lead, when to give up, what to retry. That is policy.

mod endpoints;
mod error;
mod lease;
mod origin;
mod swap;
mod view;
mod write;

pub use endpoints::{Etcd, EtcdSetup, TlsFiles};
pub use error::EtcdError;
pub use lease::{LeaseKeeper, keep_lease};
pub use view::watch;
