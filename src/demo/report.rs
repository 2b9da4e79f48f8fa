//! The tour's figures.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::sheet::{Column, Sheet};

/// The results of one fault.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The fault.
    pub step: &'static str,
    /// The longest time between two acknowledged writes.
    pub away: Duration,
    /// How long until the member streamed again, counted from its start.
    pub rejoin: Option<Duration>,
    /// Acknowledged rows that were missing.
    pub lost: u64,
}

/// The results of the whole tour.
#[derive(Clone, Debug, Default)]
pub struct DemoReport {
    /// Number of members.
    pub members: usize,
    /// All results, in the order of the faults.
    pub figures: Vec<Figure>,
    /// Acknowledged rows.
    pub acknowledged: usize,
    /// Rows with an unknown result.
    pub unknown: usize,
    /// Acknowledged rows missing on the primary at the end.
    pub lost: u64,
    /// Replicas that did not have the primary's rows at the end.
    pub behind: Vec<String>,
}

impl DemoReport {
    /// Whether no row is lost, and every replica has all rows.
    pub fn is_good(&self) -> bool {
        self.lost == 0 && self.behind.is_empty() && self.figures.iter().all(|figure| figure.lost == 0)
    }

    /// The faults in order, without duplicates.
    fn steps(&self) -> Vec<&'static str> {
        let mut steps = Vec::new();
        for figure in &self.figures {
            if !steps.contains(&figure.step) {
                steps.push(figure.step);
            }
        }
        steps
    }

    fn of<'a>(&'a self, step: &'a str) -> impl Iterator<Item = &'a Figure> {
        self.figures.iter().filter(move |figure| figure.step == step)
    }

    /// Medians by fault, for people.
    pub fn sheet(&self) -> Sheet<'static> {
        let row = |step: &'static str| {
            vec![
                json!(step),
                json!(self.of(step).count()),
                json!(seconds(median(self.of(step).map(|figure| figure.away).collect()))),
                json!(seconds(median(self.of(step).filter_map(|figure| figure.rejoin).collect()))),
                json!(self.of(step).map(|figure| figure.lost).sum::<u64>()),
            ]
        };
        Sheet {
            title: format!(" Tour: {} members ", self.members),
            columns: vec![
                Column::text("What happened"),
                Column::number("Times"),
                Column::number("Writes away"),
                Column::number("Rejoin"),
                Column::number("Rows lost"),
            ],
            rows: self.steps().into_iter().map(row).collect(),
            footer: self.summary(),
        }
    }

    fn summary(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{} rows acknowledged, {} lost; of {} rows nobody was told (they may be there or not)",
            self.acknowledged, self.lost, self.unknown
        )];
        if !self.behind.is_empty() {
            lines.push(format!("These members did not catch up: {}", self.behind.join(", ")));
        }
        lines
    }

    /// All results, for machines.
    pub fn document(&self) -> Value {
        let millis = |span: Duration| span.as_secs_f64() * 1000.0;
        let step = |step: &'static str| {
            let away: Vec<Duration> = self.of(step).map(|figure| figure.away).collect();
            let rejoin: Vec<Duration> = self.of(step).filter_map(|figure| figure.rejoin).collect();
            json!({
                "step": step,
                "times": away.len(),
                "writes_away_ms": away.iter().copied().map(millis).collect::<Vec<_>>(),
                "writes_away_median_ms": median(away).map(millis),
                "rejoin_median_ms": median(rejoin).map(millis),
                "lost": self.of(step).map(|figure| figure.lost).sum::<u64>(),
            })
        };
        json!({
            "members": self.members,
            "acknowledged": self.acknowledged,
            "unknown": self.unknown,
            "lost": self.lost,
            "behind": self.behind,
            "steps": self.steps().into_iter().map(step).collect::<Vec<_>>(),
        })
    }
}

/// The median; of an even number, the mean of the two in the middle.
pub fn median(mut spans: Vec<Duration>) -> Option<Duration> {
    spans.sort();
    let middle = spans.len() / 2;
    match spans.len() {
        0 => None,
        count if count % 2 == 1 => Some(spans[middle]),
        _ => Some((spans[middle - 1] + spans[middle]) / 2),
    }
}

fn seconds(span: Option<Duration>) -> Option<String> {
    span.map(|span| format!("{:.2} s", span.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Format;

    #[test]
    fn prints_medians_by_fault() {
        let figure =
            |step, millis, lost| Figure { step, away: Duration::from_millis(millis), rejoin: None, lost };
        let figures = vec![figure("a", 100, 0), figure("b", 5, 0), figure("a", 300, 0)];
        let mut report = DemoReport { members: 3, figures, acknowledged: 10, ..DemoReport::default() };
        assert!(report.is_good());
        let text = report.sheet().render(Format::Tsv).expect("tsv");
        assert!(text.contains("a\t2\t0.20 s\t\t0\n"), "{text}");
        assert_eq!(report.document()["steps"][0]["writes_away_median_ms"], json!(200.0));
        report.figures.push(figure("b", 5, 1));
        assert!(!report.is_good());
    }

    #[test]
    fn medians() {
        let spans = |millis: &[u64]| millis.iter().copied().map(Duration::from_millis).collect();
        assert_eq!(median(spans(&[])), None);
        assert_eq!(median(spans(&[3, 1, 2])), Some(Duration::from_millis(2)));
        assert_eq!(median(spans(&[1, 4, 2, 3])), Some(Duration::from_micros(2500)));
    }
}
