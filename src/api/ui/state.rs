//! Who leads, what is promised, and what this member does.

use maud::{Markup, html};

use super::facts::PageFacts;
use crate::api::wire;
use crate::model::{ClusterView, Guarantee, MemberState, Role, WallTime};
use crate::why;

/// The part.
pub(super) fn state(shown: &PageFacts<'_>) -> Markup {
    let status = &*shown.status;
    let view = status.last_view.as_deref();
    let (serves, sentence) = headline(view);
    html! {
        p.headline.serves[serves].trouble[!serves] {
            span.sign aria-hidden="true" { @if serves { "✓" } @else { "!" } }
            " " (sentence)
        }
        @if status.view.is_none() { p.notice { (stale(status.etcd_last_seen)) } }
        @if let Some(view) = view { @for notice in notices(view) { p.notice { (notice) } } }
        dl {
            @if let Some(view) = view {
                dt { "Promise" }
                dd { (Guarantee::of(&wire::sync_settings(view), view)) }
            }
            dt { "This member" }
            dd {
                strong { (status.me.name) } ": "
                (wire::role_now(status).as_str().replace('_', " ")) ", " (wire::state_now(status))
                @if let Some(job) = status.job { " (" (job) ")" }
            }
            dt { "It says" }
            dd { (status.because) }
            @if let Some(hand_over) = &status.hand_over { dt { "Hand-over" } dd { (hand_over) } }
            @if let Some(why) = &status.writes_refused { dt { "etcd" } dd { "refuses writes: " (why) } }
            @if status.failsafe_active { dt { "Failsafe mode" } dd { "is at work: etcd is away" } }
        }
    }
}

/// Whether a leader serves, and the sentence.
fn headline(view: Option<&ClusterView>) -> (bool, String) {
    let Some(view) = view else { return (false, "this member has not seen the cluster yet".to_owned()) };
    let Some(leader) = &view.leader else { return (false, why::nobody_leads(view).to_owned()) };
    let begin = format!("{} leads (term {})", leader.name, leader.term);
    let Some(record) = view.leader_member().map(|(_, key)| &key.record) else {
        return (false, format!("{begin}, and is not registered in etcd"));
    };
    match (record.state == MemberState::Running, record.role) {
        (true, Role::Primary) => (true, format!("{begin} and runs as the primary")),
        (true, Role::StandbyLeader) => (true, format!("{begin} as the leader of a standby cluster")),
        (_, role) => {
            let role = role.as_str().replace('_', " ");
            (false, format!("{begin}, and its PostgreSQL is not a running primary: {role}, {}", record.state))
        }
    }
}

fn stale(last_seen: i64) -> String {
    match last_seen {
        0 => "etcd has not answered this member yet.".to_owned(),
        seconds => format!(
            "etcd does not answer this member. What it says of the cluster is of {}.",
            why::readable(WallTime(seconds.saturating_mul(1000)))
        ),
    }
}

/// What an operator has to know beside the state.
fn notices(view: &ClusterView) -> Vec<String> {
    let mut all = Vec::new();
    if wire::paused(view) {
        all.push("The cluster is paused: nobody acts by itself until it is resumed.".to_owned());
    }
    let request = view.failover.as_ref().map(|key| &key.request);
    if let Some((request, at)) = request.and_then(|request| Some((request, request.scheduled_at?))) {
        let to = request.candidate.as_ref().map(|name| format!(" to {name}")).unwrap_or_default();
        all.push(format!("A switchover{to} is scheduled at {}.", why::readable(at)));
    }
    all.extend(view.unsettled().map(|key| key.record.to_string()));
    all.extend(view.unfenced(None).map(|(name, left)| ClusterView::unfenced_text(name, left)));
    let refusals = view.members.iter().filter_map(|(name, key)| Some((name, key.record.refusal.as_ref()?)));
    all.extend(refusals.map(|(name, why)| format!("{name} waits for you: {why}")));
    all
}
