//! Other members' REST interfaces, from the caller's side: query their state, send them an order, or listen to their
//! heartbeats. Of the calls between members also the serving side, except for its transport.
//!
//! ```text
//! client   one connection for every call, with one deadline for everything
//! hearing  a session and a stream of heartbeats ─┬─ mac: keys, and codes with them
//! sessions calls of members that proved that ────┴─ heartbeat: how one is sent
//! ```
//!
//! Deliberately absent: retries, which are the caller's decision, and any conclusion from an answer, or from silence,
//! about leadership.

mod answer;
mod client;
mod hearing;
mod heartbeat;
mod mac;
mod sessions;

pub use client::{Call, PeerError, Peers, endpoint_url};
pub use hearing::{HeartbeatSource, HeartbeatStream};
pub use mac::MacKey;
pub use sessions::{AdmittedSession, HelloCall, PeerCall, PeerKeys, PeerRefusal, PeerSessions, Welcome};
