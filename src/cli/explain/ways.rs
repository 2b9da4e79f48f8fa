//! What keeps the cluster from going on, and each way out with what it may cost. The members' own reasons stand beside
//! it: they decide.

use std::collections::BTreeSet;

use super::now::{ClusterNow, MemberNow};
use crate::api::wire;
use crate::model::{ClusterView, Lsn, MemberName};
use crate::why;

/// Something that an operator can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WayOut {
    /// What.
    pub(crate) how: String,
    /// What it may cost.
    pub(crate) cost: String,
}

fn way(how: impl Into<String>, cost: impl Into<String>) -> WayOut {
    WayOut { how: how.into(), cost: cost.into() }
}

const NO_LOSS: &str = "nothing is lost";

/// Who leads, or that nobody does, in one sentence.
pub(crate) fn state(now: &ClusterNow) -> String {
    let Some(leader) = &now.view.leader else {
        return why::nobody_leads(&now.view).to_owned();
    };
    let (name, term) = (&leader.name, leader.term);
    let member = now.member(name);
    match (member.answers(), member.position()) {
        (false, _) => format!("{name} has the leader key (term {term}), and does not answer over REST"),
        (true, None) => {
            format!("{name} has the leader key (term {term}), and its PostgreSQL does not answer")
        }
        (true, Some(_)) if member.is_primary() == Some(true) => {
            format!("{name} leads (term {term}) and accepts writes")
        }
        (true, Some(_)) if wire::is_standby_cluster(&now.view) => {
            format!("{name} leads (term {term}) as the leader of a standby cluster")
        }
        (true, Some(_)) => format!("{name} has the leader key (term {term}), and is not a primary yet"),
    }
}

/// What is waited for; empty where a leader serves.
pub(crate) fn waits_for(now: &ClusterNow) -> Vec<String> {
    let mut all = Vec::new();
    if now.is_full {
        all.push("etcd to take writes again: its database is full (alarm NOSPACE)".to_owned());
    }
    if wire::paused(&now.view) {
        all.push("an operator: the cluster is paused, and nobody acts by itself".to_owned());
    }
    if now.view.leader.is_some() {
        return all;
    }
    all.extend(now.view.unfenced(None).map(|(name, left)| ClusterView::unfenced_text(name, left)));
    if let Some(key) = now.view.unsettled() {
        all.push(format!("all members that may have commits: {}", key.record));
    }
    all.extend(lacking_holders(now).map(|lacking| lacking.sentence()));
    if now.view.sync_record().is_none() && !now.members().any(|member| member.competes()) {
        all.push("a member whose PostgreSQL runs as a standby, and that may lead".to_owned());
    }
    all
}

/// Too few of the members that confirm commits can be compared.
struct LackingHolders {
    silent: BTreeSet<MemberName>,
    needed: usize,
}

impl LackingHolders {
    fn sentence(&self) -> String {
        let whom = self.whom();
        format!("{whom}: without that it is not certain that a new leader has every acknowledged commit")
    }

    fn whom(&self) -> String {
        let joined = |with: &str| self.silent.iter().map(ToString::to_string).collect::<Vec<_>>().join(with);
        match self.needed {
            needed if needed == self.silent.len() => joined(" and "),
            1 => joined(" or "),
            needed => format!("any {needed} of {}", joined(", ")),
        }
    }
}

/// By the key `sync` any `quorum + 1` of the holders include one with every acknowledged commit.
fn lacking_holders(now: &ClusterNow) -> Option<LackingHolders> {
    let record = now.view.sync_record()?;
    let (present, silent): (BTreeSet<_>, BTreeSet<_>) =
        now.holders().cloned().partition(|name| now.member(name).position().is_some());
    let needed = (record.quorum + 1).saturating_sub(present.len());
    (0 < needed && !silent.is_empty()).then_some(LackingHolders { silent, needed })
}

/// The member that is furthest, among those.
fn best(now: &ClusterNow, among: impl Fn(&MemberName) -> bool) -> Option<MemberName> {
    let all = now.members().filter(|member| member.competes() && among(member.name));
    all.max_by_key(MemberNow::position).map(|member| member.name.clone())
}

fn listed(names: &BTreeSet<MemberName>) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Each way out, the cheapest first.
pub(crate) fn of(now: &ClusterNow) -> Vec<WayOut> {
    let mut all = Vec::new();
    if now.is_full {
        let how = "make room in etcd: `etcdctl compact`, `etcdctl defrag`, then `etcdctl alarm disarm`";
        all.push(way(how, NO_LOSS));
    }
    if wire::paused(&now.view) {
        all.push(way("matriarch resume", "members act by themselves again: nothing is lost"));
    }
    match &now.view.leader {
        Some(leader) => all.extend(with_leader(now, &leader.name)),
        None => all.extend(without_leader(now)),
    }
    all
}

fn with_leader(now: &ClusterNow, leader: &MemberName) -> Vec<WayOut> {
    let other = best(now, |name| name != leader);
    match (now.member(leader).is_primary() == Some(true), other) {
        (true, Some(other)) => vec![way(
            format!("to move the leadership: matriarch switchover --candidate {other}"),
            "a second or two without writes; nothing is lost",
        )],
        (true, None) => Vec::new(),
        (false, other) => {
            let lease = now.lease.map_or("its lease".to_owned(), |(left, _)| {
                format!("the rest of its lease ({} s)", left.as_secs())
            });
            let mut all = vec![way(
                format!("wait: another member takes over after {lease}, if {leader} is gone"),
                NO_LOSS,
            )];
            all.extend(other.map(|other| failover(now, &other)));
            all
        }
    }
}

fn without_leader(now: &ClusterNow) -> Vec<WayOut> {
    if now.view.initialize.is_none() {
        return rebuild(now);
    }
    let mut all = Vec::new();
    for (name, _) in now.view.unfenced(None) {
        all.push(way(format!("start the supervisor of {name} again"), NO_LOSS));
    }
    if let Some(lacking) = lacking_holders(now) {
        let how = format!("bring back {}: the cluster then goes on by itself", lacking.whom());
        all.push(way(how, NO_LOSS));
    }
    for member in now.members().filter(MemberNow::has_nofailover) {
        let how = format!("let {} lead: remove its tag nofailover, then matriarch reload", member.name);
        all.push(way(how, NO_LOSS));
    }
    for member in now.members().filter(|member| member.answers() && member.position().is_none()) {
        all.push(way(format!("repair PostgreSQL on {}: it does not answer", member.name), NO_LOSS));
    }
    if let Some(best) = best(now, |_| true) {
        all.push(failover(now, &best));
    } else if !now.members().any(|member| member.answers()) {
        all.push(way("start the members: none answers", NO_LOSS));
    }
    all
}

fn rebuild(now: &ClusterNow) -> Vec<WayOut> {
    let mut all = vec![way("start the member that was the primary: it rebuilds the cluster", NO_LOSS)];
    all.extend(best(now, |_| true).map(|best| {
        way(
            format!("matriarch failover --candidate {best} --rebuild"),
            "newer data on other members is lost, and members with other data exit",
        )
    }));
    all
}

/// A forced failover, with its cost by what is known.
fn failover(now: &ClusterNow, to: &MemberName) -> WayOut {
    let mine = now.member(to).position();
    let missing = now.view.known_end().zip(mine).map(|(end, mine)| end.bytes_since(mine));
    let known = match missing {
        Some(0) => "it has all WAL that the last leader published".to_owned(),
        Some(bytes) => format!("{bytes} bytes that the last leader published are missing there"),
        None => "how much it lacks is not known".to_owned(),
    };
    let promise = match lacking_holders(now) {
        Some(lacking) => format!(
            "; commits that only {} confirmed are lost although clients saw them succeed",
            listed(&lacking.silent)
        ),
        None if now.view.sync_record().is_some_and(|record| record.is_voter(to)) => {
            "; the members that confirm commits answer, so none of those is lost".to_owned()
        }
        None => "; what the last leader committed after that is lost".to_owned(),
    };
    let mut left: BTreeSet<&MemberName> = now.view.unfenced(None).map(|(name, _)| name).collect();
    let silent = |name: &MemberName| name != to && now.member(name).is_primary() != Some(false);
    left.extend(now.view.may_go_on().into_iter().filter(|name| silent(name)));
    let left: Vec<String> = left.iter().map(|name| format!(" --confirm-down {name}")).collect();
    let twice = match left.is_empty() {
        true => "",
        false => "; if the PostgreSQL named with --confirm-down still runs, there are two primaries",
    };
    way(format!("matriarch failover --candidate {to}{}", left.concat()), format!("{known}{promise}{twice}"))
}

/// The member's distance from the furthest position that is known.
pub(crate) fn behind(now: &ClusterNow, position: Lsn) -> Option<u64> {
    let furthest = now.members().filter_map(|member| member.position()).chain(now.view.known_end()).max()?;
    Some(furthest.bytes_since(position))
}
