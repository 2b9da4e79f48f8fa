//! An API server double, and a thin client that works against it and against a real one.
//!
//! ```text
//!  Kubernetes (a namespace for one test: in the double, or in the cluster that KUBECONFIG names)
//!     ├── Service (the ports of the pods in its EndpointSlices, as a proxy applies them)
//!     └── Double ── ClientPort × n (a port and a token for each client: open, hanging, shut)
//!           └── Server ── Store (one counter of versions, every change with its time)
//!                 ├── Access (tokens, grants)    ├── Fault × n (subject, verb, effect, count)
//!                 └── Asked × n (every request)  └── endings of watches, bookmarks
//! ```
//!
//! Missing here, unlike in a real one: server-side apply, pages of lists, admission, controllers. The two groups of
//! events are separate.

mod access;
mod answer;
mod client;
mod client_port;
mod double;
mod exec;
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
pub(crate) use client_port::PortState;
pub(crate) use faults::{Effect, Fault};
pub(crate) use server::{Asked, Ending};
pub(crate) use service::{Proxy, Service};
