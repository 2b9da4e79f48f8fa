//! A change of leadership as one screen of plain text.

use super::change::LeaderChange;
use super::{advice, cause};
use crate::cli::paragraph::hanging;
use crate::model::{ClusterView, Considered, WallTime};

/// The screen. `view`: the cluster as it is now, where it could be read.
pub fn text(change: &LeaderChange, view: Option<&ClusterView>) -> String {
    let mut all = hanging("", &format!("{} (term {}).", &cause::headline(change), change.term));
    let when = match change.took_ms() {
        Some(took) => format!(
            "{}, {}.{} s after the first sign below",
            readable(change.at()),
            took / 1000,
            took % 1000 / 100
        ),
        None => readable(change.at()),
    };
    all.push_str(&hanging("When      ", &when));
    all.push_str(&hanging("Cause     ", &cause::cause(change)));
    if let Some((record, began)) = change.began() {
        let rule = match began.rule.as_str() {
            "" => String::new(),
            rule => format!(" (rule {rule})"),
        };
        if !began.rule.is_empty() {
            all.push_str(&hanging("Decision  ", &format!("{}: {}{rule}.", record.by, began.because)));
        }
        all.push_str(&hanging("Lost      ", &format!("{}.", &began.loss.to_string())));
    }
    let advice = advice::of(change, view);
    all.push_str(&hanging("To do     ", &advice.join(" ")));
    all.push_str(&course(change));
    all.push_str(&others(change));
    all
}

/// One line for a list of changes.
pub(super) fn line(change: &LeaderChange) -> String {
    let cause = cause::cause(change);
    hanging(
        &format!("{:<8}", change.term),
        &format!("{}  {}. {}.", readable(change.at()), cause::headline(change), cause),
    )
}

fn course(change: &LeaderChange) -> String {
    let course = change.course();
    let width = course.iter().map(|(_, by, _)| by.as_str().chars().count()).max().unwrap_or_default();
    let mut all = "\nWhat happened, by the clock of the member that recorded it (UTC)\n".to_owned();
    for (at, by, what) in course {
        all.push_str(&hanging(&format!("  {}  {:<width$}  ", clock(at), by.as_str()), &what));
    }
    all
}

fn others(change: &LeaderChange) -> String {
    let Some((record, began)) = change.began() else { return String::new() };
    let position = match began.timeline {
        Some(timeline) => format!("{}, and now on timeline {}", began.position, timeline.0),
        None => began.position.to_string(),
    };
    let mut all = format!("\nOther members at the decision ({} was at {position})\n", record.by);
    let width = began.considered.iter().map(|it| it.name.as_str().chars().count()).max().unwrap_or_default();
    for it in &began.considered {
        all.push_str(&hanging(&format!("  {:<width$}  ", it.name.as_str()), &verdict(it)));
    }
    if 0 < began.more_considered {
        all.push_str(&format!("  and {} more\n", began.more_considered));
    }
    if began.considered.is_empty() {
        all.push_str(if began.rule.is_empty() { "  the old leader chose\n" } else { "  there were none\n" });
    }
    if !began.versions.is_empty() {
        let versions: Vec<_> = began.versions.iter().map(|(name, text)| format!("{name} {text}")).collect();
        all.push('\n');
        all.push_str(&hanging("Versions  ", &versions.join(", ")));
    }
    all
}

fn verdict(it: &Considered) -> String {
    let place = match (it.position, it.timeline) {
        (Some(position), Some(timeline)) => format!("at {position} on timeline {}, ", timeline.0),
        (Some(position), None) => format!("at {position}, "),
        (None, _) => String::new(),
    };
    format!("{place}{}", it.verdict)
}

pub(super) fn readable(at: WallTime) -> String {
    formatted(at, "%Y-%m-%d %H:%M:%S UTC")
}

fn clock(at: WallTime) -> String {
    formatted(at, "%H:%M:%S%.3f")
}

fn formatted(at: WallTime, format: &str) -> String {
    jiff::Timestamp::from_millisecond(at.0)
        .map_or_else(|_| at.0.to_string(), |at| at.strftime(format).to_string())
}
