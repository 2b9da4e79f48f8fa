//! The lag over the last hour: a plot, and the same in figures.

use std::fmt::Write;

use maud::{Markup, html};

use super::facts::PageFacts;
use super::lag_history::{LagHistory, LagSample, SAMPLE_EVERY, SAMPLES_MAX};
use crate::model::{MemberName, size};
use crate::why;

/// So many members have a line; the table has all.
const LINES_MAX: usize = 8;
/// The drawing's size, and the place of the plot in it.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 120.0;
const RIGHT: f64 = 708.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 222.0;
/// The time that the plot covers, in milliseconds.
const SPAN_MS: i64 = SAMPLE_EVERY.as_millis() as i64 * SAMPLES_MAX as i64;
/// The smallest upper end of the scale: a standby is rarely less behind than that, and it is nothing.
const SCALE_MIN: u64 = 16 << 10;

/// The part.
pub(super) fn lag_plot(shown: &PageFacts<'_>) -> Markup {
    let members = shown.lags.members();
    let Some(last) = shown.lags.samples().next_back().filter(|_| !members.is_empty()) else {
        return html! { p { "No member has a lag yet: there is no standby, or etcd does not show its position." } };
    };
    html! {
        (plot(&shown.lags, &members, last))
        table {
            caption { "WAL that a member lacks of the leader's. Members publish their positions every few seconds." }
            thead {
                tr {
                    @for column in ["Line", "Member", "Now", "Most in the hour"] { th scope="col" { (column) } }
                }
            }
            tbody {
                @for (index, name) in members.iter().enumerate() { (figures(&shown.lags, last, index, name)) }
            }
        }
    }
}

fn figures(history: &LagHistory, last: &LagSample, index: usize, name: &MemberName) -> Markup {
    let most = history.samples().filter_map(|sample| sample.bytes.get(name)).max();
    html! {
        tr {
            td {
                @if index < LINES_MAX {
                    svg.swatch viewBox="0 0 48 8" aria-hidden="true" {
                        line class={ "line line" (index) } x1="0" y1="4" x2="48" y2="4" {}
                    }
                }
            }
            th scope="row" { (name) }
            td { (last.bytes.get(name).map_or_else(|| "unknown".to_owned(), |bytes| size(*bytes))) }
            td { (most.map_or_else(String::new, |bytes| size(*bytes))) }
        }
    }
}

fn plot(history: &LagHistory, members: &[&MemberName], last: &LagSample) -> Markup {
    let most = history.samples().flat_map(|sample| sample.bytes.values()).max().copied();
    let scale = LagScale { end: last.at.0, top: scale_end(most.unwrap_or_default()) };
    let hours = [0, SPAN_MS / 2, SPAN_MS].map(|ago| last.at.0 - ago);
    html! {
        svg.plot viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-labelledby="lag-plot-title" {
            title id="lag-plot-title" {
                "Lag of " (members.len()) " members over the last hour, at most " (size(most.unwrap_or_default()))
                "; the table below has the figures"
            }
            @for bytes in [0, scale.top / 2, scale.top] {
                line.grid x1=(LEFT) x2=(RIGHT) y1=(scale.y(bytes)) y2=(scale.y(bytes)) {}
                text x=(LEFT - 8.0) y=(scale.y(bytes) + 5.0) text-anchor="end" { (size(bytes)) }
            }
            @for (at, anchor) in hours.into_iter().zip(["end", "middle", "start"]) {
                text x=(scale.x(at)) y=(BOTTOM + 28.0) text-anchor=(anchor) { (clock_time(at)) }
            }
            @for (index, name) in members.iter().take(LINES_MAX).enumerate() {
                path class={ "line line" (index) } d=(path(history, &scale, name)) {}
            }
        }
    }
}

/// The line of one member: it has a gap where its lag is not known.
fn path(history: &LagHistory, scale: &LagScale, name: &MemberName) -> String {
    let mut path = String::new();
    let mut is_open = false;
    for sample in history.samples() {
        let Some(bytes) = sample.bytes.get(name) else {
            is_open = false;
            continue;
        };
        let (x, y) = (scale.x(sample.at.0), scale.y(*bytes));
        // A single point is drawn as well: lines have round ends.
        let (word, end) = if is_open { ("L", "") } else { ("M", "h0") };
        // Writing to a string does not fail.
        let _ = write!(path, "{word}{x:.1} {y:.1}{end}");
        is_open = true;
    }
    path
}

/// Where a time and a lag are drawn.
struct LagScale {
    /// The time at the right end, in milliseconds.
    end: i64,
    /// The lag at the upper end.
    top: u64,
}

impl LagScale {
    fn x(&self, at: i64) -> f64 {
        let ago = (self.end - at).clamp(0, SPAN_MS) as f64 / SPAN_MS as f64;
        RIGHT - ago * (RIGHT - LEFT)
    }

    fn y(&self, bytes: u64) -> f64 {
        BOTTOM - bytes as f64 / self.top as f64 * (BOTTOM - TOP)
    }
}

/// The next power of two.
fn scale_end(most: u64) -> u64 {
    most.max(SCALE_MIN).checked_next_power_of_two().unwrap_or(u64::MAX)
}

/// The time of day.
fn clock_time(at: i64) -> String {
    let text = why::readable(crate::model::WallTime(at));
    // `2026-11-22 20:00:00 UTC`.
    text.get(11..16).map(|time| format!("{time} UTC")).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::{name, view};
    use crate::model::{Lsn, WallTime};

    #[test]
    fn a_line_has_a_gap_where_the_lag_is_not_known() {
        let mut history = LagHistory::default();
        let mut behind = view();
        behind.status.as_mut().expect("set").optime = Some(Lsn(900 + (16 << 10)));
        for (at, view) in
            [(0, Some(&behind)), (1_800_000, Some(&behind)), (2_000_000, None), (3_600_000, Some(&behind))]
        {
            history.add(WallTime(at), view);
        }
        let scale = LagScale { end: 3_600_000, top: scale_end(0) };
        assert_eq!(path(&history, &scale, &name("n2")), "M120.0 26.0h0L414.0 26.0M708.0 26.0h0");
        assert_eq!(path(&history, &scale, &name("n3")), "");
    }

    #[test]
    fn the_scale_ends_above_the_most() {
        assert_eq!(
            [0, 16 << 10, (16 << 10) + 1, u64::MAX].map(scale_end),
            [16 << 10, 16 << 10, 32 << 10, u64::MAX]
        );
        assert_eq!(clock_time(1_795_384_262_000), "21:51 UTC");
    }
}
