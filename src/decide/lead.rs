//! This member leads and its Postgres is primary: serve, and keep the cluster's records true.

use std::time::Duration;

use super::memory::Served;
use super::tick::Tick;
use super::{handover, publish, recruit, requests, slots, store, sync};
use crate::model::{Action, HistoryLine, JobKind, Reason, SqlFacts, Term, Timeline, WaitingOn};

/// The normal case.
pub(super) fn serve(tick: &mut Tick<'_>, term: Term, sql: &SqlFacts) -> Reason {
    tick.memory.failures.starts = 0;
    let until = tick.next_tick_by();
    tick.memory.served = sql.timeline.map(|timeline| Served { term, timeline, until });
    restore_missing_keys(tick, term);
    store::settle(tick, term);
    checkpoint_once(tick, term);
    slots::on_leader(tick, sql);
    sync::on_leader(tick, term, sql);
    let secluded = recruit::on_leader(tick, sql);
    let clients_locked_out = secluded.or_else(|| sync::watch_client_lockout(tick, sql));
    let told = tell(tick, term, sql);
    if tick.memory.hand_over.is_some() {
        return handover::while_serving(tick, sql, told);
    }
    requests::advance(tick);
    if tick.memory.restart.is_some() {
        return Reason::Restarting;
    }
    let refused = handover::consider(tick, term);
    match (refused, tick.memory.hand_over.is_some()) {
        (Some(reason), _) => reason,
        (None, true) => handover::while_serving(tick, sql, told),
        (None, false) => clients_locked_out.unwrap_or(Reason::Leading),
    }
}

/// Restores missing keys in etcd. After a loss of etcd's data only the leader does that, once it
/// serves.
pub(super) fn restore_missing_keys(tick: &mut Tick<'_>, term: Term) {
    let (Some(cluster), Some(control)) = (tick.cluster(), tick.seen.postgres.control()) else { return };
    if cluster.system_id().is_none() {
        tick.act(Action::RestoreInitialize { term, system_id: control.system_id });
    }
    if cluster.config.is_none() {
        tick.act(Action::RestoreConfig { term });
    }
}

/// Publishes my position; true once etcd has it. A position has no meaning before the history shows its timeline.
pub(super) fn tell(tick: &mut Tick<'_>, term: Term, sql: &SqlFacts) -> bool {
    if tick.seen.postgres.history_of != sql.timeline {
        // The data directory could not be read since the promotion.
        tick.wake_in(Duration::from_secs(1), WaitingOn::Postgres);
        return false;
    }
    if !tell_history(tick, term, sql) {
        return false;
    }
    publish::status(tick, term, sql);
    tick.memory.status.as_ref().is_some_and(|(told, _)| told.timeline == sql.timeline)
}

/// Publishes the history of my timeline; true once etcd has it.
pub(super) fn tell_history(tick: &mut Tick<'_>, term: Term, sql: &SqlFacts) -> bool {
    let lines = sql.timeline.and_then(|timeline| history(tick, timeline));
    let is_told = lines.is_none();
    if let Some(lines) = lines {
        tick.act(Action::PublishHistory { term, lines });
    }
    is_told
}

/// The new value of `history`, when it does not lead to my timeline yet. Known lines keep their time and name; the
/// newest line is mine.
fn history(tick: &Tick<'_>, timeline: Timeline) -> Option<Vec<HistoryLine>> {
    let cluster = tick.cluster()?;
    if timeline == Timeline::FIRST && cluster.history.is_none() {
        return None;
    }
    let known = cluster.history.as_deref().unwrap_or_default();
    let lines = history_lines(tick, timeline, known);
    // The comparison is of lines, not of numbers: a timeline may have skipped numbers that other members began.
    let told = known.iter().map(|line| (line.parent, line.lsn));
    let same = cluster.history.is_some() && told.eq(lines.iter().map(|line| (line.parent, line.lsn)));
    let not_read_yet = lines.is_empty() && timeline != Timeline::FIRST;
    (!same && !not_read_yet).then_some(lines)
}

/// The history of `timeline`, as it is in the local directory; only the newest lines where the settings limit them.
fn history_lines(tick: &Tick<'_>, timeline: Timeline, known: &[HistoryLine]) -> Vec<HistoryLine> {
    let switches: Vec<_> =
        tick.seen.postgres.history.0.iter().filter(|switch| switch.timeline < timeline).collect();
    let newest = switches.len().saturating_sub(1);
    let line = |(index, switch): (usize, &&crate::model::Switch)| {
        let old = known.iter().find(|line| line.parent == switch.timeline && line.lsn == switch.lsn);
        old.cloned().unwrap_or_else(|| HistoryLine {
            parent: switch.timeline,
            lsn: switch.lsn,
            reason: switch.reason.clone(),
            at: (index == newest).then(|| tick.seen.wall.to_string()),
            promoted: (index == newest).then(|| tick.seen.me.name.to_string()),
        })
    };
    let mut lines: Vec<_> = switches.iter().enumerate().map(line).collect();
    match tick.seen.settings.max_timelines_history {
        0 => {}
        most => drop(lines.drain(..lines.len().saturating_sub(most))),
    }
    lines
}

/// One CHECKPOINT after each promotion, so that the control file has the new timeline and other members can rewind.
fn checkpoint_once(tick: &mut Tick<'_>, term: Term) {
    match tick.memory.checkpoint {
        Some(_) => {}
        None if tick
            .memory
            .failures
            .retry_at
            .get(&JobKind::CheckpointAfterPromotion)
            .is_some_and(|at| tick.now < *at) =>
        {
            tick.wake_in(Duration::from_secs(1), WaitingOn::Retry);
        }
        None => {
            tick.memory.checkpoint = Some(false);
            tick.act(Action::CheckpointAfterPromotion { term });
        }
    }
}
