//! The command line: one file for each command, and the few things they share.
//!
//! ```text
//! args ─► list, topology, switchover, … ─► target ─► client
//!                         └► rows ─► sheet ─► output ─► ui (the only door to the terminal)
//! ```
//!
//! The root dispatches. What it runs itself (`run`, `guard`, `check`, `demo`) has only its options here. Under the
//! names `patronictl` and `patroni` the program takes the arguments of those programs: [`links`]. Under the name
//! `kubectl-matriarch` it runs the command in a pod of the cluster: [`kubectl`].
//!
//! Data goes to stdout, messages to stderr. A command that changes something says so first and asks. An error ends with
//! a hint where there is one, and with a code from [`exit`].
//!
//! Deliberately absent: decisions about who should lead, and any way to change a cluster that the REST interface or
//! etcd's compare-and-swap does not guard.

pub mod args;
pub mod called;
pub mod check;
pub mod completions;
pub mod context;
pub mod demo;
pub mod dsn;
pub mod edit_config;
pub mod error;
pub mod exit;
pub mod explain;
pub mod failover;
pub mod flush;
pub mod generate_config;
pub mod guard;
pub mod history;
pub mod kubectl;
pub mod leadership_change;
pub mod links;
pub mod list;
pub mod loss;
pub mod man;
pub mod observe;
pub mod operations;
pub mod output;
pub mod paragraph;
pub mod parameters;
pub mod pause;
pub mod preflight;
pub mod query;
pub mod reinit;
pub mod reload;
pub mod remove;
pub mod restart;
mod rolling_restart;
pub mod rows;
pub mod run;
mod schedule;
pub mod selection;
pub mod setting;
pub mod sheet;
pub mod show_config;
pub mod standby_cluster;
pub mod switchover;
pub mod table;
pub mod target;
pub mod topology;
pub mod ui;
pub mod version;
pub mod watch;
pub mod why;
