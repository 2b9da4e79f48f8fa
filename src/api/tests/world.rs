//! The loop behind the routes, as a record of what it was asked.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::{name, view};
use crate::agent::{ApiOrder, OrderError};
use crate::model::*;
use crate::os::clock;

/// The fake loop's answers, and its record of orders.
pub(in crate::api) struct World {
    /// The result of a linearizable read; `None`: etcd is unavailable.
    pub(in crate::api) cluster: Option<ClusterView>,
    pub(super) reply: Reply,
    pub(super) peer_reachable: bool,
    /// The standbys that stream from `n1`, by its own report.
    pub(super) leader_standbys: Vec<String>,
    /// The process that answers at the address of `n2`.
    pub(super) peer_identity: PeerIdentity,
    pub(super) writes_succeed: bool,
    /// What this member says before a switchover.
    pub(super) facts: Result<PreflightFacts, String>,
    /// What other members answer.
    pub(super) peer_bodies: BTreeMap<String, (u16, String)>,
    pub(in crate::api) journal: Vec<JournalRecord>,
    pub(in crate::api) asked: Vec<Ask>,
    pub(super) looks: usize,
    /// The loop has ended: nobody answers.
    pub(super) loop_has_ended: bool,
    pub(super) reloads: usize,
    pub(super) failover: Vec<Option<FailoverRequest>>,
    /// Linearizable reads without an answer; `None`: they are answered.
    pub(super) held_reads: Option<Vec<oneshot::Sender<Result<ClusterView, OrderError>>>>,
}

pub(super) fn carry_out(order: ApiOrder, world: &mut World) {
    let away = || OrderError::Etcd("no endpoint answers".to_owned());
    // A caller may have gone.
    match order {
        ApiOrder::Ask(ask, answer) => {
            world.asked.push(ask);
            let _ = answer.send(world.reply.clone());
        }
        ApiOrder::Reload => world.reloads += 1,
        ApiOrder::Wake => {}
        ApiOrder::Look(_, answer) => {
            world.looks += 1;
            if !world.loop_has_ended {
                let _ = answer.send(());
            }
        }
        ApiOrder::ReadCluster(answer) => {
            if let Some(held) = &mut world.held_reads {
                return held.push(answer);
            }
            let _ = answer.send(world.cluster.clone().ok_or_else(away));
        }
        ApiOrder::WriteConfig(text, if_revision, answer) => {
            let succeeds = world.writes_succeed;
            if let Some(view) = world.cluster.as_mut().filter(|_| succeeds) {
                let revision = view.config.as_ref().map_or(0, |key| key.mod_revision);
                assert!(if_revision.is_none_or(|expected| expected == revision));
                view.config = Some(ConfigKey { text, mod_revision: revision + 1 });
            }
            let _ = answer.send(Ok(succeeds));
        }
        ApiOrder::WriteFailover(request, _, answer) => {
            let succeeds = world.writes_succeed;
            if let Some(view) = world.cluster.as_mut().filter(|_| succeeds) {
                view.failover = request.clone().map(|request| FailoverKey { request, mod_revision: 9 });
            }
            world.failover.push(request);
            let _ = answer.send(Ok(succeeds.then_some(9)));
        }
        ApiOrder::ReadJournal(answer) => {
            let _ = answer.send(Ok(world.journal.clone()));
        }
        ApiOrder::Preflight(answer) => {
            let _ = answer.send(world.facts.clone());
        }
        ApiOrder::GetPeer(url, answer) => {
            let _ = answer.send(world.peer_bodies.get(&url).cloned().ok_or_else(|| "silent".to_owned()));
        }
        ApiOrder::AskPeer(url, answer) => {
            let _ = answer.send(peer_answer(&url, world));
        }
    }
}

fn peer_answer(url: &str, world: &World) -> PeerAnswer {
    let leads = url.contains(":1/");
    PeerAnswer {
        asked_at: clock::now(),
        identity: if leads { view().identity_of("c", &name("n1")) } else { world.peer_identity.clone() },
        reachable: world.peer_reachable,
        in_recovery: !leads,
        role: Role::Replica,
        lsn: Lsn(900),
        exact: true,
        receives: false,
        standbys: world.leader_standbys.clone(),
        replayed: Lsn(800),
        timeline: Some(Timeline(2)),
        tags: Tags::default(),
        trouble: None,
        ..PeerAnswer::unreachable(clock::now(), String::new())
    }
}
