//! The WAL positions of members, and their comparison.

use crate::model::{Lsn, Timeline};

/// A member's position. The timeline comes first, because its WAL was written after the fork.
pub(super) type Position = (Option<Timeline>, Lsn);

/// A later timeline is ahead of an earlier one whatever the LSN: its WAL was written after the fork.
pub(super) fn comparable((timeline, lsn): Position) -> (u32, Lsn) {
    (timeline.map_or(0, |timeline| timeline.0), lsn)
}
