//! The local Postgres: one handle, [`Postgres`], with one method for everything that can be done to it.
//!
//! Deliberately absent: any notion of who should lead. It is told what to do and reports what it saw.

mod error;
mod fence;
mod handle;
mod setup;

pub use error::Error;
pub use fence::Fence;
pub use handle::{LeaderHistory, Postgres, Progress, RewindReport, Started, Stopped};
pub use setup::{Credentials, Parameters, Setup};
