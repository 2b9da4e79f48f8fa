//! The file that a rewind writes beside the WAL that it keeps aside.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Lsn, Timeline};

/// What a rewind threw away, kept aside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RewindReport {
    /// The diverged timeline.
    pub timeline: Timeline,
    /// The first position that differs.
    pub fork: Lsn,
    /// Where local WAL ended.
    pub end: Lsn,
    /// How much was thrown away: the records, if pg_waldump could tell, and not the space between them.
    pub bytes: u64,
    /// Commits in it, if pg_waldump could tell.
    pub commits: Option<u64>,
    /// Where the segments were kept.
    pub kept_in: PathBuf,
}

impl RewindReport {
    /// Its name.
    pub const FILE: &str = "report.json";
}
