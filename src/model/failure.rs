//! What failed last, for the operator.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{JobKind, RestartRefusal};

/// What failed, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// A long action.
    Job {
        /// Which.
        job: JobKind,
        /// As the program or etcd said it.
        why: String,
    },
    /// A scheduled restart was in time and could not begin.
    ScheduledRestart(RestartRefusal),
    /// A scheduled restart was found too late.
    ScheduledRestartMissed,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Job { job, why } => write!(f, "{job}: {why}"),
            Failure::ScheduledRestart(why) => write!(f, "scheduled restart: {why}"),
            Failure::ScheduledRestartMissed => write!(f, "scheduled restart: its time had passed"),
        }
    }
}
