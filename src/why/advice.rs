//! What an operator should do after a change, if anything.

use super::change::LeaderChange;
use crate::model::{
    ChangeKind, ClusterView, JournalEntry, JournalFact, LossBound, MemberName, MemberState, Role,
};

/// The sentences, the most important first.
pub fn advice(change: &LeaderChange, view: Option<&ClusterView>) -> Vec<String> {
    let mut all = Vec::new();
    let new = change.began().map(|(record, _)| &record.by);
    let old = change.former().filter(|old| Some(*old) != new);
    if let Some(old) = old {
        let absence = view.map(|view| absence(view, old));
        let is_back = absence == Some(None);
        all.extend(repair(change, old, is_back));
        all.extend(absence.flatten());
    }
    all.extend(discarded(change));
    if let Some(LossBound::Asynchronous { missing, .. }) = change.loss()
        && 0 < *missing
    {
        all.push(
            "Compare what clients wrote last with what is there. `synchronous_mode` prevents such a loss."
                .to_owned(),
        );
    }
    if change.refused().is_some() {
        all.push("Remove the obstacle and ask again; the leader has served on.".to_owned());
    }
    if all.is_empty() {
        all.push("Nothing.".to_owned());
    }
    all
}

/// What to look at on the former leader.
fn repair(change: &LeaderChange, old: &MemberName, is_back: bool) -> Option<String> {
    let account = change.own_account();
    let has = |is: fn(&JournalFact) -> bool| account.iter().any(|seen| is(seen));
    let kind = change.began().map(|(_, began)| began.kind)?;
    if has(|seen| matches!(seen, JournalFact::Unhealthy { .. })) {
        return Some(format!("Look at the disk and the machine of {old}, and at the log of its PostgreSQL."));
    }
    if has(|seen| matches!(seen, JournalFact::Crashed { .. })) {
        return Some(format!("Find in the log of PostgreSQL on {old} why it crashed."));
    }
    if has(|seen| matches!(seen, JournalFact::Frozen { .. })) {
        return Some(format!("Find out what froze {old}: its host, a snapshot, its memory or its cgroup."));
    }
    if has(|seen| matches!(seen, JournalFact::RenewalFailed { .. } | JournalFact::NotRenewed { .. }))
        && matches!(kind, ChangeKind::Failover | ChangeKind::Recruited)
    {
        return Some(format!("Look at the network between {old} and etcd."));
    }
    let is_unexplained =
        matches!(kind, ChangeKind::Failover | ChangeKind::Recruited) && change.ended().is_none();
    is_unexplained.then(|| match is_back {
        true => format!("{old} is back. Its logs, and those of its machine, may say why it was away."),
        false => {
            format!("Look at {old}: whether its machine runs, its supervisor runs, and it reaches etcd.")
        }
    })
}

/// Why the former leader does not follow the new one yet; `None`: it does.
fn absence(view: &ClusterView, old: &MemberName) -> Option<String> {
    let Some(key) = view.members.get(old) else {
        return Some(format!("{old} is not back: it is not registered in etcd."));
    };
    let record = &key.record;
    let follows = record.role == Role::Replica && record.state == MemberState::Running;
    let leads = view.leader.as_ref().is_some_and(|leader| leader.name == *old);
    match &record.refusal {
        Some(refusal) => Some(format!("{old} is back, and waits for you: {refusal}.")),
        None if follows || leads => None,
        None => Some(format!("{old} is registered, and its PostgreSQL is {}.", record.state)),
    }
}

fn discarded(change: &LeaderChange) -> Vec<String> {
    let sentence = |record: &crate::model::JournalRecord| match &record.entry {
        JournalEntry::Discarded { from, to } => Some(format!(
            "{} came back and discarded WAL that no other member had, from {from} to {to}: at most {} bytes, the unused \
             rest of a segment included. It is kept aside beside its data directory for a while: `matriarch loss` there shows \
             what was in it.",
            record.by,
            to.bytes_since(*from)
        )),
        JournalEntry::Began(_) | JournalEntry::Ended(_) | JournalEntry::Refused { .. } => None,
    };
    change.records.iter().filter_map(sentence).collect()
}
