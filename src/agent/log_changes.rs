//! Log lines for operators: one line for each change, no lines while nothing changes.

use super::cycle::Cycle;
use crate::core::member::Notice;
use crate::model::{Observation, Reason};
use crate::os::clock;

impl Cycle {
    /// Logs a notice of a decision.
    pub(super) fn say(&mut self, notice: Notice) {
        match notice {
            Notice::IdleSlots(slots) => tracing::warn!(
                slots = slots.join(", "),
                "nobody uses these replication slots and no member asks for them: they hold WAL back, and are dropped \
                 after `member_slots_ttl` on a primary and after `loop_wait` on a standby, unless `ignore_slots` or \
                 `slots` in the dynamic configuration names them"
            ),
            Notice::SafeSlots(slots) => tracing::info!(
                slots = slots.join(", "),
                "the readers of these logical replication slots can go on here after a failover"
            ),
            Notice::UnsafeSlots(slots) => tracing::warn!(
                slots = slots.join(", "),
                "this member is promoted without these logical replication slots, or before it was proved that the \
                 catalogs here hold all that they need: a slot that is missing is created anew and its reader misses \
                 changes; a reader that fails needs a new slot. In both cases it needs a new copy of the data"
            ),
            Notice::SyncWaitsCancelled { more, total } => tracing::warn!(
                more,
                cancelled = total,
                "commits whose wait for a standby was cancelled: a failover may lose them"
            ),
            Notice::TwoJobs { asked, runs } => {
                tracing::error!(%asked, %runs, "two jobs were started at the same time")
            }
            Notice::Decided(because) => {
                let term = self.lease().leading_at(clock::now()).map(|term| term.0);
                match &because {
                    Reason::Store(_) => tracing::warn!(term, "{because}"),
                    _usual => tracing::info!(term, "{because}"),
                }
                self.service.status(&because.to_string());
            }
        }
    }

    /// Logs changes in the observation.
    pub(super) fn say_what_was_seen(&mut self, seen: &Observation) {
        self.report_missing_slots(seen);
        self.report_refused_slots(seen);
        // While a job stops or starts PostgreSQL its silence is expected.
        let trouble = seen.postgres.sql_trouble.clone().filter(|_| seen.job.is_none());
        if let Some(why) = trouble.as_ref().filter(|_| trouble != self.state.trouble) {
            tracing::warn!(why, "PostgreSQL runs, and the supervisor cannot query it");
        }
        self.state.trouble = trouble;
        if seen.writes.refused != self.state.writes_refused {
            match &seen.writes.refused {
                Some(why) => tracing::warn!(
                    why,
                    "etcd refuses writes: until it accepts them, no other member can lead and no change is published"
                ),
                None => tracing::info!("etcd accepts writes again"),
            }
            self.state.writes_refused.clone_from(&seen.writes.refused);
        }
        let weak = &seen.postgres.unsynchronous;
        if *weak != self.state.unsynchronous && !weak.is_empty() {
            tracing::info!(
                whose = weak.join(", "),
                "synchronous_commit is set so that commits skip the wait for standbys"
            );
        }
        self.state.unsynchronous.clone_from(weak);
    }

    /// Names the members that have to stream without a slot, because their slot would have another's name.
    fn report_missing_slots(&mut self, seen: &Observation) {
        let cluster = seen.view.as_ref().map(|view| &view.cluster).filter(|_| seen.settings.use_slots);
        let pairs = cluster.map(|cluster| cluster.without_slot()).unwrap_or_default();
        let said: Vec<String> = pairs.iter().map(|(name, holder)| format!("{name} ({holder})")).collect();
        if said != self.state.without_slot && !said.is_empty() {
            tracing::warn!(
                members = said.join(", "),
                "these members stream without a replication slot, because their names become the slot of the member in \
                 parentheses; give each another `name`"
            );
        }
        self.state.without_slot = said;
    }

    /// Names the permanent slots that cannot be made.
    fn report_refused_slots(&mut self, seen: &Observation) {
        let cluster = seen.view.as_ref().map(|view| &view.cluster).filter(|_| seen.settings.use_slots);
        let conflicts = cluster.map(|cluster| seen.settings.slots.conflicts(cluster)).unwrap_or_default();
        let said: Vec<String> = conflicts.iter().map(|(slot, member)| format!("{slot} ({member})")).collect();
        if said != self.state.refused_slots && !said.is_empty() {
            tracing::warn!(
                slots = said.join(", "),
                "these logical slots under `slots` in the dynamic configuration are not made, because the member in \
                 parentheses streams through a physical slot of that name; give each another name"
            );
        }
        self.state.refused_slots = said;
    }
}
