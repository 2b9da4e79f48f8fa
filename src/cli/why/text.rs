//! A change of leadership as one screen of plain text.

use crate::cli::paragraph::hanging;
use crate::model::{ClusterView, MemberName};
use crate::why::{
    Account, COURSE_HEADING, CourseLine, LeaderChange, OtherMembers, cause, headline, readable,
};

/// The screen. `view`: the cluster as it is now, where it could be read.
pub fn text(change: &LeaderChange, view: Option<&ClusterView>) -> String {
    let account = Account::of(change, view);
    let mut all = hanging("", &account.headline);
    for (question, answer) in &account.answers {
        all.push_str(&hanging(&format!("{question:<10}"), answer));
    }
    all.push_str(&course(&account.course));
    all.push_str(&account.others.as_ref().map(others).unwrap_or_default());
    all
}

/// One line for a list of changes.
pub(super) fn line(change: &LeaderChange) -> String {
    hanging(
        &format!("{:<8}", change.term),
        &format!("{}  {}. {}.", readable(change.at()), headline(change), cause(change)),
    )
}

fn course(course: &[CourseLine]) -> String {
    let width = widest(course.iter().map(|line| &line.by));
    let mut all = format!("\n{COURSE_HEADING}\n");
    for CourseLine { at, by, what } in course {
        all.push_str(&hanging(&format!("  {at}  {:<width$}  ", by.as_str()), what));
    }
    all
}

fn others(others: &OtherMembers) -> String {
    let mut all = format!("\n{}\n", others.heading);
    let width = widest(others.members.iter().map(|(name, _)| name));
    for (name, verdict) in &others.members {
        all.push_str(&hanging(&format!("  {:<width$}  ", name.as_str()), verdict));
    }
    all.extend(others.remark.iter().map(|remark| format!("  {remark}\n")));
    if let Some(versions) = &others.versions {
        all.push('\n');
        all.push_str(&hanging("Versions  ", versions));
    }
    all
}

fn widest<'a>(names: impl Iterator<Item = &'a MemberName>) -> usize {
    names.map(|name| name.as_str().chars().count()).max().unwrap_or_default()
}
