//! Other members' REST interfaces, from the caller's side: ask for their state, or send them an order.
//!
//! One connection for every call, with one deadline over everything. Deliberately absent: retries, which are the
//! caller's to decide, and any judgement of what the answer means for leadership.

mod answer;
mod client;

pub use client::{Call, PeerError, Peers};
