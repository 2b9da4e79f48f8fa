//! The progress of a clone.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The progress of a base backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneProgress {
    /// Bytes received.
    pub bytes: u64,
    /// Bytes expected, as estimated at the start; zero when unknown.
    pub total: u64,
    /// Time since the start.
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
