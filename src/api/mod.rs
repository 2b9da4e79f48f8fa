//! The REST interface: for load balancers, other members, monitoring and operators.
//!
//! ```text
//! http ──► dispatch ──► probes, wire, metrics      status in, answer out: pure
//!   │          │
//!   │          ├──► preflight, operations               ──► agent::Handle
//!   │          └──► origin, access ──► config, operate, switchover ──► agent::Handle
//!   │          └──► ui: the web page, of all of these
//!   └─ connections, TLS; request_limits, addresses
//! ```
//!
//! Every route answers from the [`Status`](crate::agent::Status) that the loop publishes, or through the
//! [`Handle`](crate::agent::Handle) to it. Deliberately absent: etcd, Postgres, and the decision which member should
//! lead.
//!
//! `/primary` is stricter than Patroni's: it needs the leader key *and* a Postgres that has just reported that it is
//! not in recovery. `/leader` needs the key alone.

mod access;
mod addresses;
mod answer;
mod cluster;
mod config;
mod dispatch;
mod error;
mod failsafe;
mod grpc;
mod http;
mod http2;
mod metrics;
mod operate;
mod operations;
mod origin;
mod preflight;
mod probes;
mod query;
mod rebuild;
mod request_limits;
mod sentences;
mod setup;
mod switchover;
mod time;
mod ui;
pub mod wire;

pub use error::ApiError;
pub use http::{PROTOCOLS, bind, serve};
pub use metrics::text as metrics_text;
pub use probes::{PROOF_AGE_MAX, health, liveness, readiness, size_in_bytes};
pub use query::Query;
pub use setup::{ApiSetup, ServerTokens, ServerTokensError};
pub use time::{ScheduleFault, iso, schedule};

#[cfg(test)]
mod tests;
