//! The pod of this member in Kubernetes: its labels, the labels of other pods that are not true any more, and events.
//!
//! ```text
//!  the loop ──► wanted ──► labels ──► patch ──► API server
//!                            ▲  └── strip: list once, patch in parallel     │
//!                            └───── watch of the own pod ◄─────────────────┘
//! ```
//!
//! Labels are routing, never safety: nothing that concerns the lease or Postgres waits for the API server, but for
//! the two bounded waits that its callers ask for ([`Kube::strip`], [`Kube::unlabelled`]).
//!
//! The Service of the primary needs no label: it has no selector, and the leader writes its EndpointSlices (`service`),
//! by the same rules, in one change for each hand-over.
//!
//! Every patch names the uid and the `resourceVersion` that it was made from. One that lost is read back and thought
//! over again, never forced; so what a previous incarnation, or a former leader, sent late fails. The term is an
//! annotation written with the label: whoever finds a newer one than his own leaves the pod alone until etcd has
//! confirmed, later than that, that he leads.
//!
//! Deliberately absent: any thought about who should lead, and retries that nobody sees.

mod api;
mod backoff;
mod event;
mod facts;
mod failure;
mod follow;
mod labels;
mod life;
mod pod;
mod rivals;
mod service;
mod slice;
mod strip;

mod handle;

pub use api::KubeSetup;
pub use event::LeadershipEvent;
pub use handle::{Kube, LeadershipCheck};
