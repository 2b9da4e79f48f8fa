//! The control file of a member in a small world.

use std::collections::BTreeMap;

use matriarch::model::{ControlFile, ControlState, Lsn, Timeline};

pub(super) const SYSTEM_ID: u64 = 7_000_000_000_000_000_001;

/// With what a small world says of it.
pub(super) fn control_file(state: ControlState, checkpoint: Lsn, timeline: Timeline) -> ControlFile {
    ControlFile {
        system_id: SYSTEM_ID,
        state,
        checkpoint,
        checkpoint_timeline: timeline,
        min_recovery: Lsn(0),
        min_recovery_timeline: Timeline(0),
        checksums: true,
        wal_log_hints: true,
        minimal_wal: false,
        backup_label: false,
        backup_start: Lsn(0),
        segments: None,
        standby_minimums: BTreeMap::new(),
    }
}
