//! The saved results of the measurements.

use serde::{Deserialize, Serialize};

use super::answers::Answers;
use super::case::Case;
use super::contestant::Contestant;
use super::resources::Resources;

/// One fault, as clients saw it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Which.
    pub(crate) case: Case,
    /// The longest time between two acknowledgements.
    pub(crate) outage_s: f64,
    /// Rows acknowledged and gone.
    pub(crate) lost: u64,
    /// How long the older primary acknowledged after the newer one had.
    pub(crate) overlap_s: f64,
    /// Nobody had succeeded when the fault was undone, after three leases.
    pub(crate) never: bool,
    /// Everything was well again in time, without an operator.
    pub(crate) healed: bool,
}

/// One line of a measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Figure {
    /// How it calls itself.
    Title(String),
    /// While nothing happens.
    Resources(Resources),
    /// Of `/primary`.
    Answers(Answers),
    /// One fault.
    Sample(Sample),
}

/// Everything about one contestant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Who.
    pub(crate) contestant: Contestant,
    /// How it calls itself.
    pub(crate) title: String,
    /// While nothing happens.
    pub(crate) resources: Option<Resources>,
    /// Of `/primary`.
    pub(crate) answers: Option<Answers>,
    /// In order of time.
    pub(crate) samples: Vec<Sample>,
}

/// What it was measured on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Processors.
    pub(crate) processors: usize,
    /// `postgres --version`.
    pub(crate) postgres: String,
    /// `etcd --version`, its first line.
    pub(crate) etcd: String,
}

/// A whole benchmark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Results {
    /// What it was measured on.
    pub(crate) machine: Machine,
    /// How often each fault was to be injected.
    pub(crate) rounds: usize,
    /// In the order in which they were measured.
    pub(crate) figures: Vec<Figures>,
}

/// A case, in short.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    /// In seconds.
    pub(crate) outage_median: f64,
    /// In seconds; `None`: too few were measured to say so.
    pub(crate) outage_p99: Option<f64>,
    /// In seconds.
    pub(crate) outage_worst: f64,
    /// The worst of them.
    pub(crate) lost: u64,
    /// The worst of them, in seconds.
    pub(crate) overlap: f64,
    /// More than half of them ended only with the fault.
    pub(crate) never: bool,
    /// After how many of them an operator had to help.
    pub(crate) not_healed: usize,
}

impl Machine {
    /// The one we run on.
    pub(crate) fn this() -> Machine {
        let first_line = |program: &std::path::Path| {
            let output = std::process::Command::new(program).arg("--version").output().ok()?;
            String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
        };
        let postgres = crate::rig::postgres_bin().ok().map(|folder| folder.join("postgres"));
        Machine {
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            postgres: postgres.and_then(|program| first_line(&program)).unwrap_or_default(),
            etcd: first_line("etcd".as_ref()).unwrap_or_default(),
        }
    }
}

impl Results {
    /// Nothing yet.
    pub(crate) fn new(machine: Machine, rounds: usize) -> Results {
        Results { machine, rounds, figures: Vec::new() }
    }

    /// Of one contestant, to be added to.
    pub(crate) fn of(&mut self, contestant: Contestant) -> &mut Figures {
        let index = self.figures.iter().position(|figures| figures.contestant == contestant);
        let index = index.unwrap_or_else(|| {
            let title = contestant.name();
            self.figures.push(Figures {
                contestant,
                title,
                resources: None,
                answers: None,
                samples: Vec::new(),
            });
            self.figures.len() - 1
        });
        &mut self.figures[index]
    }
}

impl Figures {
    /// Adds one.
    pub(crate) fn add(&mut self, figure: Figure) {
        match figure {
            Figure::Title(title) => self.title = title,
            Figure::Resources(resources) => self.resources = Some(resources),
            Figure::Answers(answers) => self.answers = Some(answers),
            Figure::Sample(sample) => self.samples.push(sample),
        }
    }

    /// How often a case was measured.
    pub(crate) fn count(&self, case: Case) -> usize {
        self.samples.iter().filter(|sample| sample.case == case).count()
    }

    /// A case in short, if it was measured.
    pub(crate) fn summary(&self, case: Case) -> Option<Summary> {
        let samples: Vec<&Sample> = self.samples.iter().filter(|sample| sample.case == case).collect();
        if samples.is_empty() {
            return None;
        }
        let mut outages: Vec<f64> = samples.iter().map(|sample| sample.outage_s).collect();
        outages.sort_by(f64::total_cmp);
        let never = samples.iter().filter(|sample| sample.never).count();
        Some(Summary {
            outage_median: (outages[(outages.len() - 1) / 2] + outages[outages.len() / 2]) / 2.0,
            outage_p99: (100 <= outages.len()).then(|| outages[(outages.len() * 99).div_ceil(100) - 1]),
            outage_worst: outages.last().copied().unwrap_or_default(),
            lost: samples.iter().map(|sample| sample.lost).max().unwrap_or_default(),
            overlap: samples.iter().map(|sample| sample.overlap_s).fold(0.0, f64::max),
            never: never * 2 > samples.len(),
            not_healed: samples.iter().filter(|sample| !sample.healed).count(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_between_the_two_in_the_middle() {
        let mut results = Results::new(Machine::default(), 4);
        for (outage_s, lost, never) in [(4.0, 0, false), (1.0, 7, false), (2.0, 0, true), (3.0, 0, false)] {
            let case = Case::Partition;
            let sample = Sample { case, outage_s, lost, overlap_s: 0.5, never, healed: !never };
            results.of(Contestant::Patroni).add(Figure::Sample(sample));
        }
        let figures = results.of(Contestant::Patroni);
        assert_eq!((figures.count(Case::Partition), figures.summary(Case::EtcdAway)), (4, None));
        let summary = figures.summary(Case::Partition).expect("it was measured");
        assert_eq!((summary.outage_median, summary.outage_worst, summary.lost), (2.5, 4.0, 7));
        assert_eq!((summary.overlap, summary.never, summary.not_healed), (0.5, false, 1));
        assert_eq!(summary.outage_p99, None);
    }

    #[test]
    fn ninety_nine_of_a_hundred_are_no_longer_than_the_p99() {
        let mut results = Results::new(Machine::default(), 100);
        for round in 1..=100_u8 {
            let (case, outage_s) = (Case::KillMember, f64::from(round));
            let sample = Sample { case, outage_s, lost: 0, overlap_s: 0.0, never: false, healed: true };
            results.of(Contestant::Matriarch).add(Figure::Sample(sample));
        }
        let summary = results.of(Contestant::Matriarch).summary(Case::KillMember).expect("it was measured");
        assert_eq!(summary.outage_p99, Some(99.0));
    }
}
