//! Which part of a member's WAL belongs to the cluster's history, and how far that is behind the position that the
//! leader published.

use super::tick::Tick;
use crate::model::{Lsn, PeerAnswer, SqlFacts, Timeline};

/// The position up to which my WAL belongs to the cluster's history. WAL from a diverged timeline does not count.
pub(super) fn shared(tick: &Tick<'_>, sql: &SqlFacts) -> Lsn {
    if tick.in_standby_cluster() {
        // Its history is not the one in etcd.
        return sql.lsn();
    }
    tick.seen.postgres.branch().map_or(sql.lsn(), |mine| mine.shared_with(&ended(tick), present(tick)))
}

/// How far `lsn` is behind the leader's published position, if that is more than may be lost.
pub(super) fn too_far_behind(tick: &Tick<'_>, lsn: Lsn) -> Option<u64> {
    let status = tick.cluster().and_then(|cluster| cluster.status.as_ref());
    let behind_bytes = status.and_then(|status| status.optime).unwrap_or_default().bytes_since(lsn);
    (tick.seen.settings.maximum_lag_on_failover < behind_bytes).then_some(behind_bytes)
}

/// The ended timelines of the cluster, with their ends.
fn ended(tick: &Tick<'_>) -> Vec<(Timeline, Lsn)> {
    let lines = tick.cluster().and_then(|cluster| cluster.history.as_ref());
    lines.into_iter().flatten().map(|line| (line.parent, line.lsn)).collect()
}

/// The last leader's timeline, if it is newer than the ended ones.
fn present(tick: &Tick<'_>) -> Option<Timeline> {
    let published = tick.cluster()?.status.as_ref()?.timeline?;
    ended(tick).last().is_none_or(|(last, _)| *last < published).then_some(published)
}

/// The position up to which another member's WAL can belong to the cluster's history: not beyond the end of its
/// timeline. Only that member knows its exact position.
pub(super) fn shared_at_most(tick: &Tick<'_>, answer: &PeerAnswer) -> Lsn {
    if tick.in_standby_cluster() {
        return answer.lsn;
    }
    let ended = ended(tick);
    let end = ended.iter().rfind(|(timeline, _)| Some(*timeline) <= answer.timeline);
    match end.zip(ended.last()) {
        Some(((_, end), (last, _))) if answer.timeline <= Some(*last) || answer.timeline < present(tick) => {
            answer.lsn.min(*end)
        }
        Some(_) | None => answer.lsn,
    }
}
