//! How much of what members hold is the cluster's, and how far that is behind what its leader published.

use super::turn::Turn;
use crate::model::{Lsn, PeerAnswer, SqlFacts, Timeline};

/// How much of what I hold is the cluster's: what was written beside its history is none of it.
pub(super) fn shared(turn: &Turn<'_>, sql: &SqlFacts) -> Lsn {
    turn.seen.postgres.branch().map_or(sql.lsn(), |mine| mine.shared_with(&ended(turn), present(turn)))
}

/// By how much `lsn` is behind what the leader published, if that is more than may be lost.
pub(super) fn too_far_behind(turn: &Turn<'_>, lsn: Lsn) -> Option<u64> {
    let status = turn.cluster().and_then(|cluster| cluster.status.as_ref());
    let behind_bytes = status.and_then(|status| status.optime).unwrap_or_default().bytes_since(lsn);
    (turn.seen.settings.maximum_lag_on_failover < behind_bytes).then_some(behind_bytes)
}

/// The timelines of the cluster that have ended, and where.
fn ended(turn: &Turn<'_>) -> Vec<(Timeline, Lsn)> {
    let lines = turn.cluster().and_then(|cluster| cluster.history.as_ref());
    lines.into_iter().flatten().map(|line| (line.parent, line.lsn)).collect()
}

/// The timeline on which the last leader was, if that is newer than those that have ended.
fn present(turn: &Turn<'_>) -> Option<Timeline> {
    let published = turn.cluster()?.status.as_ref()?.timeline?;
    ended(turn).last().is_none_or(|(last, _)| *last < published).then_some(published)
}

/// How much of what another member holds is the cluster's: nothing beyond the end of its timeline. It knows better.
pub(super) fn shared_at_most(turn: &Turn<'_>, answer: &PeerAnswer) -> Lsn {
    let ended = ended(turn);
    let end = ended.iter().rfind(|(timeline, _)| Some(*timeline) <= answer.timeline);
    match end.zip(ended.last()) {
        Some(((_, end), (last, _))) if answer.timeline <= Some(*last) || answer.timeline < present(turn) => {
            answer.lsn.min(*end)
        }
        Some(_) | None => answer.lsn,
    }
}
