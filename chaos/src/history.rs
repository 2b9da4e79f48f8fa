//! The history of client operations: one JSON line for each event, with times, so that a run can be checked again.
//!
//! All times are microseconds of `CLOCK_BOOTTIME` since the run began. Clients, members and faults share one machine,
//! so that they can be compared exactly.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::oracle::Oracle;
use crate::rig::Mode;

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "e", rename_all = "snake_case")]
pub(crate) enum Event {
    /// The first line.
    Run {
        /// What is under test.
        system: String,
        /// How commits wait.
        mode: Mode,
        /// What the choice of faults was drawn with.
        seed: u64,
    },
    /// A row was acknowledged.
    Ack {
        /// Writer.
        w: u32,
        /// Number.
        n: i64,
        /// Member.
        m: usize,
        /// Timeline.
        l: u32,
        /// Sent.
        a: u64,
        /// Answered.
        b: u64,
    },
    /// Rows that failed for certain: the statement had no effect.
    Failed {
        /// Writer.
        w: u32,
        /// First number.
        n: i64,
        /// Last number.
        to: i64,
        /// Member.
        m: usize,
        /// First sent.
        a: u64,
        /// Last answered.
        b: u64,
        /// The SQLSTATE of the last.
        why: String,
    },
    /// A row of which nobody told.
    Unknown {
        /// Writer.
        w: u32,
        /// Number.
        n: i64,
        /// Member.
        m: usize,
        /// Sent.
        a: u64,
        /// Given up.
        b: u64,
    },
    /// A read from a member that says it is primary: the highest number of each writer.
    Read {
        /// Member.
        m: usize,
        /// Sent.
        a: u64,
        /// Answered.
        b: u64,
        /// By writer, from the first.
        max: Vec<i64>,
    },
    /// An operation on a register.
    Register {
        /// Which.
        id: i64,
        /// The value written, or none for a read.
        write: Option<i64>,
        /// The value read, if there was one.
        read: Option<i64>,
        /// Member.
        m: usize,
        /// Sent.
        a: u64,
        /// Answered, or never.
        b: Option<u64>,
    },
    /// A member answered 200 to `/primary` from the first question to the last answer of a row of such answers.
    Primary {
        /// Member.
        m: usize,
        /// Timeline.
        l: u32,
        /// The first of them was answered.
        first: u64,
        /// The last of them was asked.
        last: u64,
    },
    /// The key `sync` says whether commits wait for a standby.
    Sync {
        /// When it was seen.
        at: u64,
        /// It names one.
        named: bool,
    },
    /// Something was done to the cluster.
    Fault {
        /// Its name.
        name: String,
        /// When.
        at: u64,
        /// What, to whom.
        what: String,
    },
    /// From here on, what was acknowledged before must be in the next [`Event::Present`].
    Mark {
        /// When.
        at: u64,
        /// No client writes any more.
        end: bool,
    },
    /// The rows that the primary holds, as ranges: writer, first and last number.
    Present {
        /// When.
        at: u64,
        /// The ranges.
        rows: Vec<(u32, i64, i64)>,
    },
}

/// Writes down and judges at once.
#[derive(Debug)]
pub(crate) struct History {
    began: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: BufWriter<File>,
    oracle: Oracle,
    /// Failures in a row by writer, not written yet: a writer on a standby does nothing but fail.
    failures: BTreeMap<u32, Event>,
}

impl History {
    /// A new one in that file.
    pub(crate) fn create(path: &Path) -> Result<History> {
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        let inner =
            Inner { file: BufWriter::new(file), oracle: Oracle::default(), failures: BTreeMap::new() };
        Ok(History { began: boottime(), inner: Mutex::new(inner) })
    }

    /// Now, in microseconds since the run began.
    pub(crate) fn now(&self) -> u64 {
        boottime().saturating_sub(self.began).as_micros() as u64
    }

    /// Writes down one event. One that cannot be written is judged all the same.
    pub(crate) fn record(&self, event: &Event) {
        let mut inner = self.lock();
        inner.oracle.see(event);
        inner.write(event);
    }

    /// Asks the oracle, or tells it something.
    pub(crate) fn oracle<T>(&self, ask: impl FnOnce(&mut Oracle) -> T) -> T {
        ask(&mut self.lock().oracle)
    }

    /// Makes the file complete.
    pub(crate) fn flush(&self) -> Result<()> {
        let mut inner = self.lock();
        inner.write_failures();
        inner.file.flush().context("write the history")
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn write(&mut self, event: &Event) {
        match event {
            Event::Failed { w, .. } => {
                if let Some(held) = self.failures.get_mut(w) {
                    if held.takes_in(event) {
                        return;
                    }
                    let held = std::mem::replace(held, event.clone());
                    self.write_line(&held);
                } else {
                    self.failures.insert(*w, event.clone());
                }
            }
            Event::Mark { .. } => {
                self.write_failures();
                self.write_line(event);
            }
            _ => self.write_line(event),
        }
    }

    fn write_failures(&mut self) {
        for held in std::mem::take(&mut self.failures).into_values() {
            self.write_line(&held);
        }
    }

    fn write_line(&mut self, event: &Event) {
        if let Ok(line) = serde_json::to_string(event) {
            let _ = writeln!(self.file, "{line}");
        }
    }
}

impl Event {
    /// Takes in a failure that directly follows this one, for the same reason; false if it is another matter.
    fn takes_in(&mut self, next: &Event) -> bool {
        let (
            Event::Failed { to, m, b, why, .. },
            Event::Failed { n, to: next_to, m: next_m, b: next_b, why: next_why, .. },
        ) = (self, next)
        else {
            return false;
        };
        if (*n, next_m, next_why) != (*to + 1, &*m, &*why) {
            return false;
        }
        (*to, *b) = (*next_to, *next_b);
        true
    }
}

/// Reads a saved history and judges it again.
pub(crate) fn judge(path: &Path) -> Result<Oracle> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut oracle = Oracle::default();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let line = line?;
        let event = serde_json::from_str(&line)
            .with_context(|| format!("{}:{}: no event of a history", path.display(), index + 1))?;
        oracle.see(&event);
    }
    oracle.finish();
    Ok(oracle)
}

/// The clock that counts suspends as well.
fn boottime() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_history_is_judged_as_the_run_was() {
        let path = std::env::temp_dir().join(format!("chaos-history-{}.jsonl", std::process::id()));
        let history = History::create(&path).expect("writable");
        history.record(&Event::Run { system: "x".into(), mode: Mode::Quorum, seed: 1 });
        history.record(&Event::Ack { w: 1, n: 1, m: 0, l: 2, a: 10, b: 20 });
        history.record(&Event::Ack { w: 1, n: 2, m: 1, l: 3, a: 30, b: 40 });
        history.record(&Event::Mark { at: 50, end: true });
        history.record(&Event::Present { at: 60, rows: vec![(1, 2, 2), (1, 9, 9)] });
        history.flush().expect("written");
        let live = history.oracle(|oracle| {
            oracle.finish();
            oracle.verdict()
        });
        let saved = judge(&path).expect("readable").verdict();
        assert_eq!(live, saved);
        assert_eq!((saved.lost, saved.phantom, saved.acknowledged), (1, 1, 2));
        std::fs::remove_file(&path).expect("ours");
    }
}
