//! What a mutation makes of what a decision rests on.

use matriarch::decide::{Memory, Served};
use matriarch::model::{
    Branch, ControlState, DataDirectory, Leading, MemberName, Moment, Observation, Process, Standby,
    Suspicion, SyncMode, View,
};

use super::Agent;
use crate::sim::mutation::Mutation;

/// What a mutation makes of what was seen of streaming.
pub(super) fn mutate_streaming(agent: &Agent, mutation: Option<Mutation>, seen: &mut Observation) {
    match mutation {
        Some(Mutation::ConfirmTooEarly) => {
            if let Some(sql) = &mut seen.postgres.sql {
                for standby in &mut sql.sync.walsenders {
                    standby.flushed = Some(sql.flushed);
                }
            }
        }
        Some(Mutation::AttachUnchecked) => {
            let own = seen.postgres.branch_at_most().or_else(|| seen.postgres.branch());
            if let (Some(told), Some(own)) = (&mut seen.leader_branch, own) {
                told.answer = Ok(Branch { end: None, ..own });
            }
        }
        Some(Mutation::ReceiverGoneAtOnce) => {
            let member = agent.member();
            let told_to_end = {
                let world = agent.sim.world();
                world.machines[member].server.as_ref().is_some_and(|server| server.follow.is_none())
            };
            if let (true, Some(Standby::Yes { receiver, .. })) =
                (told_to_end, seen.postgres.sql.as_mut().map(|sql| &mut sql.standby))
            {
                *receiver = None;
            }
        }
        _others => {}
    }
}

/// A leader whose PostgreSQL is down takes what lies there for what it has served in its term.
pub(super) fn go_on_after_anybody(memory: &mut Memory, seen: &mut Observation, now: Moment) {
    let down = matches!(seen.postgres.process, Process::Down { .. });
    if let (true, DataDirectory::Ready(control)) = (down, &mut seen.postgres.data) {
        control.state = ControlState::InProduction;
        let (timeline, until) = (control.checkpoint_timeline, now + seen.settings.ttl);
        memory.served = seen.lease.leading_at(now).map(|term| Served { term, timeline, until });
    }
}

/// What a mutation makes of what was seen.
pub(super) fn mutate(mutation: Option<Mutation>, seen: &mut Observation) {
    match mutation {
        Some(Mutation::SuspicionPromises) => suspicion_promises(seen),
        Some(Mutation::NoLagLimit) => seen.settings.maximum_lag_on_failover = u64::MAX,
        Some(Mutation::IgnoreSyncRecord) => {
            let standby = seen.postgres.sql.as_ref().is_some_and(|sql| !sql.is_primary());
            let key = seen.view.as_mut().and_then(|view| view.cluster.sync.as_mut());
            if let Some(key) = key.filter(|key| standby && key.record.is_in_force()) {
                key.record.leader = Some(seen.me.name.clone());
            }
        }
        Some(Mutation::PromoteUnprepared) => {
            let standby = seen.postgres.sql.as_ref().is_some_and(|sql| !sql.is_primary());
            if let (Some(view), true, Leading::Yes(_)) = (&mut seen.view, standby, seen.lease.leading) {
                (view.cluster.sync, seen.settings.sync.mode) = (None, SyncMode::Off);
            }
        }
        Some(Mutation::CandidateForgets) => {
            let standby = seen.postgres.sql.as_ref().is_some_and(|sql| !sql.is_primary());
            if let Some(view) = seen.view.as_mut().filter(|_| standby && seen.settings.pause) {
                view.cluster.failover = None;
            }
        }
        Some(Mutation::UnlistedLeads) => {
            let name = seen.me.name.clone();
            if let Some(key) = seen.view.as_mut().and_then(|view| view.cluster.failsafe.as_mut()) {
                let named = !key.members.is_empty();
                named.then(|| key.members.entry(name).or_default());
            }
        }
        Some(Mutation::ForgetCluster) => {
            let bare = !matches!(seen.postgres.data, DataDirectory::Ready(_));
            let led = |view: &&mut View| bare && view.cluster.status.is_some();
            if let Some(view) = seen.view.as_mut().filter(led) {
                view.cluster.initialize = None;
                view.cluster.members.retain(|name, _| *name == seen.me.name);
            }
        }
        Some(Mutation::NoGuard) => {
            // The supervisor does not notice that its lease ends, either.
            seen.lease.deadline = seen.lease.deadline.map(|at| at + seen.settings.ttl * 100);
        }
        Some(Mutation::IgnoreUnfenced) => {
            if let Some(view) = &mut seen.view {
                // Its own it does not forget: it would never end.
                let key = view.cluster.unfenced.as_mut();
                key.into_iter().for_each(|key| key.primaries.retain(|name, _| *name == seen.me.name));
            }
        }
        Some(Mutation::TrustAnyAnswer) => {
            let names: Vec<MemberName> = seen.peers.keys().cloned().collect();
            for name in names {
                let asked = seen.identity_of(&name);
                if let (Some(answer), Some(asked)) = (seen.peers.get_mut(&name), asked) {
                    answer.identity = asked;
                }
            }
        }
        Some(Mutation::HandOverUnproved) => {
            for answer in seen.peers.values_mut() {
                if let Some(control) = seen.postgres.control() {
                    answer.replayed = matriarch::model::Lsn(control.checkpoint.0 + 1);
                    answer.timeline = Some(control.checkpoint_timeline);
                }
            }
        }
        _other => {}
    }
}

fn suspicion_promises(seen: &mut Observation) {
    let attempt = seen.view.as_ref().and_then(|view| Some(view.cluster.recruit.as_ref()?.attempt));
    for answer in seen.peers.values_mut() {
        if matches!(answer.suspicion, Suspicion::Suspects(_)) {
            (answer.recruited, answer.receives) = (attempt, false);
        }
    }
}
