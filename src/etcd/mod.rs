//! The cluster's shared truth: reading it, watching it, changing it, and keeping the lease that leadership hangs on.
//!
//! ```text
//!  keys      pure: every key's text ⇄ model::ClusterView          renewal   pure: answers → LeaseFacts
//!    │                                                               │
//!  view      list + watch → watch::Receiver<Option<View>>          lease     its own thread and connections
//!  changes   pure: each change as a Txn (txn)                         │
//!  write     each change by its name, committed (swap)               │
//!    └──────────────────── endpoints ────────────────────────────────┘
//!              one client for each endpoint, ranked by health, hedged; `origin`: of one etcd cluster only
//! ```
//!
//! Errors are a closed world: only [`EtcdError::LeaseNotFound`], [`EtcdError::NoSpace`] and [`Cas::Lost`] are definite.
//! Everything else means that nobody knows what happened, and the caller reads back.
//! Deliberately absent: who should lead, when to give up, what to retry. That is policy.

mod changes;
mod endpoints;
mod error;
mod keys;
mod lease;
mod origin;
mod renewal;
mod swap;
mod txn;
mod view;
mod write;

pub use endpoints::{Etcd, EtcdSetup, TlsFiles};
pub use error::EtcdError;
pub use keys::{Keys, StoredKey};
pub use lease::{LeaseKeeper, keep_lease};
pub use renewal::{KeepAliveAnswer, LeaderRead, Renewal, Verdict};
pub use swap::Cas;
pub use txn::{Change, Compare, Evidence, Txn};
pub use view::watch;
