//! The cluster at this moment as one screen of plain text.

use super::now::{ClusterNow, MemberNow};
use super::ways;
use crate::cli::paragraph::hanging;

/// The screen.
pub fn text(now: &ClusterNow) -> String {
    let mut all = hanging("", &format!("{}: {}.", now.scope, ways::state(now)));
    if let Some(leader) = &now.view.leader {
        all.push_str(&hanging("Lease     ", &lease(now, leader.name.as_str())));
        if let Some(because) = now.member(&leader.name).because() {
            all.push_str(&hanging("It says   ", because));
        }
    }
    for (index, what) in ways::waits_for(now).iter().enumerate() {
        let head = if index == 0 { "Waits for " } else { "          " };
        all.push_str(&hanging(head, what));
    }
    all.push_str(&hanging("Promise   ", &now.guarantee()));
    if let Some(last) = &now.last {
        all.push_str(&hanging("Last      ", &format!("{last} (matriarch why)")));
    }
    all.push_str(&members(now));
    let ways = ways::of(now);
    if !ways.is_empty() {
        all.push_str("\nWays out, and what each may cost\n");
    }
    for (number, way) in ways.iter().enumerate() {
        all.push_str(&hanging(&format!("  {}. ", number + 1), &way.how));
        all.push_str(&hanging("     ", &format!("cost: {}", way.cost)));
    }
    all
}

fn lease(now: &ClusterNow, leader: &str) -> String {
    match now.lease {
        Some((left, ttl)) => format!(
            "etcd keeps it for {} s more, and {leader} renews it every {:.1} s (TTL {} s). Without a renewal another \
             member may lead after that",
            left.as_secs(),
            (ttl / 4).as_secs_f64(),
            ttl.as_secs()
        ),
        None => "the leader key is under no lease that etcd knows".to_owned(),
    }
}

fn members(now: &ClusterNow) -> String {
    let mut all = "\nMembers, and the reason of each for what it does\n".to_owned();
    let width = now.members().map(|member| member.name.as_str().chars().count()).max().unwrap_or_default();
    for member in now.members() {
        let head = format!("  {:<width$}  ", member.name.as_str());
        all.push_str(&hanging(&head, &member_line(now, member)));
    }
    all
}

fn member_line(now: &ClusterNow, member: MemberNow<'_>) -> String {
    let mut parts = vec![member.role_and_state()];
    if let Some(position) = member.position() {
        let behind = match ways::behind(now, position) {
            Some(0) | None => String::new(),
            Some(bytes) => format!(", {bytes} bytes behind"),
        };
        parts.push(format!("at {position}{behind}"));
    }
    let because = match (member.answers(), member.because()) {
        (false, _) => "does not answer",
        (true, Some(because)) => because,
        (true, None) => "gives no reason (Patroni)",
    };
    format!("{}: {because}", parts.join(", "))
}
