//! A deterministic simulation: the real `decide`, the real machines of `core` around it and the real liveness verdict,
//! in a world of members, an etcd, PostgreSQLs, clients, a network and clocks, under faults at absurd rates. One seed
//! is one story; the same seed tells it again, to the nanosecond.

pub(crate) mod channel;
pub(crate) mod clients;
pub(crate) mod clock;
pub(crate) mod command;
pub(crate) mod etcd;
pub(crate) mod executor;
pub(crate) mod false_alarm;
pub(crate) mod fault;
pub(crate) mod guard;
pub(crate) mod mutation;
pub(crate) mod network;
pub(crate) mod postgres;
pub(crate) mod run;
pub(crate) mod signal;
pub(crate) mod supervisor;
pub(crate) mod trace;
pub(crate) mod world;

#[cfg(test)]
mod tests;
