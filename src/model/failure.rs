//! The last failure, for the operator.

use serde::{Deserialize, Serialize};

use super::{JobKind, RestartRefusal};

/// A failure and its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Failure {
    /// A long action.
    #[error("{job}: {why}")]
    Job {
        /// The action.
        job: JobKind,
        /// The error in the words of the program or of etcd.
        why: String,
    },
    /// A scheduled restart was on time and could not begin.
    #[error("scheduled restart: {0}")]
    ScheduledRestart(RestartRefusal),
    /// A scheduled restart was seen only after its time.
    #[error("scheduled restart: its time had passed")]
    ScheduledRestartMissed,
}
