//! What failed last, for the operator.

use serde::{Deserialize, Serialize};

use super::{JobKind, RestartRefusal};

/// What failed, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Failure {
    /// A long action.
    #[error("{job}: {why}")]
    Job {
        /// Which.
        job: JobKind,
        /// As the program or etcd said it.
        why: String,
    },
    /// A scheduled restart was in time and could not begin.
    #[error("scheduled restart: {0}")]
    ScheduledRestart(RestartRefusal),
    /// A scheduled restart was found too late.
    #[error("scheduled restart: its time had passed")]
    ScheduledRestartMissed,
}
