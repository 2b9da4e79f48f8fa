//! The report of a run: a table of faults, and the findings of the clients.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::fault::Fault;
use crate::history::History;
use crate::oracle::{Verdict, Window};
use crate::rig::Mode;

/// One fault injected, or not.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Which.
    pub(crate) fault: Fault,
    /// What clients saw of it.
    pub(crate) window: Window,
    /// Nobody had succeeded the victim when the fault was undone.
    pub(crate) nobody: bool,
    /// What went wrong besides what it was meant to do.
    pub(crate) problem: Option<String>,
    /// Why it could not be injected.
    pub(crate) skipped: Option<String>,
}

/// The whole run.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    title: String,
    /// In order of time.
    pub(crate) samples: Vec<Sample>,
    verdict: Verdict,
    problems: Vec<String>,
    violations: Vec<String>,
    told: Vec<String>,
    ended_by_themselves: u32,
}

impl Report {
    /// An empty one.
    pub(crate) fn new(system: &str, mode: Mode, seed: u64) -> Report {
        Report {
            title: format!("{system}, {mode:?}, seed {seed}"),
            samples: Vec::new(),
            verdict: Verdict::default(),
            problems: Vec::new(),
            violations: Vec::new(),
            told: Vec::new(),
            ended_by_themselves: 0,
        }
    }

    /// Adds one fault.
    pub(crate) fn add(&mut self, sample: Sample) {
        if sample.fault.is_planned() && sample.window.lost > 0 {
            self.violations.push(format!("{} rows lost by {}", sample.window.lost, sample.fault.name()));
        }
        self.problems.extend(sample.problem.clone());
        self.samples.push(sample);
    }

    /// Adds something that went wrong.
    pub(crate) fn problem(&mut self, what: String) {
        self.problems.push(what);
    }

    /// Adds what the oracle says at the end.
    pub(crate) fn judge(&mut self, history: &History) {
        history.oracle(|oracle| {
            oracle.finish();
            self.verdict = oracle.verdict();
            self.violations.extend(oracle.violations());
            self.told = oracle.told().to_vec();
        });
    }

    /// Adds how often supervisors ended without having been told to.
    pub(crate) fn ends(&mut self, count: u32) {
        self.ended_by_themselves = count;
    }

    /// No promise was broken, everything healed, every fault happened.
    pub(crate) fn is_good(&self) -> bool {
        self.violations.is_empty() && self.problems.is_empty()
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut faults: BTreeMap<Fault, Vec<&Sample>> = BTreeMap::new();
        for sample in &self.samples {
            faults.entry(sample.fault).or_default().push(sample);
        }
        let mut text = format!("{}\n\n", self.title);
        let head = ["fault", "times", "worst outage", "lost", "overlap"];
        let _ = writeln!(text, "{:<22}{:>6}{:>14}{:>7}{:>10}", head[0], head[1], head[2], head[3], head[4]);
        for (fault, samples) in faults {
            let done: Vec<&&Sample> = samples.iter().filter(|sample| sample.skipped.is_none()).collect();
            if let (true, Some(why)) = (done.is_empty(), samples[0].skipped.as_ref()) {
                let _ = writeln!(text, "{:<22}{:>6}  {why}", fault.name(), 0);
                continue;
            }
            let outage = done.iter().map(|sample| sample.window.outage_us).max().unwrap_or_default();
            let overlap = done.iter().map(|sample| sample.window.overlap_us).max().unwrap_or_default();
            let lost: u64 = done.iter().map(|sample| sample.window.lost).sum();
            let (name, times) = (fault.name(), done.len());
            let (outage, overlap) = (seconds(outage), seconds(overlap));
            let _ = writeln!(text, "{name:<22}{times:>6}{outage:>14}{lost:>7}{overlap:>10}");
        }
        let _ = write!(text, "\n{}", summary(&self.verdict));
        if self.ended_by_themselves > 0 {
            let _ = write!(text, "\nsupervisors ended by themselves: {}", self.ended_by_themselves);
        }
        self.tell_faults(&mut text);
        text
    }

    fn tell_faults(&self, text: &mut String) {
        for (title, lines) in
            [("did not go as it should", &self.problems), ("BROKEN", &self.violations), ("found", &self.told)]
        {
            for line in lines {
                let _ = write!(text, "\n{title}: {line}");
            }
        }
    }
}

/// Microseconds as seconds.
pub(crate) fn seconds(us: u64) -> String {
    format!("{:.2} s", us as f64 / 1e6)
}

/// Figures of clients, in words.
pub(crate) fn summary(verdict: &Verdict) -> String {
    format!(
        "{} rows acknowledged, {} failed, {} unknown; {} lost, {} phantom, {} doubly led\n{} acknowledged while the key \
         sync named no standby, {} of them lost\n{} reads, {} stale; \
         {} registers, {} out of order, {} undecided; /primary of two members: {}",
        verdict.acknowledged,
        verdict.failed,
        verdict.unknown,
        verdict.lost,
        verdict.phantom,
        verdict.doubly_led,
        verdict.unpromised,
        verdict.lost_unpromised,
        verdict.reads,
        verdict.stale,
        verdict.registers,
        verdict.registers_broken,
        verdict.registers_undecided,
        verdict.doubly_answered,
    )
}
