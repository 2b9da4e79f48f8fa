//! The cause of a change in one sentence: the former leader's own account first, then what others saw.

use super::change::LeaderChange;
use crate::model::{ChangeKind, ClusterView, JournalFact, TermEnd};

/// That nobody leads, in one line.
pub fn nobody_leads(view: &ClusterView) -> &'static str {
    match view.initialize.as_deref() {
        None => "nobody leads, and etcd knows no cluster of this name",
        Some("") => "nobody leads: the cluster is being created",
        Some(_) => "nobody leads, so no writes are accepted",
    }
}

/// What happened, in one line.
pub fn headline(change: &LeaderChange) -> String {
    let Some((record, began)) = change.began() else {
        return match (change.refused(), change.ended()) {
            (Some((record, _)), _) => format!("a hand-over by {} did not happen", record.by),
            (None, Some((record, _))) => {
                format!("{} ceased to lead, and no record names its successor", record.by)
            }
            (None, None) => "a change of which no record is left".to_owned(),
        };
    };
    let new = &record.by;
    let old = change.former().map_or_else(|| "an unknown leader".to_owned(), ToString::to_string);
    match began.kind {
        ChangeKind::First => format!("{new} became the first leader of the cluster"),
        ChangeKind::HandOver if began.request.is_some() => {
            format!("switchover: {old} handed the leadership over to {new}")
        }
        ChangeKind::HandOver => format!("{old} handed the leadership over to {new}"),
        ChangeKind::Failover if is_asked_failover(change) => {
            format!("failover by an operator: {new} leads in place of {old}")
        }
        ChangeKind::Failover => format!("failover: {new} leads in place of {old}"),
        ChangeKind::Recruited => format!("failover before the lease ended: {new} leads in place of {old}"),
        ChangeKind::Again => format!("{new} leads again"),
        ChangeKind::FoundAgain => format!("{new}, which ran as the primary, took the leader key again"),
    }
}

fn is_asked_failover(change: &LeaderChange) -> bool {
    let request = change.began().and_then(|(_, began)| began.request.as_ref());
    request.is_some_and(|request| request.leader.is_none())
}

/// Why it happened.
pub fn cause(change: &LeaderChange) -> String {
    if let Some((_, why)) = change.refused() {
        return why.to_owned();
    }
    asked(change).or_else(|| confessed(change)).unwrap_or_else(|| witnessed(change))
}

/// An operator asked for it.
fn asked(change: &LeaderChange) -> Option<String> {
    let (record, began) = change.began()?;
    let request = began.request.as_ref()?;
    let time = request.scheduled_at.map(|at| format!(", scheduled for {at}")).unwrap_or_default();
    let who = request.requested_by.as_ref().map_or_else(String::new, |who| format!(" ({who})"));
    match (&request.leader, began.kind) {
        (Some(leader), ChangeKind::HandOver) => {
            let to = request.candidate.as_ref().map(|name| format!(" to {name}")).unwrap_or_default();
            Some(format!("an operator{who} asked for a switchover from {leader}{to}{time}"))
        }
        (None, ChangeKind::HandOver | ChangeKind::Failover) => {
            Some(format!("an operator{who} asked for a failover to {}", record.by))
        }
        (_, _) => None,
    }
}

/// By the account of the former leader.
fn confessed(change: &LeaderChange) -> Option<String> {
    let (record, ended) = change.ended()?;
    let (old, seen) = (&record.by, change.own_account());
    let gave_away = matches!(ended.how, TermEnd::Released | TermEnd::HandedOver { .. });
    let mut ranked: Vec<(u8, String)> =
        seen.iter().filter_map(|seen| ranked(seen, old.as_str(), gave_away)).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    let first = ranked.into_iter().next().map(|(_, sentence)| sentence);
    let replaced = || match &ended.how {
        TermEnd::Replaced { by } => Some(format!("{by} took the place of {old}, whose lease had not ended")),
        TermEnd::HandedOver { .. } | TermEnd::Released | TermEnd::RanOut | TermEnd::Deleted => None,
    };
    let by_steps = || {
        let step = ended.steps.iter().rev().find(|step| !step.because.is_empty())?;
        gave_away.then(|| format!("{old} gave the leadership up: {}", step.because))
    };
    first.or_else(by_steps).or_else(|| Some(format!("{}; {}", replaced()?, witnessed(change))))
}

/// How much a fact explains, the smaller the more, and the sentence.
fn ranked(seen: &JournalFact, old: &str, gave_away: bool) -> Option<(u8, String)> {
    let found = match seen {
        JournalFact::EndAsked if gave_away => (
            0,
            format!(
                "the supervisor of {old} was asked to end (its service or pod was stopped, or restarted)"
            ),
        ),
        JournalFact::PodEnds { end } => (1, format!("the pod of {old}: {end}")),
        JournalFact::WatchdogFailed => (2, format!("{old} could not use the watchdog that it requires")),
        JournalFact::Frozen { millis } => {
            let seconds = format!("{}.{} s", millis / 1000, millis % 1000 / 100);
            (
                3,
                format!(
                    "{old} was frozen: its supervisor did not run for at least {seconds}, so its lease ended"
                ),
            )
        }
        JournalFact::Unhealthy { death } => (4, format!("PostgreSQL on {old} did not work: {death}")),
        JournalFact::Crashed { times } if 1 < *times => {
            (5, format!("PostgreSQL on {old} crashed again and again ({times} times within 5 minutes)"))
        }
        JournalFact::Crashed { .. } => (5, format!("PostgreSQL on {old} crashed")),
        JournalFact::RenewalFailed { trouble } if !gave_away => {
            (6, format!("{old} could not reach etcd, so its lease ended: {trouble}"))
        }
        JournalFact::NotRenewed { seconds } if !gave_away => {
            (7, format!("{old} could not renew its lease for {seconds} s"))
        }
        JournalFact::WritesRefused { .. }
        | JournalFact::LastHeartbeat { .. }
        | JournalFact::StillHeard { .. }
        | JournalFact::NeverHeard { .. }
        | JournalFact::SilentElsewhere { .. }
        | JournalFact::HeardElsewhere { .. }
        | JournalFact::LeaseEnded { .. }
        | JournalFact::KeyReleased { .. }
        | JournalFact::KeyMoved { .. }
        | JournalFact::Promised { .. }
        | JournalFact::StoreWentBack { .. }
        | JournalFact::RenewalFailed { .. }
        | JournalFact::NotRenewed { .. }
        | JournalFact::PostgresDown { .. }
        | JournalFact::EndAsked => return None,
    };
    Some(found)
}

/// By what the new leader saw.
fn witnessed(change: &LeaderChange) -> String {
    let old = change.former().map_or_else(|| "the old leader".to_owned(), ToString::to_string);
    let seen = change.witnessed();
    if let Some(JournalFact::StoreWentBack { why }) =
        seen.iter().find(|seen| matches!(seen, JournalFact::StoreWentBack { .. }))
    {
        return format!("etcd lost data: {why}");
    }
    let kind = change.began().map(|(_, began)| began.kind);
    let silent = seen.iter().any(|seen| matches!(seen, JournalFact::LastHeartbeat { .. }));
    let released = seen.iter().find_map(|seen| match seen {
        JournalFact::KeyReleased { state, .. } => Some(state),
        _ => None,
    });
    match (kind, released) {
        (Some(ChangeKind::First), _) => "the cluster was new".to_owned(),
        (Some(ChangeKind::FoundAgain), _) => {
            "the leader key was gone from etcd while the primary ran: somebody deleted it, or etcd lost it"
                .to_owned()
        }
        (Some(ChangeKind::HandOver), _) => format!("{old} decided to hand over, and has not recorded why"),
        (Some(ChangeKind::Recruited), _) => format!(
            "{old} fell silent: no heartbeats and no WAL arrived from it. Its machine, its supervisor or the network to \
             it failed. {old} itself has not recorded anything"
        ),
        (_, Some(state)) => format!("{old} released the leader key ({state}), and has not recorded why"),
        (_, None) if silent => format!(
            "{old} fell silent and its lease ended: its machine, its supervisor or its network failed. {old} itself has \
             recorded nothing: it was killed, or is not back"
        ),
        (_, None) => format!(
            "the lease of {old} ended: its machine or supervisor failed, or it lost etcd. {old} itself has recorded \
             nothing: it was killed, or is not back"
        ),
    }
}
