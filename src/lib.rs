//! Matriarch: a high-availability supervisor for PostgreSQL.
//!
//! One supervisor runs beside every PostgreSQL. It holds a leader lease in etcd, makes its PostgreSQL primary or
//! standby, answers probes over REST and hands leadership over on command. There is no central operator: each member
//! decides for itself from what it sees, and etcd's compare-and-swap decides between them.
//!
//! ```text
//!  etcd watch ─┐
//!  lease       │            core::member
//!  PostgreSQL  ├─► Event ──► Observation ──► decide ──► Effect ──► perform ──► Status ──► api
//!  members     │             (one per tick)   (pure)                │
//!  operators  ─┘    ▲                                               │
//!                   └──────────── core::job, step by step ◄─────────┘
//!
//!  main ─► app ─┬─► agent, and api beside it: a member
//!               └─► cli ─► client ─► etcd, the api of members: a cluster from outside
//! ```
//!
//! # Code map, in reading order
//!
//! * [`model`]: plain values. **Invariant:** no clock, no I/O, no randomness; only parsing can fail.
//! * [`decide`]: `decide(&Memory, &Observation, Moment) -> Decision`. **Invariant:** pure and total; every situation
//!   has a name and every decision a typed reason. A change of policy is a diff of the situation table's snapshot.
//! * [`core`]: the sans-I/O machines around it, and etcd's transactions as values. **Invariant:** no clock, no I/O; the
//!   agent and the simulation drive the same machines.
//! * [`config`]: file, environment and dynamic configuration. **Invariant:** every fault is reported at once; the
//!   machine is not looked at.
//! * [`etcd`], [`postgres`], [`fence`], [`kube`], [`peer`], [`os`]: effects. **Invariant:** they do not know each
//!   other, nor which member should lead.
//! * [`agent`]: the one loop, and the status that it publishes. **Invariant:** the loop waits for events only; a look
//!   at Postgres, a statement and a job run beside it and report back as events. The lease is renewed, Postgres is
//!   probed, and the guard is supervised, in separate threads that no loop, job or statement can delay. The agent does
//!   not know the REST interface.
//! * [`api`]: the REST interface of a member, and gRPC in its words. **Invariant:** it answers from the published
//!   [`agent::Status`] and changes nothing except through orders to the loop. `proto/` has the messages of gRPC.
//! * [`why`]: the journal in sentences, for a member's web page and for the command line.
//! * [`client`], [`cli`], [`demo`], [`observe`]: a cluster from outside, for programs and at a terminal.
//!   **Invariant:** only the REST interface and etcd's compare-and-swap change a cluster; the files of `cli` do not
//!   import each other in a cycle.
//! * [`app`]: the root. It looks at the machine, builds agent and REST interface, and dispatches the commands.
//!   **Invariant:** nothing imports it.
//!
//! `tests/tidy.rs` checks these layers.
//!
//! # Foundations of safety
//!
//! * **The deadline.** A lease counts from the moment its renewal was *sent*, on `CLOCK_BOOTTIME`, and only if a
//!   linearizable read in the same raft term showed the leader key under it ([`model::LeaseTiming`], [`core::lease`]).
//! * **The proofs.** Before each renewal the lease's thread checks whether the Postgres that may be primary has lately
//!   accepted a new connection and flushed a write, and whether its processes run ([`model::Liveness`], filled in by
//!   `postgres::Probe` in a separate thread). If not, the lease runs out whatever the loop does.
//! * **The term** is the leader key's modification revision. Every write that only a leader may make compares it first.
//! * **Being primary needs a permission.** PostgreSQL starts with `standby.signal`, and a promotion checks the lease
//!   right before its signal, while the fence is armed. A leader that goes on as the primary that it was starts without
//!   that file: its process waits first, and is let go after the same checks (`decide::in_place`, [`core::job`]).
//! * **The guard** is a process that stops and then kills PostgreSQL when an armed deadline passes, whatever happens to
//!   the supervisor; while the guard itself is frozen the kernel kills PostgreSQL. No PostgreSQL becomes a
//!   primary before the guard has acknowledged that it is armed ([`core::guard`], driven by [`fence`]; the order of the
//!   steps is in [`core::job`]).
//! * **A leader may be replaced before its lease ends,** unless `failover: lease` is set: when so many synchronous
//!   standbys have left it that nothing more can be acknowledged there (`decide::recruit`). Until its own deadline it
//!   may then live beside its successor.
//! * **A released key stays released.** After a hand-over of unknown outcome, no PostgreSQL is promoted here until this
//!   member has obtained the key in a new term.

pub mod model;

pub mod decide;

pub mod core;

pub mod config;

pub mod etcd;
pub mod fence;
pub mod kube;
pub mod os;
pub mod peer;
pub mod postgres;

pub mod agent;

pub mod why;

pub mod api;
pub mod client;

pub mod cli;

pub mod demo;
pub mod observe;

pub mod app;
