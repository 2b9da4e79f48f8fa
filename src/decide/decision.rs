//! The decision of one tick.

use serde::{Deserialize, Serialize};

use super::memory::Memory;
use crate::model::{Action, Moment, PodRole, PrimaryRoute, Reason, WaitingOn};

/// The outcome of one tick.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The memory for the next tick.
    pub memory: Memory,
    /// The actions in order; only a few.
    pub actions: Vec<Action>,
    /// The role that my pod is to show before the actions are performed; `None`: unchanged.
    #[serde(default)]
    pub pod: Option<PodRole>,
    /// The change to the Service of the primary.
    #[serde(default)]
    pub route: PrimaryRoute,
    /// The sentence for the operator.
    pub because: Reason,
    /// The latest time of the next tick, and the event it waits for.
    pub wake: (Moment, WaitingOn),
}
