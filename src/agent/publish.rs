//! The status after every tick. The REST interface answers from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cycle::Cycle;
use super::{HandOverStatus, Status};
use crate::decide;
use crate::model::{DataDirectory, HandOverProgress, Moment, Observation, SqlFacts, WallTime};
use crate::os::clock;

impl Cycle {
    pub(super) fn publish(&mut self, seen: &Observation, next_tick_by: Moment) {
        self.say_what_was_seen(seen);
        self.state.recovery.look(&self.tools.postgres, seen.postgres.sql.is_some());
        let now = clock::now();
        self.state.ticks += 1;
        self.measure(seen, now);
        let memory = self.core.memory();
        let last = self.status.borrow().clone();
        let record =
            memory.published.as_ref().map_or_else(|| last.record.clone(), |(record, _, _)| record.clone());
        let alive = self.state.etcd_seen_at.is_some_and(|at| now < at + seen.settings.ttl);
        let view = match (&seen.view, &last.last_view) {
            (Some(new), Some(old)) if new.cluster == **old => Some(old.clone()),
            (Some(new), _) => Some(Arc::new(new.cluster.clone())),
            (None, _) => None,
        };
        let job = self.core.job();
        let refused = memory.hand_over_refused.clone().map(HandOverStatus::Refused);
        let under_way = memory.hand_over.as_ref().map(|hand_over| HandOverStatus::UnderWay(hand_over.step()));
        let has_data = matches!(seen.postgres.data, DataDirectory::Ready(_));
        let lacks_removed_wal = memory.rejoin.wal_removed_by.is_some();
        let streaming = seen.postgres.answering().is_some_and(SqlFacts::streams) && !lacks_removed_wal;
        let status = Status {
            me: seen.me.clone(),
            scope: self.scope.clone(),
            settings: seen.settings.clone(),
            config: has_data.then(|| self.dynamic.text().to_owned()),
            view: view.clone().filter(|_| alive),
            last_view: view,
            etcd_last_seen: self.state.etcd_seen_wall,
            store: memory.store.mark(),
            lease: self.lease(),
            hearing: self.channel.facts(now),
            postgres: seen.postgres.clone(),
            streamed_at: if streaming { Some(now) } else { last.streamed_at },
            state: record.state,
            role: record.role,
            record,
            watchdog_failed: seen.watchdog_failed,
            writes_refused: seen.writes.refused.clone(),
            failsafe_active: memory.failsafe.is_active(&seen.lease, now),
            suspicion: memory.suspicion(seen.hearing),
            recruited: memory.recruited(seen),
            restart_begins_as_standby: decide::restart_begins_as_standby(memory, seen, now),
            yields: memory.stands_back(now),
            lacks_removed_wal,
            guard: self.fencing.facts().pid,
            kubernetes: self.pods.facts(),
            recovered_at: self.state.recovery.advanced_at(),
            clone_progress: seen.clone_progress,
            job: job.map(|running| running.job.kind()),
            because: self.core.because().map(ToString::to_string).unwrap_or_default(),
            hand_over: under_way.or(refused),
            operation: self.operation(seen, now),
            scheduled_restart: memory.scheduled_restart.clone(),
            ticked_at: now,
            next_tick_by,
            counters: BTreeMap::from([
                ("log_lines_dropped_total", super::log::dropped()),
                ("sync_waits_cancelled_total", memory.sync.cancelled),
                ("ticks_total", self.state.ticks),
            ]),
            tally: self.state.tally.clone(),
        };
        self.status.send_replace(Arc::new(status));
    }

    /// The requested hand-over under way.
    fn operation(&self, seen: &Observation, now: Moment) -> Option<HandOverProgress> {
        let hand_over = self.core.memory().hand_over.as_ref()?;
        let left_ms = i64::try_from(now.until(hand_over.give_up_at).as_millis()).unwrap_or(i64::MAX);
        Some(HandOverProgress {
            id: hand_over.operation()?,
            steps: self.core.journal().hand_over_steps(hand_over.since, (now, seen.wall)),
            give_up_at: WallTime(seen.wall.0.saturating_add(left_ms)),
        })
    }

    fn measure(&mut self, seen: &Observation, now: Moment) {
        let lease = self.lease();
        let leads = lease.leading_at(now).is_some() && seen.settings.standby_cluster.is_none();
        let tally = &mut self.state.tally;
        tally.lease(&lease, now);
        tally.serving(leads, seen.postgres.answering().is_some_and(SqlFacts::is_primary), now);
        tally.crash(self.core.memory().failures.crashes.last().copied());
        tally.decided(self.core.because());
    }
}
