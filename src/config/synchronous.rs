//! The keys of synchronous replication in the dynamic configuration.

use super::reader::{ConfigFindings, Section, plain};
use super::tree::Node;
use super::units::boolean;
use crate::model::{SyncMode, SyncSettings};

/// The key of the synchronous mode.
pub(super) const SYNC_MODE: &str = "synchronous_mode";

/// In a standby cluster no commit waits for anything: the mode is off.
pub(super) fn read(
    top: &mut Section<'_>,
    in_standby_cluster: bool,
    findings: &mut ConfigFindings,
) -> SyncSettings {
    let key = SYNC_MODE;
    let mode = match top.get(key) {
        Some(node) => match plain(node).map(|text| text.to_ascii_lowercase()) {
            Some(text) if text == "quorum" => SyncMode::Quorum,
            text => match text.as_deref().and_then(boolean) {
                Some(true) => SyncMode::On,
                Some(false) => SyncMode::Off,
                None => {
                    top.fault(key, node, "write on, off or quorum", findings);
                    SyncMode::Off
                }
            },
        },
        None => SyncMode::Off,
    };
    let lag_key = "maximum_lag_on_syncnode";
    // A negative value, the default, sets no limit.
    let negative = |node: &Node| plain(node).is_some_and(|text| text.starts_with('-'));
    let maximum_lag = match top.get(lag_key) {
        Some(node) if !negative(node) => Some(top.bytes(lag_key, 0, findings)).filter(|bytes| *bytes > 0),
        Some(_) | None => None,
    };
    SyncSettings {
        mode: if in_standby_cluster { SyncMode::Off } else { mode },
        strict: top.flag("synchronous_mode_strict", false, findings),
        node_count: (top.bytes("synchronous_node_count", 1, findings) as usize).max(1),
        maximum_lag,
    }
}
