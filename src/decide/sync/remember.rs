//! The update of the memory about synchronous replication at the start of a tick.

use super::super::clone;
use super::super::leadership::Leadership;
use super::super::tick::Tick;
use super::memory::SyncMemory;
use crate::model::Process;

impl Tick<'_> {
    /// Records changes, before any rule runs.
    pub(in crate::decide) fn remember_sync(&mut self, leadership: &Leadership) {
        let now = self.now;
        let term = leadership.held_term();
        let revision = self.sync_revision();
        if self.stays(leadership) {
            self.memory.sync.leaving_since = None;
        }
        let memory = &mut self.memory.sync;
        if memory.term.map(|(term, _)| term) != term {
            *memory = SyncMemory {
                term: term.map(|term| (term, now)),
                in_effect: memory.in_effect.take(),
                cancelled: memory.cancelled,
                leaving_since: memory.leaving_since,
                ..SyncMemory::default()
            };
        }
        if memory.writing.as_ref().is_some_and(|write| write.over != revision) {
            (memory.writing, memory.owned) = (None, Some(revision));
        }
        if matches!(self.seen.postgres.process, Process::Down { .. }) {
            // The next one takes the names anew, and its sessions are others.
            self.memory.sync.forget_postgres();
        }
        let Some(sql) = self.seen.postgres.answering() else { return };
        self.memory.sync.look(sql);
        for (name, _) in self.standbys(sql) {
            self.memory.sync.streamed_at.insert(name.clone(), now);
        }
    }

    /// Whether no operation is about to stop PostgreSQL here.
    fn stays(&self, leadership: &Leadership) -> bool {
        let is_to_be_cloned = match leadership.other() {
            Some(leader) => clone::is_to_be_cloned(self, leader),
            None => self.memory.reinitialize.is_some(),
        };
        self.memory.restart.is_none() && !is_to_be_cloned && !self.ends()
    }
}
