//! The trace of a run: its last lines if an invariant breaks, all lines on request.

use std::collections::VecDeque;

use super::clock::At;

/// So many lines are kept.
const KEPT: usize = 60;

/// The lines.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    print: bool,
    quiet: bool,
    lines: VecDeque<String>,
    digest: u64,
}

impl Trace {
    /// `print`: all lines go to standard error at once.
    pub(crate) fn new(print: bool, quiet: bool) -> Trace {
        Trace { print, quiet, lines: VecDeque::new(), digest: 0xcbf2_9ce4_8422_2325 }
    }

    pub(crate) fn note(&mut self, now: At, text: impl FnOnce() -> String) {
        if self.quiet && !self.print {
            return;
        }
        let line = format!("{now} {}", text());
        for byte in line.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        if self.print {
            eprintln!("{line}");
        }
        self.lines.push_back(line);
        if KEPT < self.lines.len() {
            self.lines.pop_front();
        }
    }

    /// The last lines.
    pub(crate) fn tail(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }

    /// A number that names the whole story.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }
}
