//! Mode on: every named standby confirms every commit, so each standby in the key `sync` has all commits.

use std::collections::BTreeSet;

use super::state::{QuorumState, SyncStep, members};
use crate::model::{MemberName, SyncNames};

/// The next change; `None`: the state is as wanted.
pub fn step(state: &QuorumState) -> Option<SyncStep> {
    let record = &state.record;
    if record.leader.as_ref() != Some(&state.me) {
        return Some(SyncStep::Promise(state.promise(0, BTreeSet::new())));
    }
    let picked: BTreeSet<MemberName> = state.active.iter().take(state.wanted.max(1)).cloned().collect();
    if picked.is_empty() && state.strict {
        // Commits wait for the standbys of the promise, or for a name that no standby has.
        let kept = named(&record.voters, record.voters.len().max(1));
        return (state.names != kept).then_some(SyncStep::Name(kept));
    }
    let wanted = named(&picked, picked.len());
    if state.names != wanted {
        return Some(step_to_names(state, wanted, &picked));
    }
    let sure: BTreeSet<_> = picked.intersection(&state.confirmed).cloned().collect();
    let promise = state.promise(0, &sure | &staying_voters(state, &picked));
    if *record != promise {
        return Some(SyncStep::Promise(promise));
    }
    (promise.voters != picked).then_some(SyncStep::LookAgain)
}

/// Sets the names first where the present promise allows it; otherwise reduces the promise first.
fn step_to_names(state: &QuorumState, wanted: SyncNames, picked: &BTreeSet<MemberName>) -> SyncStep {
    match state.may_name(&wanted) {
        true => SyncStep::Name(wanted),
        false => SyncStep::Promise(state.promise(0, staying_voters(state, picked))),
    }
}

/// The voters that stay. After a quorum none of them is certain to have all commits by itself.
fn staying_voters(state: &QuorumState, picked: &BTreeSet<MemberName>) -> BTreeSet<MemberName> {
    match state.record.quorum {
        0 => picked.iter().filter(|name| members(&state.record).contains(name)).cloned().collect(),
        _ => BTreeSet::new(),
    }
}

fn named(names: &BTreeSet<MemberName>, count: usize) -> SyncNames {
    SyncNames { any: false, count, names: names.clone(), wildcard: false }
}
