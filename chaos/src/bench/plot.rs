//! The outages as a picture: one bar for each contestant and case, on a logarithmic scale.

use std::fmt::Write as _;

use clap::ValueEnum;

use super::case::Case;
use super::figures::Results;

const LEFT: f64 = 270.0;
const WIDTH: f64 = 560.0;
const RIGHT: f64 = 230.0;
const TOP: f64 = 44.0;
const BAR: f64 = 13.0;
const GAP: f64 = 12.0;
/// The scale, in seconds.
const FROM: f64 = 0.1;
const TO: f64 = 100.0;
/// Distinguishable without colours as well, by their brightness.
const COLOURS: [&str; 5] = ["#1b5e8c", "#63a7d4", "#c9a227", "#e8d48b", "#8c8c8c"];

/// The picture.
pub(super) fn svg(results: &Results) -> String {
    let cases: Vec<Case> = Case::value_variants()
        .iter()
        .copied()
        .filter(|case| results.figures.iter().any(|figures| figures.count(*case) > 0))
        .collect();
    let group = BAR * results.figures.len() as f64 + GAP;
    let bottom = TOP + group * cases.len() as f64;
    let height = bottom + 34.0;
    let width = LEFT + WIDTH + RIGHT;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    legend(&mut text, results);
    axis(&mut text, bottom);
    for (index, case) in cases.iter().enumerate() {
        let top = TOP + group * index as f64 + GAP / 2.0;
        let middle = top + (group - GAP) / 2.0 + 4.0;
        label(&mut text, LEFT - 8.0, middle, "end", case.title());
        for (bar, figures) in results.figures.iter().enumerate() {
            let Some(summary) = figures.summary(*case) else { continue };
            let y = top + BAR * bar as f64;
            let end = x(summary.outage_median);
            let colour = COLOURS[bar % COLOURS.len()];
            let _ = writeln!(
                text,
                "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>",
                end - LEFT,
                BAR - 1.0
            );
            label(&mut text, end + 5.0, y + BAR - 3.0, "start", &super::table::summary(&summary));
        }
    }
    text.push_str("</svg>\n");
    text
}

/// Where a number of seconds is.
fn x(seconds: f64) -> f64 {
    let part = (seconds.clamp(FROM, TO) / FROM).log10() / (TO / FROM).log10();
    LEFT + WIDTH * part
}

fn legend(text: &mut String, results: &Results) {
    let mut left = 8.0;
    for (index, figures) in results.figures.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let _ =
            writeln!(text, "<rect x=\"{left:.0}\" y=\"8\" width=\"12\" height=\"12\" fill=\"{colour}\"/>");
        label(text, left + 17.0, 18.0, "start", &figures.title);
        left += 45.0 + 6.6 * figures.title.chars().count() as f64;
    }
}

fn axis(text: &mut String, bottom: f64) {
    for (seconds, name) in [(0.1, "0.1 s"), (1.0, "1 s"), (10.0, "10 s"), (100.0, "100 s")] {
        let x = x(seconds);
        let _ = writeln!(
            text,
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" stroke=\"#dddddd\"/>"
        );
        label(text, x, bottom + 16.0, "middle", name);
    }
    label(text, LEFT + WIDTH / 2.0, bottom + 31.0, "middle", "clients without a primary, median");
}

fn label(text: &mut String, x: f64, y: f64, anchor: &str, what: &str) {
    let what = what.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(text, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{what}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_is_logarithmic_and_ends() {
        assert_eq!((x(0.0), x(FROM)), (LEFT, LEFT));
        assert!((x(1.0) - (LEFT + WIDTH / 3.0)).abs() < 0.01);
        assert!((x(1e9) - (LEFT + WIDTH)).abs() < 0.01);
    }
}
