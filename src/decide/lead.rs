//! I lead and my Postgres is primary: serve, and keep the cluster's records true.

use std::time::Duration;

use super::turn::Turn;
use super::{handover, publish, requests, slots, store, sync};
use crate::model::{Action, HistoryLine, JobKind, Reason, SqlFacts, Term, Timeline, WaitingOn};

/// The normal case.
pub(super) fn serve(turn: &mut Turn<'_>, term: Term, sql: &SqlFacts) -> Reason {
    turn.memory.failures.starts = 0;
    mend_records(turn, term);
    store::settle(turn, term);
    checkpoint_once(turn, term);
    slots::on_leader(turn, sql);
    sync::on_leader(turn, term, sql);
    let gated = sync::watch_gate(turn, sql);
    let told = tell(turn, term, sql);
    if turn.memory.hand_over.is_some() {
        return handover::while_serving(turn, sql, told);
    }
    requests::go_on(turn);
    if turn.memory.restart.is_some() {
        return Reason::Restarting;
    }
    let refused = handover::consider(turn, term);
    match (refused, turn.memory.hand_over.is_some()) {
        (Some(reason), _) => reason,
        (None, true) => handover::while_serving(turn, sql, told),
        (None, false) => gated.unwrap_or(Reason::Leading),
    }
}

/// Writes what is missing in etcd: after a wipe the running primary, and nobody else, rebuilds the cluster.
fn mend_records(turn: &mut Turn<'_>, term: Term) {
    let (Some(cluster), Some(control)) = (turn.cluster(), turn.seen.postgres.control()) else { return };
    if cluster.system_id().is_none() {
        turn.act(Action::RestoreInitialize { term, system_id: control.system_id });
    }
    if cluster.config.is_none() {
        turn.act(Action::RestoreConfig { term });
    }
}

/// Tells etcd how far I am; true once it knows. A position means nothing before the history says on which timeline it
/// lies.
pub(super) fn tell(turn: &mut Turn<'_>, term: Term, sql: &SqlFacts) -> bool {
    if let Some(lines) = sql.timeline.and_then(|timeline| history(turn, timeline)) {
        turn.act(Action::PublishHistory { term, lines });
        return false;
    }
    publish::status(turn, term, sql);
    turn.memory.status.as_ref().is_some_and(|(told, _)| told.timeline == sql.timeline)
}

/// The new value of `history`, when it does not lead to my timeline yet. Lines that are known keep their time and
/// name; the newest is mine.
fn history(turn: &Turn<'_>, timeline: Timeline) -> Option<Vec<HistoryLine>> {
    let cluster = turn.cluster()?;
    if timeline == Timeline::FIRST && cluster.history.is_none() {
        return None;
    }
    let known = cluster.history.as_deref().unwrap_or_default();
    let lines = history_lines(turn, timeline, known);
    // Lines are compared, not numbers: a timeline may have passed over some that were begun elsewhere.
    let told = known.iter().map(|line| (line.parent, line.lsn));
    let same = cluster.history.is_some() && told.eq(lines.iter().map(|line| (line.parent, line.lsn)));
    let not_read_yet = lines.is_empty() && timeline != Timeline::FIRST;
    (!same && !not_read_yet).then_some(lines)
}

/// What led to `timeline`, by the history that lies here; the newest lines only, where that is configured.
fn history_lines(turn: &Turn<'_>, timeline: Timeline, known: &[HistoryLine]) -> Vec<HistoryLine> {
    let switches: Vec<_> =
        turn.seen.postgres.history.0.iter().filter(|switch| switch.timeline < timeline).collect();
    let newest = switches.len().saturating_sub(1);
    let line = |(index, switch): (usize, &&crate::model::Switch)| {
        let old = known.iter().find(|line| line.parent == switch.timeline && line.lsn == switch.lsn);
        old.cloned().unwrap_or_else(|| HistoryLine {
            parent: switch.timeline,
            lsn: switch.lsn,
            reason: switch.reason.clone(),
            at: (index == newest).then(|| turn.seen.wall.to_string()),
            promoted: (index == newest).then(|| turn.seen.me.name.to_string()),
        })
    };
    let mut lines: Vec<_> = switches.iter().enumerate().map(line).collect();
    match turn.seen.settings.max_timelines_history {
        0 => {}
        most => drop(lines.drain(..lines.len().saturating_sub(most))),
    }
    lines
}

/// One CHECKPOINT after each promotion, so that the control file names the new timeline and rewinders may come.
fn checkpoint_once(turn: &mut Turn<'_>, term: Term) {
    match turn.memory.checkpoint {
        Some(_) => {}
        None if turn
            .memory
            .failures
            .retry_at
            .get(&JobKind::CheckpointAfterPromotion)
            .is_some_and(|at| turn.now < *at) =>
        {
            turn.wake_in(Duration::from_secs(1), WaitingOn::Retry);
        }
        None => {
            turn.memory.checkpoint = Some(false);
            turn.act(Action::CheckpointAfterPromotion { term });
        }
    }
}
