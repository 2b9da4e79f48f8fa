//! What clients were promised, and whether it was kept: lost, phantom and doubly-led writes, stale reads, registers.
//!
//! The oracle is fed event by event in the order in which they ended, live and from a saved history alike, and keeps
//! only ranges and a few recent times. A row of which nobody told is never assumed absent.

use std::collections::{BTreeMap, VecDeque};

use crate::history::Event;
use crate::leads::Leads;
use crate::ranges::Ranges;
use crate::register::Registers;
use crate::rig::Mode;

/// Recent acknowledgements kept for each writer: longer than any read may take.
const RECENT_US: u64 = 30_000_000;
/// How late a change of the key `sync` may be seen.
const SYNC_SEEN_WITHIN_US: u64 = 100_000;
/// Findings told in words; beyond that they are only counted.
const TOLD_MAX: usize = 8;

/// What the run comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    /// Rows acknowledged.
    pub(crate) acknowledged: u64,
    /// Rows that failed for certain.
    pub(crate) failed: u64,
    /// Rows of which nobody told.
    pub(crate) unknown: u64,
    /// Acknowledged and absent.
    pub(crate) lost: u64,
    /// Of these, rows that were acknowledged while every standby streamed and nothing was wrong for a while after.
    pub(crate) lost_settled: u64,
    /// Acknowledged while the key `sync` named no standby: not promised, and said so.
    pub(crate) unpromised: u64,
    /// Of the lost ones.
    pub(crate) lost_unpromised: u64,
    /// Never sent, or failed for certain, and present.
    pub(crate) phantom: u64,
    /// Acknowledged on an older timeline after a newer one had acknowledged, or by two members on one timeline.
    pub(crate) doubly_led: u64,
    /// How long that lasted, in microseconds.
    pub(crate) overlap_us: u64,
    /// `/primary` said so of two members at once.
    pub(crate) doubly_answered: u64,
    /// Reads from a primary that missed a row acknowledged before.
    pub(crate) stale: u64,
    /// Reads from a primary.
    pub(crate) reads: u64,
    /// Registers whose history cannot be put in an order.
    pub(crate) registers_broken: u64,
    /// Registers for which that could not be told in the time given.
    pub(crate) registers_undecided: u64,
    /// Registers checked.
    pub(crate) registers: u64,
}

/// The longest times between two acknowledgements and what else happened since the last mark.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Window {
    /// In microseconds.
    pub(crate) outage_us: u64,
    /// In microseconds.
    pub(crate) overlap_us: u64,
    /// Rows lost that were not lost before.
    pub(crate) lost: u64,
}

#[derive(Debug, Default)]
struct Writer {
    acknowledged: Ranges,
    unknown: Ranges,
    unpromised: Ranges,
    recent: VecDeque<(u64, i64)>,
}

/// A read that missed a row.
#[derive(Clone, Debug)]
struct Stale {
    writer: u32,
    number: i64,
    what: String,
}

/// The judge.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    mode: Option<Mode>,
    /// The key `sync` names nobody.
    nobody_named: bool,
    writers: BTreeMap<u32, Writer>,
    failed: u64,
    unknown: u64,
    reads: u64,
    writes: Leads,
    probes: Leads,
    marked: Option<(bool, BTreeMap<u32, Ranges>)>,
    /// Acknowledged before the last comparison that found everything well, and present in it.
    settled: BTreeMap<u32, Ranges>,
    lost: BTreeMap<u32, Ranges>,
    lost_settled: u64,
    phantom: BTreeMap<u32, Ranges>,
    suspects: Vec<Stale>,
    stale: u64,
    registers: Registers,
    last_ack: u64,
    window: Window,
    fault: String,
    told: Vec<String>,
}

impl Oracle {
    /// Takes in one event.
    pub(crate) fn see(&mut self, event: &Event) {
        match event {
            Event::Run { mode, .. } => self.mode = Some(*mode),
            Event::Ack { w, n, m, l, a, b } => self.acknowledge(*w, *n, (*m, *l), (*a, *b)),
            Event::Failed { n, to, .. } => self.failed += (to - n + 1) as u64,
            Event::Unknown { w, n, .. } => {
                self.unknown += 1;
                self.writers.entry(*w).or_default().unknown.insert(*n, *n);
            }
            Event::Read { m, a, max, .. } => self.read(*m, *a, max),
            Event::Register { id, write, read, a, b, .. } => {
                let told = self.registers.see(*id, (*write, *read), (*a, *b));
                self.tell_about_registers(told);
            }
            Event::Primary { m, l, first, last } => {
                if let Some(what) = self.probes.see(*m, *l, (*last, *first)) {
                    self.tell(format!("/primary: {what}"));
                }
            }
            Event::Sync { at, named } => self.named(*at, *named),
            Event::Fault { name, what, .. } => self.fault = format!("{name} ({what})"),
            Event::Mark { end, .. } => {
                let acknowledged = self.writers.iter().map(|(w, writer)| (*w, writer.acknowledged.clone()));
                self.marked = Some((*end, acknowledged.collect()));
            }
            Event::Present { rows, .. } => self.compare(rows),
        }
    }

    /// Judges what was held back until the end.
    pub(crate) fn finish(&mut self) {
        let told = self.registers.finish();
        self.tell_about_registers(told);
    }

    fn acknowledge(&mut self, w: u32, n: i64, (m, l): (usize, u32), (a, b): (u64, u64)) {
        let writer = self.writers.entry(w).or_default();
        writer.acknowledged.insert(n, n);
        if self.nobody_named {
            writer.unpromised.insert(n, n);
        }
        writer.recent.push_back((b, n));
        while writer.recent.len() > 1 && writer.recent[1].0 + RECENT_US < b {
            writer.recent.pop_front();
        }
        if self.last_ack > 0 {
            self.window.outage_us = self.window.outage_us.max(b.saturating_sub(self.last_ack));
        }
        self.last_ack = self.last_ack.max(b);
        if let Some(what) = self.writes.see(m, l, (a, b)) {
            self.tell(format!("row {n} of writer {w}: {what}"));
        }
        self.window.overlap_us = self.window.overlap_us.max(self.writes.last_overlap_us());
    }

    /// A change is seen a little after it. What was acknowledged just before is given the benefit of that.
    fn named(&mut self, at: u64, named: bool) {
        self.nobody_named = !named;
        for writer in self.writers.values_mut().filter(|_| !named) {
            let just_before = |(b, _): &&(u64, i64)| at < b + SYNC_SEEN_WITHIN_US;
            let numbers = writer.recent.iter().rev().take_while(just_before);
            numbers.for_each(|(_, number)| writer.unpromised.insert(*number, *number));
        }
    }

    fn read(&mut self, m: usize, a: u64, max: &[i64]) {
        self.reads += 1;
        let mut suspects = Vec::new();
        for (w, writer) in &self.writers {
            let Some(seen) = max.get(*w as usize - 1) else { continue };
            let known = writer.recent.iter().rev().find(|(b, _)| *b < a);
            let Some((b, number)) = known.filter(|(_, number)| number > seen) else { continue };
            let what = format!(
                "a read from m{} sent at {a} us shows up to row {seen} of writer {w}, row {number} was acknowledged \
                 at {b} us, during {}",
                m + 1,
                self.fault
            );
            suspects.push(Stale { writer: *w, number: *number, what });
        }
        self.suspects.extend(suspects);
    }

    /// Holds what the primary has against what was acknowledged before the mark.
    fn compare(&mut self, rows: &[(u32, i64, i64)]) {
        let Some((end, acknowledged)) = self.marked.take() else { return };
        let mut present: BTreeMap<u32, Ranges> = BTreeMap::new();
        for (w, first, last) in rows {
            present.entry(*w).or_default().insert(*first, *last);
        }
        let nothing = Ranges::default();
        for (w, acknowledged) in &acknowledged {
            let absent = acknowledged.without(present.get(w).unwrap_or(&nothing));
            let known = self.lost.entry(*w).or_default();
            let new = absent.without(known);
            known.add(&absent);
            let settled = self.settled.entry(*w).or_default();
            self.lost_settled += new.len() - new.without(settled).len();
            *settled = acknowledged.without(&absent);
            self.window.lost += new.len();
            if let Some((first, last)) = new.iter().next() {
                let what = format!(
                    "lost: {} rows of writer {w}, the first {first} to {last}, after {}",
                    new.len(),
                    self.fault
                );
                self.tell(what);
            }
        }
        self.settle_suspects(&present);
        if end {
            self.find_phantoms(&present);
        }
    }

    /// A read that missed a row is stale only if the row is there after all; else the row is lost, and counted so.
    fn settle_suspects(&mut self, present: &BTreeMap<u32, Ranges>) {
        for suspect in std::mem::take(&mut self.suspects) {
            if present.get(&suspect.writer).is_some_and(|rows| rows.contains(suspect.number)) {
                self.stale += 1;
                self.tell(format!("stale: {}", suspect.what));
            }
        }
    }

    fn find_phantoms(&mut self, present: &BTreeMap<u32, Ranges>) {
        let nobody = Writer::default();
        for (w, rows) in present {
            let writer = self.writers.get(w).unwrap_or(&nobody);
            let phantom = rows.without(&writer.acknowledged).without(&writer.unknown);
            if let Some((first, last)) = phantom.iter().next() {
                let what =
                    format!("phantom: {} rows of writer {w}, the first {first} to {last}", phantom.len());
                self.told.push(what);
            }
            self.phantom.insert(*w, phantom);
        }
    }

    fn tell_about_registers(&mut self, told: Vec<String>) {
        if self.mode != Some(Mode::Async) {
            for what in told {
                self.tell(format!("{what}, during {}", self.fault));
            }
        }
    }

    fn tell(&mut self, what: String) {
        if self.told.len() < TOLD_MAX {
            self.told.push(what);
        }
    }

    /// Begins a window: outage, overlap and loss count from here.
    pub(crate) fn begin_window(&mut self, now: u64) {
        self.window = Window::default();
        self.writes.forget_last_overlap();
        self.last_ack = self.last_ack.max(now);
    }

    /// What happened in the window so far. An outage that lasts counts up to `now`.
    pub(crate) fn window(&self, now: u64) -> Window {
        let outage_us = self.window.outage_us.max(now.saturating_sub(self.last_ack));
        Window { outage_us, ..self.window }
    }

    /// Rows acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.writers.values().map(|writer| writer.acknowledged.len()).sum()
    }

    /// Everything found, in words; the first few.
    pub(crate) fn told(&self) -> &[String] {
        &self.told
    }

    /// The figures so far.
    pub(crate) fn verdict(&self) -> Verdict {
        let count = |rows: &BTreeMap<u32, Ranges>| rows.values().map(Ranges::len).sum();
        let unpromised = |w: &u32| self.writers.get(w).map(|writer| &writer.unpromised);
        let lost_promised =
            |(w, lost): (&u32, &Ranges)| unpromised(w).map_or(lost.len(), |of| lost.without(of).len());
        let lost: u64 = count(&self.lost);
        Verdict {
            acknowledged: self.acknowledged(),
            failed: self.failed,
            unknown: self.unknown,
            lost,
            unpromised: self.writers.values().map(|writer| writer.unpromised.len()).sum(),
            lost_unpromised: lost - self.lost.iter().map(lost_promised).sum::<u64>(),
            lost_settled: self.lost_settled,
            phantom: count(&self.phantom),
            doubly_led: self.writes.doubly,
            overlap_us: self.writes.overlap_us,
            doubly_answered: self.probes.doubly,
            stale: self.stale,
            reads: self.reads,
            registers_broken: self.registers.broken,
            registers_undecided: self.registers.undecided,
            registers: self.registers.checked,
        }
    }

    /// What is wrong, given what the mode promises: asynchronous replication may lose the rows that were on their way
    /// when a fault struck, and with them the order of a register; nothing else.
    pub(crate) fn violations(&self) -> Vec<String> {
        let verdict = self.verdict();
        let synchronous = self.mode != Some(Mode::Async);
        let mut faults = vec![
            (verdict.lost_settled, "rows lost that every standby had had the time to receive"),
            (verdict.phantom, "phantom rows"),
            (verdict.doubly_led, "rows acknowledged while another member led"),
        ];
        // A leader that was replaced before its lease ended may serve old reads until its own deadline.
        if !self.mode.is_some_and(Mode::recruits) {
            faults.push((verdict.doubly_answered, "times /primary said so of two members"));
            faults.push((verdict.stale, "stale reads"));
        }
        if synchronous {
            faults.extend([
                (verdict.lost, "rows lost"),
                (verdict.lost_unpromised, "of them not promised, and said so"),
                (verdict.registers_broken, "registers out of order"),
            ]);
        }
        faults
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect()
    }
}

#[cfg(test)]
#[path = "oracle/tests.rs"]
mod tests;
