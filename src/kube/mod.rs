//! The pod of this member in Kubernetes: its labels, outdated labels of other pods, and events.
//!
//! ```text
//!  the loop ──► wanted ──► labels ──► patch ──► API server
//!                            ▲  └── strip: list once, patch in parallel     │
//!                            └───── watch of the own pod ◄─────────────────┘
//! ```
//!
//! Labels are for routing, never for safety: nothing that concerns the lease or Postgres waits for the API server,
//! except two bounded waits at the request of the caller ([`Kube::strip`], [`Kube::unlabelled`]).
//!
//! The Service of the primary needs no label: it has no selector, and the leader writes its EndpointSlices (`service`),
//! by the same rules, in one change for each hand-over.
//!
//! Every patch names the uid and the `resourceVersion` from which it was made. A patch that conflicts is never forced:
//! the pod is read and the patch computed again. So a late patch of a previous incarnation, or of a former leader,
//! fails. The term is an annotation, written with the label. A member that finds a newer term than its own leaves the
//! pod alone until etcd has confirmed, after that, that the member leads.
//!
//! For an operator's machine, `remote` and `member_pod` run a command in a pod of the cluster: `kubectl matriarch`.
//!
//! Deliberately absent: which member should lead, and retries without a report.

mod api;
mod backoff;
mod event;
mod facts;
mod failure;
mod follow;
mod labels;
mod life;
mod member_pod;
mod objects;
mod pod;
mod remote;
mod rivals;
mod service;
mod slice;
mod strip;

mod handle;

pub use api::KubeSetup;
pub use event::LeadershipEvent;
pub use handle::{Kube, LeadershipCheck};
pub use member_pod::PodSearch;
pub use remote::{RemoteError, RemotePods, RemoteStreams};
