//! What a tick decided.

use serde::{Deserialize, Serialize};

use super::Memory;
use crate::model::{Action, Moment, Reason, WaitingOn};

/// The outcome of one tick.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// For the next tick.
    pub memory: Memory,
    /// In order; few.
    pub actions: Vec<Action>,
    /// The operator's sentence.
    pub because: Reason,
    /// The latest next look, and for what.
    pub wake: (Moment, WaitingOn),
}
