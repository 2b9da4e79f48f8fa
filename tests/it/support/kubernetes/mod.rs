//! An API server double, and a thin client that works against it and against a real one.
//!
//! ```text
//!  Kubernetes (a namespace of the test's own: of the double, or of the cluster that KUBECONFIG names)
//!     ├── Service (the ports of the pods that its EndpointSlices name, as a proxy applies them)
//!     └── Double ── Door × n (a port and a token for each client: open, hanging, shut)
//!           └── Server ── Store (one counter of versions, every change with its time)
//!                 ├── Access (tokens, grants)    ├── Fault × n (whom, which verb, what, how often)
//!                 └── Asked × n (every request)  └── endings of watches, bookmarks
//! ```
//!
//! What the real one does and this one does not: server-side apply, pages of lists, admission, controllers; the two
//! groups of events are apart.

mod access;
mod answer;
mod client;
mod door;
mod double;
mod faults;
mod patch;
mod resource;
mod selector;
mod server;
mod service;
mod status;
mod store;
mod watch;

pub(crate) use client::{Api, Kubernetes};
pub(crate) use door::Passage;
pub(crate) use faults::{Effect, Fault};
pub(crate) use server::{Asked, Ending};
pub(crate) use service::{Proxy, Service};
