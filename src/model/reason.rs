//! Why a decision is what it is.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Completes the sentence "…, because".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// etcd has not been read yet.
    ClusterUnknown,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::ClusterUnknown => f.write_str("etcd has not been read yet"),
        }
    }
}

/// What the next look waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaitingOn {
    /// Nothing: the safety net of `loop_wait`.
    NextLook,
}
