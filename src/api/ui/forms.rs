//! The operations that can be started from the page, as forms.

use maud::{Markup, html};

use super::facts::PageFacts;
use super::members::candidates;
use crate::api::wire;
use crate::model::ClusterView;

/// The value of a ticked box.
pub(super) const CONFIRMED: &str = "yes";

/// The part.
pub(super) fn forms(shown: &PageFacts<'_>) -> Markup {
    let Some(view) = shown.status.view.as_deref() else {
        return html! { p { "Nothing can be started while etcd does not answer this member." } };
    };
    let me = &shown.status.me.name;
    html! {
        p {
            "They are what the REST interface offers, under its rules: where it asks for a user and a password, so does the \
             browser."
        }
        div.forms {
            (switchover(shown, view))
            (form(shown, "restart", "Restart", html! {
                p { "Restarts PostgreSQL on " strong { (me) } ", this member. Its clients are cut off." }
                (confirm("restart", me.as_str(), html! { "Restart PostgreSQL on " (me) }))
            }))
            @if wire::paused(view) {
                (form(shown, "resume", "Resume", html! {
                    p { "The cluster is paused. Members act by themselves again after it is resumed." }
                }))
            } @else {
                (form(shown, "pause", "Pause", html! {
                    p { "Nothing fails over until the cluster is resumed." }
                    (confirm("pause", CONFIRMED, html! { "Pause " (shown.status.scope) }))
                }))
            }
        }
    }
}

fn switchover(shown: &PageFacts<'_>, view: &ClusterView) -> Markup {
    let Some(leader) = view.leader.as_ref().map(|leader| &leader.name) else {
        return html! { section { h3 { "Switchover" } p { "Nobody leads. " code { "matriarch explain" } " names the ways out." } } };
    };
    if candidates(view).next().is_none() {
        return html! { section { h3 { "Switchover" } p { "There is no other member." } } };
    }
    form(
        shown,
        "switchover",
        "Switch over",
        html! {
            p { "Moves the leadership of " strong { (leader) } " to another member. Writes stop for a second or two." }
            input type="hidden" name="leader" value=(leader);
            p {
                label for="switchover-candidate" { "To" } " "
                select id="switchover-candidate" name="candidate" {
                    option value="" { "the best standby" }
                    @for name in candidates(view) { option value=(name) { (name) } }
                }
            }
            (confirm("switchover", leader.as_str(), html! { "Let " (leader) " hand over" }))
        },
    )
}

/// A form with the token of this process.
fn form(shown: &PageFacts<'_>, action: &str, verb: &str, content: Markup) -> Markup {
    html! {
        section {
            h3 id={ (action) "-heading" } { (verb) }
            form method="post" action={ "/ui/" (action) } aria-labelledby={ (action) "-heading" } {
                input type="hidden" name="token" value=(shown.token);
                (content)
                button id={ (action) "-button" } type="submit" { (verb) }
            }
        }
    }
}

/// The box without which nothing is done. Its value names what it is about: a page that changes meanwhile unticks it.
fn confirm(action: &str, about: &str, label: Markup) -> Markup {
    html! {
        p {
            input id={ (action) "-confirm" } type="checkbox" name="confirm" value=(about) required;
            " " label for={ (action) "-confirm" } { (label) }
        }
    }
}
