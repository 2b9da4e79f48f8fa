//! The journal as a timeline: each change of leadership, with its why.

use maud::{Markup, html};

use super::facts::PageFacts;
use crate::model::ClusterView;
use crate::why::{self, Account, COURSE_HEADING, LeaderChange, OtherMembers};

/// So many changes are shown, the newest.
const CHANGES_MAX: usize = 30;

/// The part.
pub(super) fn journal(shown: &PageFacts<'_>) -> Markup {
    let (all, view) = (&shown.journal.changes, shown.status.view.as_deref());
    html! {
        @if let Some(trouble) = &shown.journal.trouble {
            p.notice { "The journal cannot be read now: " (trouble) ". What was read before follows." }
        }
        @if all.is_empty() {
            p { "No change of leadership is recorded yet." }
        } @else {
            ol.timeline reversed {
                @for change in all.iter().rev().take(CHANGES_MAX) { (entry(change, view)) }
            }
        }
        @if CHANGES_MAX < all.len() {
            p { (all.len() - CHANGES_MAX) " older changes: " code { "matriarch why --all" } }
        }
    }
}

fn entry(change: &LeaderChange, view: Option<&ClusterView>) -> Markup {
    let account = Account::of(change, view);
    // The term of an attempt is the one that went on, so the time is part of the name.
    let id = format!("why-{}-{}", change.term, change.at().0);
    html! {
        li {
            details id=(id) {
                summary id={ (id) "-summary" } {
                    time datetime=(crate::api::iso(change.at())) { (why::readable(change.at())) }
                    " " (account.headline)
                }
                dl {
                    @for (question, answer) in &account.answers { dt { (question) } dd { (answer) } }
                }
                (course(&account))
                @if let Some(others) = &account.others { (others_of(others)) }
            }
        }
    }
}

fn course(account: &Account) -> Markup {
    html! {
        h3 { (COURSE_HEADING) }
        ol.course {
            @for line in &account.course { li { (line.at) " " strong { (line.by) } " " (line.what) } }
        }
    }
}

fn others_of(others: &OtherMembers) -> Markup {
    html! {
        h3 { (others.heading) }
        ul {
            @for (name, verdict) in &others.members { li { strong { (name) } " " (verdict) } }
            @if let Some(remark) = &others.remark { li { (remark) } }
        }
        @if let Some(versions) = &others.versions { p { "Versions: " (versions) } }
    }
}
