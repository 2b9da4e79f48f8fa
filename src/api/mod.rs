//! The REST interface: what load balancers probe, peers ask, monitors read and operators order.
//!
//! ```text
//! http ──► dispatch ──► probes, wire, metrics      status in, answer out: pure
//!   │          │
//!   │          └──► access ──► config, operate, switchover ──► agent::Handle
//!   └─ connections, TLS; places, addresses: limits
//! ```
//!
//! Every route answers from the [`Status`](crate::agent::Status) the loop publishes, or through the
//! [`Handle`](crate::agent::Handle) to it. Deliberately absent: etcd, Postgres, and any opinion on who should lead.
//!
//! `/primary` is stricter than Patroni's: it needs the leader key *and* a Postgres that has just said that it is not
//! in recovery. `/leader` needs the key alone.

mod access;
mod addresses;
mod answer;
mod cluster;
mod config;
mod dispatch;
mod error;
mod http;
mod metrics;
mod operate;
mod probes;
mod query;
mod rebuild;
mod refusal;
mod request_limits;
mod setup;
mod switchover;
mod time;
pub mod wire;

pub use error::ApiError;
pub use http::{bind, serve};
pub use metrics::text as metrics_text;
pub use probes::{PROOF_AGE_MAX, health, liveness, readiness, size_in_bytes};
pub use query::Query;
pub use setup::{ApiSetup, ServerTokens, ServerTokensError};
pub use time::{ScheduleFault, iso, schedule};

#[cfg(test)]
mod tests;
