//! A data directory: its WAL, record by record, and what the control file says of it.

use std::collections::BTreeSet;

use matriarch::model::{
    Branch, ControlFile, ControlState, DataDirectory, Lsn, Switch, Timeline, TimelineHistory,
};

/// How much WAL is in one file.
pub(crate) const SEGMENT_BYTES: u64 = 1 << 14;

/// One WAL record. Numbers grow along every line of history, and two records of one number are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) number: u64,
    pub(crate) end: u64,
    pub(crate) timeline: u32,
}

/// One line of history, as far as it is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wal {
    pub(crate) records: Vec<Record>,
    /// Timelines that ended, and where.
    pub(crate) switches: Vec<(u32, u64)>,
    pub(crate) timeline: u32,
}

impl Wal {
    pub(crate) fn end(&self) -> u64 {
        self.records.last().map_or(0, |record| record.end)
    }

    pub(crate) fn last_number(&self) -> u64 {
        self.records.last().map_or(0, |record| record.number)
    }

    pub(crate) fn append(&mut self, number: u64, bytes: u64) -> u64 {
        let end = self.end() + bytes;
        self.records.push(Record { number, end, timeline: self.timeline });
        end
    }

    /// Forgets what lies beyond `end`.
    pub(crate) fn cut(&mut self, end: u64) {
        let keep = self.records.partition_point(|record| record.end <= end);
        self.records.truncate(keep);
        if let Some(last) = self.records.last() {
            self.timeline = last.timeline;
            self.switches.retain(|(timeline, _)| *timeline < last.timeline);
        }
    }

    /// What lies beyond `from`, up to `end`.
    pub(crate) fn between(&self, from: u64, end: u64) -> &[Record] {
        let first = self.records.partition_point(|record| record.end <= from);
        let last = self.records.partition_point(|record| record.end <= end);
        &self.records[first..last.max(first)]
    }

    pub(crate) fn holds(&self, number: u64) -> bool {
        self.records.binary_search_by_key(&number, |record| record.number).is_ok()
    }

    /// On which timeline the record that ends there, or reaches beyond it, was written.
    pub(crate) fn timeline_at(&self, end: u64) -> u32 {
        let found = self.records.partition_point(|record| record.end < end);
        self.records.get(found).map_or(self.timeline, |record| record.timeline)
    }

    /// Where a standby at `end` on `timeline` could go on from here; false when its history is another, or ahead.
    pub(crate) fn continues(&self, timeline: u32, end: u64, flushed: u64) -> bool {
        if timeline == self.timeline {
            return end <= flushed;
        }
        self.switches.iter().any(|(old, switch)| *old == timeline && end <= *switch)
    }

    pub(crate) fn history(&self) -> TimelineHistory {
        let switch = |(timeline, lsn): &(u32, u64)| Switch {
            timeline: Timeline(*timeline),
            lsn: Lsn(*lsn),
            reason: "no recovery target specified".to_owned(),
        };
        TimelineHistory(self.switches.iter().map(switch).collect())
    }
}

/// What lies in the directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Data {
    #[default]
    Empty,
    /// An interrupted bootstrap, clone or rewind.
    HalfMade(&'static str),
    Ready,
}

/// A data directory with what lies beside it.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) data: Data,
    pub(crate) system_id: u64,
    pub(crate) wal: Wal,
    /// What certainly survives a crash.
    pub(crate) flushed: u64,
    pub(crate) control: ControlState,
    pub(crate) checkpoint: u64,
    pub(crate) checkpoint_timeline: u32,
    pub(crate) min_recovery: u64,
    pub(crate) backup_label: bool,
    /// A copy that has not been consistent yet.
    pub(crate) unfinished: bool,
    pub(crate) promote_file: bool,
    /// Timelines whose numbers must not be used.
    pub(crate) reserved: BTreeSet<u32>,
    /// Timelines whose history files lie here.
    pub(crate) histories: BTreeSet<u32>,
    pub(crate) slots: BTreeSet<String>,
    /// `synchronous_standby_names` in the file.
    pub(crate) sync_names: String,
    /// The access rules keep clients out.
    pub(crate) clients_locked_out: bool,
    /// `patroni.dynamic.json`.
    pub(crate) configured: Option<String>,
    /// A directory that was moved aside.
    pub(crate) aside: Option<Box<Disk>>,
    pub(crate) full: bool,
    /// A flush takes up to this many milliseconds more.
    pub(crate) slow_ms: u64,
}

impl Default for Disk {
    fn default() -> Disk {
        Disk {
            data: Data::Empty,
            system_id: 0,
            wal: Wal::default(),
            flushed: 0,
            control: ControlState::ShutDown,
            checkpoint: 0,
            checkpoint_timeline: 1,
            min_recovery: 0,
            backup_label: false,
            unfinished: false,
            promote_file: false,
            reserved: BTreeSet::new(),
            histories: BTreeSet::new(),
            slots: BTreeSet::new(),
            sync_names: String::new(),
            clients_locked_out: false,
            configured: None,
            aside: None,
            full: false,
            slow_ms: 0,
        }
    }
}

impl Disk {
    /// Throws the data away; what the disk itself is like stays.
    pub(crate) fn clear(&mut self) {
        *self = Disk { aside: self.aside.take(), full: self.full, slow_ms: self.slow_ms, ..Disk::default() };
    }

    /// What was before a clone is again where it was, with whatever had left it half made.
    pub(crate) fn put_back(&mut self) {
        let (aside, full, slow_ms) = (self.aside.take(), self.full, self.slow_ms);
        self.clear();
        if let Some(aside) = aside {
            *self = Disk { full, slow_ms, ..*aside };
        }
    }

    pub(crate) fn was_primary(&self) -> bool {
        let standby = matches!(
            self.control,
            ControlState::StartingUp | ControlState::ShutDownInRecovery | ControlState::InArchiveRecovery
        );
        !self.backup_label && !standby
    }

    /// As the supervisor's look at it shows it.
    pub(crate) fn seen(&self) -> DataDirectory {
        match self.data {
            Data::Empty => DataDirectory::Empty,
            Data::HalfMade(by) => DataDirectory::HalfMade { by: by.to_owned() },
            Data::Ready => DataDirectory::Ready(ControlFile {
                system_id: self.system_id,
                state: self.control,
                checkpoint: Lsn(self.checkpoint),
                checkpoint_timeline: Timeline(self.checkpoint_timeline),
                min_recovery: Lsn(self.min_recovery),
                min_recovery_timeline: Timeline(self.wal.timeline_at(self.min_recovery)),
                checksums: true,
                wal_log_hints: true,
                minimal_wal: false,
                backup_label: self.backup_label,
                backup_start: Lsn(u64::from(self.unfinished)),
                segments: Some(self.segments()),
                standby_minimums: Default::default(),
            }),
        }
    }

    /// The last records of a copy are missing; something of the newest timeline is there.
    pub(crate) fn lack_last(&mut self, records: usize) {
        let newest = self.wal.records.iter().filter(|record| record.timeline == self.wal.timeline).count();
        let lost = records.min(newest.saturating_sub(1));
        self.wal.records.truncate(self.wal.records.len() - lost);
        self.flushed = self.wal.end();
        self.checkpoint = self.checkpoint.min(self.flushed);
    }

    /// What the names of the files in `pg_wal` say.
    fn segments(&self) -> Branch {
        let end = Some(Lsn((self.wal.end() / SEGMENT_BYTES + 1) * SEGMENT_BYTES));
        Branch { history: self.wal.history(), timeline: Timeline(self.wal.timeline), end }
    }

    /// Recovery would begin at the last record that was replayed, which is on the timeline it was written in.
    pub(crate) fn restartpoint(&mut self, replayed: u64) {
        let records = self.wal.between(0, replayed);
        let before = records.len().checked_sub(2).map_or(0, |before| records[before].end);
        self.checkpoint_timeline = records.last().map_or(self.wal.timeline, |last| last.timeline);
        self.checkpoint = before;
        self.min_recovery = replayed;
    }

    /// The postmaster ended without a word: of what was written and not flushed, `kept` survives.
    pub(crate) fn crash(&mut self, kept: u64) {
        self.wal.cut(kept.max(self.flushed));
        self.flushed = self.wal.end();
        self.promote_file = false;
    }

    /// The first timeline number that is free.
    pub(crate) fn next_timeline(&self) -> u32 {
        let taken = |number: &u32| self.reserved.contains(number) || self.histories.contains(number);
        (self.wal.timeline + 1..).find(|number| !taken(number)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_cut_continued_and_compared() {
        let mut wal = Wal { timeline: 1, ..Wal::default() };
        assert_eq!((wal.append(1, 100), wal.append(2, 100)), (100, 200));
        wal.switches.push((1, 200));
        wal.timeline = 2;
        wal.append(3, 100);
        assert!(wal.continues(1, 200, 300) && wal.continues(2, 300, 300) && !wal.continues(1, 201, 300));
        assert_eq!((wal.timeline_at(200), wal.timeline_at(201)), (1, 2));
        assert_eq!(wal.between(100, 300).len(), 2);
        wal.cut(250);
        assert_eq!((wal.end(), wal.timeline, wal.switches.len()), (200, 1, 0));
        assert!(wal.holds(2) && !wal.holds(3));
    }
}
