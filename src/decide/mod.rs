//! The decision: what to do, given all observed facts. Pure, synchronous, total, deterministic.
//!
//! ```text
//! Memory, Observation, Moment ──► decide ──► Decision { memory, actions, because, wake }
//! ```
//!
//! Every input has an answer; "do nothing" with a reason is one. Nothing here reads a clock, awaits, fails or draws
//! random numbers, so a decision can be printed, replayed and simulated. [`table`](self) is one match over all
//! situations; the rule of each arm is in the file of the same name.

#![deny(clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

mod attach;
mod bootstrap;
mod clone;
mod decision;
mod demote;
mod eligibility;
mod ended;
mod failsafe;
mod follow;
mod handover;
mod history;
mod in_place;
mod lag;
mod lead;
mod leadership;
mod ledgers;
mod liveness;
mod memory;
mod peers;
mod pod_order;
mod position;
mod promised;
mod publish;
mod race;
mod recruit;
mod rejoin;
mod remember;
mod removed_wal;
mod requests;
mod routing;
mod server;
mod shutdown;
mod situation;
mod slots;
mod standby_cluster;
mod start;
mod stop;
mod store;
mod streaming;
mod sync;
mod table;
mod take;
mod tick;
mod unfenced;

pub use decision::Decision;
pub use in_place::restart_begins_as_standby;
pub use leadership::Leadership;
pub use ledgers::{
    Ending, FailedRaceRounds, FailsafeLedger, Failures, Incoming, LeaderKeyPhase, Leaderless, LeaseLedger,
    Leaving, LogicalSlotLedger, PromotionSeen, RecruitLedger, Registered, ReleasedTerm, SlotLedger,
    UnfencedLedger,
};
pub use memory::{Following, HandOver, HandOverCause, HandOverPhase, Memory, Restart, Served};
pub use slots::needs_feedback;
pub use sync::{QuorumState as SyncMachine, SyncMemory, SyncStep, priority_step, quorum_steps};
pub use table::{decide, situation_name};
