//! The topology: each member below the one that it follows.

use maud::{Markup, html};
use serde_json::Value;

use super::facts::PageFacts;
use crate::api::wire;
use crate::model::{ClusterView, MemberName, json_one_line, size};

const COLUMNS: [&str; 8] =
    ["Member", "Role", "State", "Follows", "Timeline", "Receive lag", "Replay lag", "Tags"];
/// Deeper ones are shown at this depth.
const DEPTH_SHOWN_MAX: usize = 4;

/// The part.
pub(super) fn members(shown: &PageFacts<'_>) -> Markup {
    let Some(view) = shown.status.last_view.as_deref() else {
        return html! { p { "Not known yet." } };
    };
    let rows = wire::member_rows(view);
    // The roles stand here because a narrow page shows the rows as blocks, which takes the meaning of a table away.
    html! {
        table role="table" {
            caption.hidden { "Members of " (shown.status.scope) ", each below the one that it follows" }
            thead role="rowgroup" {
                tr role="row" {
                    @for column in COLUMNS { th scope="col" role="columnheader" { (column) } }
                }
            }
            tbody role="rowgroup" {
                @for (depth, name, _) in wire::tree(view) {
                    @if let Some(row) = rows.iter().find(|row| row.name == *name) {
                        (line(view, depth, row, *name == shown.status.me.name))
                    }
                }
            }
        }
    }
}

fn line(view: &ClusterView, depth: usize, row: &wire::MemberRow, is_me: bool) -> Markup {
    let lag = |behind: Option<wire::Behind>| match (row.lag, behind.and_then(|behind| behind.bytes)) {
        (None, _) => "–".to_owned(),
        (Some(_), Some(bytes)) => size(bytes),
        (Some(_), None) => "unknown".to_owned(),
    };
    let cells = [
        row.role.replace('_', " "),
        state(row),
        wire::source(view, &row.name).map_or_else(|| "–".to_owned(), String::from),
        row.record.timeline.map_or_else(|| "–".to_owned(), |timeline| timeline.0.to_string()),
        lag(row.lag.map(|lag| lag.receive)),
        lag(row.lag.map(|lag| lag.replay)),
        tags(row),
    ];
    html! {
        tr role="row" {
            th scope="row" role="rowheader" class={ "depth" (depth.min(DEPTH_SHOWN_MAX)) } {
                @if 0 < depth { span aria-hidden="true" { "└ " } }
                (link(row, is_me))
            }
            @for (column, cell) in COLUMNS[1..].iter().zip(cells) {
                td role="cell" data-label=(column) { (cell) }
            }
        }
    }
}

/// The name, with a link to the member's own page where its address is one of the web.
fn link(row: &wire::MemberRow, is_me: bool) -> Markup {
    let page = row.record.api_url.as_deref().filter(|_| !is_me).and_then(page_of);
    html! {
        @match page {
            Some(page) => { a id={ "page-of-" (row.name) } href=(page) { (row.name) } }
            None => { (row.name) @if is_me { span { " (this member)" } } }
        }
    }
}

/// The page of the member with this `api_url`, which etcd has: no other scheme, and nothing but a host and a port.
pub(super) fn page_of(api_url: &str) -> Option<String> {
    let (scheme, rest) =
        api_url.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    (!authority.is_empty() && authority.chars().all(is_plain)).then(|| format!("{scheme}://{authority}/ui"))
}

fn state(row: &wire::MemberRow) -> String {
    let mut text = row.state.clone();
    if row.record.pending_restart == Some(true) {
        text.push_str("; restart pending");
    }
    if let Some(restart) = &row.record.scheduled_restart {
        let at = restart.get("schedule").map(json_one_line).unwrap_or_default();
        text.push_str(&format!("; restart scheduled at {at}"));
    }
    text
}

fn tags(row: &wire::MemberRow) -> String {
    let tag = |(key, value): (&String, &Value)| match value {
        Value::String(text) => format!("{key}={text}"),
        other => format!("{key}={}", json_one_line(other)),
    };
    match row.record.tags.0.iter().map(tag).collect::<Vec<_>>() {
        none if none.is_empty() => "–".to_owned(),
        some => some.join(", "),
    }
}

/// The members that a switchover may name.
pub(super) fn candidates(view: &ClusterView) -> impl Iterator<Item = &MemberName> {
    let leader = view.leader.as_ref().map(|leader| &leader.name);
    view.members.iter().filter(move |(name, _)| Some(*name) != leader).map(|(name, _)| name)
}
