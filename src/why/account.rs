//! A change of leadership, told in sentences.

use super::advice::advice;
use super::cause::{cause, headline};
use super::change::LeaderChange;
use crate::model::{ClusterView, Considered, MemberName, WallTime};

/// The heading of [`Account::course`].
pub const COURSE_HEADING: &str = "What happened, by the clock of the member that recorded it (UTC)";

/// What is told of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// What happened, and in which term.
    pub headline: String,
    /// The questions of an operator, in one word each, with the answers.
    pub answers: Vec<(&'static str, String)>,
    /// What happened on the way.
    pub course: Vec<CourseLine>,
    /// The other members, if a new leader recorded them.
    pub others: Option<OtherMembers>,
}

/// A fact or a decision on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CourseLine {
    /// The time of day.
    pub at: String,
    /// The member that recorded it.
    pub by: MemberName,
    /// A sentence.
    pub what: String,
}

/// The members that did not lead instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherMembers {
    /// The heading.
    pub heading: String,
    /// Each with the reason.
    pub members: Vec<(MemberName, String)>,
    /// What there is to say beside that.
    pub remark: Option<String>,
    /// The versions of all members, in one line.
    pub versions: Option<String>,
}

impl Account {
    /// Tells the change. `view`: the cluster as it is now, where it could be read.
    pub fn of(change: &LeaderChange, view: Option<&ClusterView>) -> Account {
        let line = |(at, by, what): (WallTime, &MemberName, String)| CourseLine {
            at: formatted(at, "%H:%M:%S%.3f"),
            by: by.clone(),
            what,
        };
        Account {
            headline: format!("{} (term {}).", headline(change), change.term),
            answers: answers(change, view),
            course: change.course().into_iter().map(line).collect(),
            others: others(change),
        }
    }
}

fn answers(change: &LeaderChange, view: Option<&ClusterView>) -> Vec<(&'static str, String)> {
    let when = match change.took_ms() {
        Some(took) => format!(
            "{}, {}.{} s after the first sign below",
            readable(change.at()),
            took / 1000,
            took % 1000 / 100
        ),
        None => readable(change.at()),
    };
    let mut all = vec![("When", when), ("Cause", cause(change))];
    if let Some((record, began)) = change.began() {
        if !began.rule.is_empty() {
            all.push(("Decision", format!("{}: {} (rule {}).", record.by, began.because, began.rule)));
        }
        all.push(("Lost", format!("{}.", began.loss)));
    }
    all.push(("To do", advice(change, view).join(" ")));
    all
}

fn others(change: &LeaderChange) -> Option<OtherMembers> {
    let (record, began) = change.began()?;
    let position = match began.timeline {
        Some(timeline) => format!("{}, and now on timeline {}", began.position, timeline.0),
        None => began.position.to_string(),
    };
    let remark = match (began.considered.is_empty(), began.rule.is_empty()) {
        _ if 0 < began.more_considered => Some(format!("and {} more", began.more_considered)),
        (true, true) => Some("the old leader chose".to_owned()),
        (true, false) => Some("there were none".to_owned()),
        (false, _) => None,
    };
    let versions: Vec<_> = began.versions.iter().map(|(name, text)| format!("{name} {text}")).collect();
    Some(OtherMembers {
        heading: format!("Other members at the decision ({} was at {position})", record.by),
        members: began.considered.iter().map(|it| (it.name.clone(), verdict(it))).collect(),
        remark,
        versions: (!versions.is_empty()).then(|| versions.join(", ")),
    })
}

fn verdict(it: &Considered) -> String {
    let place = match (it.position, it.timeline) {
        (Some(position), Some(timeline)) => format!("at {position} on timeline {}, ", timeline.0),
        (Some(position), None) => format!("at {position}, "),
        (None, _) => String::new(),
    };
    format!("{place}{}", it.verdict)
}

/// A time with its day.
pub fn readable(at: WallTime) -> String {
    formatted(at, "%Y-%m-%d %H:%M:%S UTC")
}

fn formatted(at: WallTime, format: &str) -> String {
    jiff::Timestamp::from_millisecond(at.0)
        .map_or_else(|_| at.0.to_string(), |at| at.strftime(format).to_string())
}
