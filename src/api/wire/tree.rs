//! The members in the order of a tree: each standby below the member that it follows.

use crate::model::{ClusterView, MemberKey, MemberName};

/// The members as a tree below the leader, each with its depth; by name, without depth, while nobody leads.
pub fn tree(view: &ClusterView) -> Vec<(usize, &MemberName, &MemberKey)> {
    let Some((leader, _)) = view.leader_member() else {
        return view.members.iter().map(|(name, member)| (0, name, member)).collect();
    };
    let mut rows = Vec::new();
    let mut open = vec![(0, leader)];
    while let Some((depth, name)) = open.pop() {
        if rows.iter().any(|(_, shown, _)| *shown == name) {
            continue;
        }
        rows.push((depth, name, &view.members[name]));
        let below = view.members.keys().rev().filter(|other| source(view, other).as_ref() == Some(name));
        open.extend(below.map(|other| (depth + 1, other)));
    }
    // Members that name each other as their source have no place in the tree; they are shown at the end.
    for (name, member) in &view.members {
        if !rows.iter().any(|(_, shown, _)| *shown == name) {
            rows.push((1, name, member));
        }
    }
    rows
}

/// The member that this one follows: the one of its tag `replicatefrom`, else the leader.
pub fn source(view: &ClusterView, name: &MemberName) -> Option<MemberName> {
    let (leader, _) = view.leader_member().filter(|(leader, _)| *leader != name)?;
    let from = view.members.get(name)?.record.tags.replicatefrom();
    Some(from.filter(|from| view.members.contains_key(from)).unwrap_or_else(|| leader.clone()))
}
