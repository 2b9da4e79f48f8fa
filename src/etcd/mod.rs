//! The state of the cluster in etcd: reading it, watching it, changing it, and keeping the lease on which leadership
//! depends.
//!
//! ```text
//!  core::store   pure: keys and transactions as values            renewal   pure: answers → LeaseFacts
//!    │                                                               │
//!  view      list + watch → watch::Receiver<Option<View>>          lease     its own thread and connections
//!  swap      commits a transaction, hedged                           │
//!    └──────────────────── endpoints ────────────────────────────────┘
//!              one client for each endpoint, ranked by health, hedged; `origin`: of one etcd cluster only
//! ```
//!
//! Only [`EtcdError::LeaseNotFound`], [`EtcdError::NoSpace`] and [`Cas::Lost`](crate::core::store::Cas::Lost) are
//! definite. After every other error the outcome is unknown, and the caller reads the keys again.
//!
//! Deliberately absent: which member should lead, when to give up, what to retry. That is policy.

mod endpoints;
mod error;
mod lease;
mod origin;
mod renewal;
mod swap;
mod view;
mod write;

pub use endpoints::{Etcd, EtcdSetup, TlsFiles};
pub use error::EtcdError;
pub use lease::{LeaseKeeper, keep_lease};
pub use renewal::{KeepAliveAnswer, LeaderRead, Renewal, RenewalVerdict};
pub use view::watch;
