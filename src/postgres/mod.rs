//! The local Postgres: one handle, [`Postgres`], with one method for everything that can be done to it.
//!
//! Deliberately absent: any notion of who should lead. It is told what to do and reports what it saw.

mod error;
mod handle;
mod setup;

mod conninfo;
mod control;
mod files;
mod program;

mod facts;
mod process;
mod promote;
mod running;
mod sql;

mod bootstrap;
mod clone;
mod fence;
mod rewind;

pub use error::Error;
pub use fence::Fence;
pub use handle::{LeaderHistory, Postgres, Progress, RewindReport, Started, Stopped};
pub use setup::{Credentials, Parameters, Setup};
