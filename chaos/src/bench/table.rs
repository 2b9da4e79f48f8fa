//! The figures as a table in Markdown.

use std::fmt::Write as _;

use clap::ValueEnum;

use super::answers::{Answers, Rate};
use super::case::Case;
use super::figures::{Figures, Results, Summary};

/// All of it.
pub(super) fn markdown(results: &Results) -> String {
    let machine = &results.machine;
    let mut text = format!(
        "Three members on one machine with {} processors, {}, {}. Clients' view: the longest time between two \
         acknowledgements (median of {}), then rows acknowledged and lost, and for how long two primaries \
         acknowledged (the worst of all).\n\n",
        machine.processors, machine.postgres, machine.etcd, results.rounds
    );
    head(&mut text, results);
    for case in Case::value_variants() {
        if results.figures.iter().all(|figures| figures.count(*case) == 0) {
            continue;
        }
        let cell = |figures: &Figures| figures.summary(*case).map_or_else(String::new, |it| summary(&it));
        row(&mut text, case.title(), results, cell);
    }
    costs(&mut text, results);
    text
}

fn head(text: &mut String, results: &Results) {
    row(text, "", results, |figures| figures.title.clone());
    row(text, "---", results, |_| "---".to_owned());
}

fn row(text: &mut String, title: &str, results: &Results, cell: impl Fn(&Figures) -> String) {
    let cells: Vec<String> = results.figures.iter().map(cell).collect();
    let _ = writeln!(text, "| {title} | {} |", cells.join(" | "));
}

pub(super) fn summary(summary: &Summary) -> String {
    let mut text = if summary.never {
        format!("never (ended with the fault, {:.1} s)", summary.outage_median)
    } else {
        format!("{:.1} s", summary.outage_median)
    };
    if let Some(p99) = summary.outage_p99 {
        let _ = write!(text, " (p99 {p99:.1} s)");
    }
    if summary.lost > 0 {
        let _ = write!(text, ", {} lost", summary.lost);
    }
    if summary.overlap > 0.0 {
        let _ = write!(text, ", {:.1} s of two primaries", summary.overlap);
    }
    if summary.not_healed > 0 {
        let _ = write!(text, ", {} not healed", summary.not_healed);
    }
    text
}

/// What it costs while nothing happens, and how fast it answers.
fn costs(text: &mut String, results: &Results) {
    let resources = |tell: fn(&super::resources::Resources) -> String| {
        move |figures: &Figures| figures.resources.as_ref().map_or_else(String::new, tell)
    };
    let memory = resources(|it| {
        let guard = if it.guard_mb > 0.0 { format!(" + {:.1} MB", it.guard_mb) } else { String::new() };
        format!("{:.0} MB{guard}", it.supervisor_mb)
    });
    row(text, "memory of a supervisor (+ guard), idle", results, memory);
    row(
        text,
        "processor time of a member, idle",
        results,
        resources(|it| format!("{:.2} %", it.cpu_percent)),
    );
    let proposals = resources(|it| format!("{:.0} a minute", it.proposals_a_minute));
    row(text, "etcd proposals of the cluster, idle", results, proposals);
    answers(text, results);
}

/// How fast `/primary` answers.
fn answers(text: &mut String, results: &Results) {
    let mut answers = |title: &str, tell: fn(&Answers) -> String| {
        row(text, title, results, |figures| figures.answers.as_ref().map_or_else(String::new, tell));
    };
    answers("`/primary` on one processor, a connection each", |it| rate(&it.new_connections));
    answers("the same on kept connections", |it| {
        it.kept_connections.as_ref().map_or_else(|| "none is kept".to_owned(), rate)
    });
    answers("p99 at 1000 a second: idle, while cloning, without etcd", |it| {
        format!("{:.1} ms, {:.1} ms, {:.1} ms", it.idle_p99_ms, it.clone_p99_ms, it.etcd_away_p99_ms)
    });
}

fn rate(rate: &Rate) -> String {
    let Rate { a_second, a_processor_second, p99_ms } = rate;
    format!("{a_second:.0} a second, {a_processor_second:.0} a processor second, p99 {p99_ms:.1} ms")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::contestant::Contestant;
    use crate::bench::figures::{Figure, Machine, Sample};

    #[test]
    fn a_row_has_a_cell_for_everybody() {
        let mut results = Results::new(Machine::default(), 1);
        let sample = |outage_s, lost, overlap_s| {
            let case = Case::KillSupervisor;
            Figure::Sample(Sample { case, outage_s, lost, overlap_s, never: false, healed: true })
        };
        results.of(Contestant::Matriarch).add(sample(8.04, 0, 0.0));
        results.of(Contestant::Patroni).add(sample(0.26, 660, 6.0));
        let text = markdown(&results);
        assert!(
            text.contains("| supervisor killed | 8.0 s | 0.3 s, 660 lost, 6.0 s of two primaries |"),
            "{text}"
        );
        assert!(!text.contains("| switchover |"), "{text}");
    }
}
