//! The WAL positions of members, and their comparison.

use crate::model::{Lsn, Timeline};

/// How far a member is: its timeline first, because what it wrote came after the fork.
pub(super) type Position = (Option<Timeline>, Lsn);

/// A later timeline is ahead of an earlier one whatever the position says: its WAL was written after the fork.
pub(super) fn comparable((timeline, lsn): Position) -> (u32, Lsn) {
    (timeline.map_or(0, |timeline| timeline.0), lsn)
}
