//! Whole pages: the parts in their frame, and the result of an operation.

use maud::{DOCTYPE, Markup, html};

use super::facts::PageFacts;
use super::forms::forms;
use super::journal::journal;
use super::lag_plot::lag_plot;
use super::members::members;
use super::state::state;
use crate::model::WallTime;
use crate::why;

/// A part of the page. It is replaced as a whole when it changes.
pub(super) struct UiPart {
    /// Its id in the page, and the name of its event.
    pub(super) id: &'static str,
    title: &'static str,
    /// Draws it.
    pub(super) draw: fn(&PageFacts<'_>) -> Markup,
}

/// All parts, in their order.
pub(super) const PARTS: [UiPart; 5] = [
    UiPart { id: "state", title: "State", draw: state },
    UiPart { id: "members", title: "Topology", draw: members },
    UiPart { id: "lag", title: "Lag", draw: lag_plot },
    UiPart { id: "journal", title: "Changes of leadership", draw: journal },
    UiPart { id: "operations", title: "Operations", draw: forms },
];

/// The page at `/ui`.
pub(super) fn whole(shown: &PageFacts<'_>, now: WallTime) -> Markup {
    let (scope, name) = (&shown.status.scope, &shown.status.me.name);
    let content = html! {
        p #live role="status" {
            "This is the state at " (why::readable(now)) ". Reload the page for a newer one."
        }
        @for part in &PARTS {
            section aria-labelledby={ (part.id) "-title" } {
                h2 id={ (part.id) "-title" } { (part.title) }
                // A screen reader speaks what changes in the state; the rest it reads on request.
                div id=(part.id) aria-live=[(part.id == "state").then_some("polite")] { ((part.draw)(shown)) }
            }
        }
    };
    frame(&format!("{scope} – {name}"), &format!("Cluster {scope}, seen by {name}"), content)
}

/// The page after an operation, or a refusal.
pub(super) fn result(title: &str, sentence: &str) -> Markup {
    frame(
        title,
        title,
        html! {
            p.headline { (sentence) }
            p { a #back href="/ui" { "Back to the cluster" } }
        },
    )
}

fn frame(title: &str, heading: &str, content: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/ui/style.css";
                script src="/ui/app.js" defer {}
            }
            body {
                a #skip href="#main" { "Skip to the content" }
                header { h1 { (heading) } }
                main #main tabindex="-1" { (content) }
                footer { p { "Matriarch " (env!("CARGO_PKG_VERSION")) } }
            }
        }
    }
}
