//! The runtime: one loop that observes, decides and performs, and the status that the REST interface reads.
//!
//! ```text
//!  events, watches, orders, signals ──► cycle: observe ──► decide ──► perform ──► publish ──► Status ──► REST
//!                                                                        │
//!                                            events ◄── jobs ◄───────────┘
//! ```
//!
//! The lease is renewed, and the guard supervised, in separate threads. A leader sends heartbeats, and a standby hears
//! them, beside the loop (`peer_channel`, `hearing`). Deliberately absent: any `if` about which member should lead;
//! that is a rule, and the rules are in `decide`. Also absent: the REST interface, which is built beside the agent.

mod build;
mod callbacks;
mod cycle;
mod dynamic;
mod events;
mod failsafe;
mod fencing;
mod handle;
mod hearing;
mod jobs;
mod journal;
mod log;
mod log_changes;
mod log_lines;
mod observe;
mod orders;
mod parameter_check;
mod peer_channel;
mod peers;
mod perform;
mod pods;
mod publish;
mod roles;
mod saved_config;
mod serial;
mod service_watchdog;
mod startup;
mod status;
mod steps;
mod store_file;
mod surroundings;
mod wiring;

pub use build::{Agent, AgentError};
pub use handle::{ApiOrder, Handle, OrderError, Orders, handle};
pub use log::{flush as flush_log, init as start_log};
pub use parameter_check::ParameterCheck;
pub use peer_channel::{Hearer, PeerChannel};
pub use startup::lock;
pub use status::{HandOverStatus, Status};
pub use surroundings::{EtcdAnswers, ask_etcd, data_lacks};

pub use crate::peer::{AdmittedSession, HelloCall, PeerCall, PeerRefusal};
