//! How far long work is: a clone, a hand-over.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Lsn, MemberName};

/// How far a base backup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneProgress {
    /// Bytes received.
    pub bytes: u64,
    /// Bytes expected, as estimated at the start; zero when unknown.
    pub total: u64,
    /// Since when.
    pub elapsed: Duration,
}

impl CloneProgress {
    /// Percent received, at most 100; `None` when the total is unknown.
    pub fn percent(&self) -> Option<u8> {
        (self.total > 0).then(|| (self.bytes.saturating_mul(100) / self.total).min(100) as u8)
    }

    /// Bytes a second.
    pub fn rate(&self) -> u64 {
        (self.bytes as f64 / self.elapsed.as_secs_f64().max(0.001)) as u64
    }

    /// As published: `{"bytes", "percent", "rate"}`, `percent` only when the total is known.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("bytes".to_owned(), Value::from(self.bytes));
        if let Some(percent) = self.percent() {
            fields.insert("percent".to_owned(), Value::from(percent));
        }
        fields.insert("rate".to_owned(), Value::from(self.rate()));
        fields
    }
}

/// The steps of a hand-over, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HandOverPhase {
    /// Asking the candidates; still serving.
    Choosing,
    /// CHECKPOINT; still serving.
    Checkpoint,
    /// It is done; still serving, until etcd is seen to take writes.
    Checkpointed,
    /// Clean stop: writes are away from here on.
    Stopping,
    /// Asking the candidate whether it holds the shutdown checkpoint.
    Proving {
        /// Where the shutdown checkpoint begins.
        checkpoint: Lsn,
    },
    /// The leader key is being moved.
    Moving {
        /// Where the shutdown checkpoint begins.
        checkpoint: Lsn,
    },
}

/// How far a hand-over is. Its `Display` is the operator's sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandOverProgress {
    /// The step.
    pub phase: HandOverPhase,
    /// The member that shall lead; `None` until the candidates answered.
    pub to: Option<MemberName>,
}

impl fmt::Display for HandOverProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = self.to.as_ref().map_or("a candidate", |name| name.as_str());
        match self.phase {
            HandOverPhase::Choosing => f.write_str("asking the candidates"),
            HandOverPhase::Checkpoint | HandOverPhase::Checkpointed => {
                write!(f, "checkpoint before handing over to {to}")
            }
            HandOverPhase::Stopping => write!(f, "stopping PostgreSQL to hand over to {to}"),
            HandOverPhase::Proving { checkpoint } => {
                write!(f, "waiting until {to} has replayed {checkpoint}")
            }
            HandOverPhase::Moving { .. } => write!(f, "moving the leader key to {to}"),
        }
    }
}
