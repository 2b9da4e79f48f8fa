//! Other members' REST interfaces, from the caller's side: query their state, or send them an order.
//!
//! There is one connection for every call, with one deadline for everything. Deliberately absent: retries, which are
//! the caller's decision, and any conclusion from the answer about leadership.

mod answer;
mod client;

pub use client::{Call, PeerError, Peers, endpoint_url};
