//! The decision of one tick.

use serde::{Deserialize, Serialize};

use super::memory::Memory;
use crate::model::{Action, Moment, PodRole, PrimaryRoute, Reason, WaitingOn};

/// The outcome of one tick.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// For the next tick.
    pub memory: Memory,
    /// In order; few.
    pub actions: Vec<Action>,
    /// What my pod shall say, before the actions are performed; `None`: what it says.
    #[serde(default)]
    pub pod: Option<PodRole>,
    /// Where the Service of the primary shall lead.
    #[serde(default)]
    pub route: PrimaryRoute,
    /// The operator's sentence.
    pub because: Reason,
    /// The latest next look, and for what.
    pub wake: (Moment, WaitingOn),
}
