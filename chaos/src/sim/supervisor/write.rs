//! Every change of a key, with the comparisons of `src/etcd/write.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use matriarch::etcd::StoredKey;
use matriarch::model::{
    ClusterStatus, GenerationWrite, Grounds, HistoryLine, LeaseId, MemberName, MemberRecord, SyncRecord,
    Term, UnfencedPrimary,
};
use serde::Serialize;
use serde_json::json;

use super::configured::written;
use super::{Agent, Event};
use crate::invariant;
use crate::sim::etcd::store::{Change, Compare, Txn};
use crate::sim::etcd::{Body, Op, Refusal};
use crate::sim::mutation::Mutation;

pub(super) const HEDGE_AFTER: Duration = Duration::from_millis(500);
pub(super) const WITHIN: Duration = Duration::from_secs(3);

/// As the product's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cas {
    Done,
    Lost,
}

fn bytes(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

impl Agent {
    pub(super) fn path(&self, name: &str) -> String {
        self.sim.world().keys.path(name)
    }

    async fn swap(
        &self,
        when: Vec<Compare>,
        then: Vec<Change>,
        read: String,
        mine: impl Fn(Option<&StoredKey>) -> bool,
    ) -> Result<Cas, Refusal> {
        let puts = then.iter().any(|change| !matches!(change, Change::Delete(_)));
        let op = Op::Txn(Txn { when, then, read });
        let answer = match self.shared.etcd.hedged(HEDGE_AFTER, WITHIN, op).await {
            Ok(answer) => answer,
            Err(refusal) => {
                if refusal == Refusal::NoSpace && self.takes_note_of_refusals() {
                    self.shared.etcd.note_write(None);
                    self.shared.bell.give(&self.sim.exec);
                }
                return Err(refusal);
            }
        };
        match answer.body {
            Body::Txn { done: true, .. } => {
                if puts {
                    self.shared.etcd.note_write(Some(self.now()));
                }
                Ok(Cas::Done)
            }
            Body::Txn { now, .. } if mine(now.as_ref()) => Ok(Cas::Done),
            _other => Ok(Cas::Lost),
        }
    }

    fn takes_note_of_refusals(&self) -> bool {
        self.sim.world().options.mutation != Some(Mutation::GiveToNobody)
    }

    pub(super) fn as_leader(&self, term: Term, lease: LeaseId) -> Vec<Compare> {
        let leader = self.path("leader");
        vec![Compare::Revision(leader.clone(), term.0), Compare::Lease(leader, lease.0)]
    }

    pub(crate) async fn take_leadership(&self, lease: LeaseId, by: Grounds) -> Result<Cas, Refusal> {
        let leader = self.path("leader");
        let (name, mutation) = {
            let world = self.sim.world();
            (world.machines[self.member()].name.clone(), world.options.mutation)
        };
        let since = |key| Compare::NotSince(self.path(key), by.unlocked);
        let when = match mutation {
            Some(Mutation::TakeFromAnybody) => Vec::new(),
            _sound => {
                let sync = Compare::Revision(self.path("sync"), by.sync);
                let mut when = vec![
                    Compare::Absent(leader.clone()),
                    sync,
                    since("status"),
                    since("timeline"),
                    since("generation"),
                ];
                if mutation != Some(Mutation::IgnoreUnfenced) {
                    when.push(Compare::Revision(self.path("unfenced"), by.unfenced));
                }
                when
            }
        };
        let then = vec![Change::Put(leader.clone(), name.as_str().as_bytes().to_vec(), lease.0)];
        let taken = self.swap(when, then, leader, |now| now.is_some_and(|key| key.lease == lease.0)).await;
        if let Ok(Cas::Lost) = taken {
            self.shared.look_again.set(true);
            self.shared.view_bell.give(&self.sim.exec);
        }
        taken
    }

    pub(crate) async fn hand_over(
        &self,
        (term, my_lease): (Term, LeaseId),
        to: &MemberName,
        to_lease: LeaseId,
        status: &ClusterStatus,
    ) -> Result<Cas, Refusal> {
        let leader = self.path("leader");
        let mut when = self.as_leader(term, my_lease);
        when.push(Compare::Lease(self.sim.world().keys.member(to), to_lease.0));
        let then = vec![
            Change::Put(leader.clone(), to.as_str().as_bytes().to_vec(), to_lease.0),
            Change::Put(self.path("status"), bytes(status), 0),
        ];
        let moved = |now: Option<&StoredKey>| now.is_some_and(|key| key.lease == to_lease.0);
        match self.swap(when, then, leader, moved).await {
            Err(Refusal::LeaseNotFound) => Ok(Cas::Lost),
            other => other,
        }
    }

    pub(crate) async fn release_leadership(
        &self,
        term: Term,
        lease: LeaseId,
        status: Option<&ClusterStatus>,
    ) -> Result<Cas, Refusal> {
        let leader = self.path("leader");
        let mut then = vec![Change::Delete(leader.clone())];
        let status = status.filter(|_| self.takes_note_of_refusals());
        then.extend(status.map(|status| Change::Put(self.path("status"), bytes(status), 0)));
        // An answer may come late: what etcd did it did before.
        let full = self.sim.world().etcd.no_space;
        let released = self.swap(self.as_leader(term, lease), then, leader, |now| now.is_none()).await;
        if full && released == Ok(Cas::Done) {
            invariant::released(&self.sim, self.member(), self.shared.shutting_down.get());
        }
        released
    }

    pub(crate) async fn reclaim_leadership(&self, term: Term, lease: LeaseId) -> Result<Cas, Refusal> {
        let leader = self.path("leader");
        let then = vec![Change::Rehang(leader.clone(), lease.0)];
        let mine = |now: Option<&StoredKey>| now.is_some_and(|key| key.lease == lease.0);
        self.swap(self.as_leader(term, lease), then, leader, mine).await
    }

    pub(crate) async fn put_member(&self, lease: LeaseId, record: &MemberRecord) -> Result<Cas, Refusal> {
        let path = {
            let world = self.sim.world();
            world.keys.member(&world.machines[self.member()].name)
        };
        self.swap(Vec::new(), vec![Change::Put(path.clone(), bytes(record), lease.0)], path, |_| false).await
    }

    async fn put_as_leader(
        &self,
        (term, lease): (Term, LeaseId),
        name: &str,
        value: Vec<u8>,
    ) -> Result<Cas, Refusal> {
        let path = self.path(name);
        self.swap(self.as_leader(term, lease), vec![Change::Put(path.clone(), value, 0)], path, |_| false)
            .await
    }

    pub(crate) async fn put_status(
        &self,
        held: (Term, LeaseId),
        status: &ClusterStatus,
    ) -> Result<Cas, Refusal> {
        self.put_as_leader(held, "status", bytes(status)).await
    }

    pub(crate) async fn put_history(
        &self,
        held: (Term, LeaseId),
        lines: &[HistoryLine],
    ) -> Result<Cas, Refusal> {
        let line = |line: &HistoryLine| {
            let mut parts = vec![json!(line.parent), json!(line.lsn), json!(line.reason)];
            parts.extend(line.at.as_ref().map(|at| json!(at)));
            parts.extend(line.at.as_ref().and(line.promoted.as_ref()).map(|name| json!(name)));
            parts
        };
        self.put_as_leader(held, "history", bytes(&lines.iter().map(line).collect::<Vec<_>>())).await
    }

    pub(crate) async fn put_sync(
        &self,
        held: (Term, LeaseId),
        record: Option<&SyncRecord>,
        over: i64,
    ) -> Result<Cas, Refusal> {
        let path = self.path("sync");
        let mut when = self.as_leader(held.0, held.1);
        when.push(Compare::Revision(path.clone(), over));
        let Some(record) = record else {
            return self.swap(when, vec![Change::Delete(path.clone())], path, |now| now.is_none()).await;
        };
        let voters: Vec<&str> = record.voters.iter().map(MemberName::as_str).collect();
        let standbys = (!voters.is_empty()).then(|| voters.join(","));
        let leader = record.leader.as_ref().map(MemberName::as_str);
        let value = bytes(&json!({"leader": leader, "quorum": record.quorum, "sync_standby": standbys}));
        let then = vec![Change::Put(path.clone(), value.clone(), 0)];
        self.swap(when, then, path, |now| now.is_some_and(|key| key.value == value)).await
    }

    pub(crate) async fn put_unfenced(
        &self,
        held: Option<(Term, LeaseId)>,
        primaries: &BTreeMap<MemberName, UnfencedPrimary>,
        over: i64,
    ) -> Result<Cas, Refusal> {
        let path = self.path("unfenced");
        let mut when = held.map(|(term, lease)| self.as_leader(term, lease)).unwrap_or_default();
        when.push(Compare::Revision(path.clone(), over));
        let value = bytes(primaries);
        let written = match primaries.is_empty() {
            true => self.swap(when, vec![Change::Delete(path.clone())], path, |now| now.is_none()).await,
            false => {
                let then = vec![Change::Put(path.clone(), value.clone(), 0)];
                self.swap(when, then, path, |now| now.is_some_and(|key| key.value == value)).await
            }
        };
        self.shared.look_again.set(true);
        self.shared.view_bell.give(&self.sim.exec);
        written
    }

    pub(crate) async fn put_initialize(&self, held: (Term, LeaseId), system_id: u64) -> Result<Cas, Refusal> {
        self.put_as_leader(held, "initialize", system_id.to_string().into_bytes()).await
    }

    pub(crate) async fn put_config(
        &self,
        (term, lease): (Term, LeaseId),
        text: String,
    ) -> Result<Cas, Refusal> {
        let config = self.path("config");
        let mut when = self.as_leader(term, lease);
        when.push(Compare::Absent(config.clone()));
        let then = vec![Change::Put(config.clone(), text.into_bytes(), 0)];
        self.swap(when, then, config, |now| now.is_some()).await
    }

    pub(crate) async fn clear_failover(&self, revision: i64) -> Result<Cas, Refusal> {
        let failover = self.path("failover");
        let when = vec![Compare::Revision(failover.clone(), revision)];
        let then = vec![Change::Put(failover.clone(), b"{}".to_vec(), 0)];
        self.swap(when, then, failover, |now| now.is_some_and(|key| key.value == b"{}")).await
    }

    pub(crate) fn write_generation_aside(&self, lease: Option<LeaseId>, write: GenerationWrite) {
        self.aside(lease, Event::LookWanted, move |own, lease| async move {
            own.write_generation(lease, &write).await
        });
    }

    async fn write_generation(&self, lease: LeaseId, write: &GenerationWrite) -> Result<Cas, Refusal> {
        let path = self.path("generation");
        let (when, record, mut then) = match write {
            GenerationWrite::Begin { over: [leader, sync, old, left], record, unfenced } => {
                let when = [("leader", leader), ("sync", sync), ("generation", old), ("unfenced", left)];
                let when = when.map(|(key, revision)| Compare::Revision(self.path(key), *revision)).to_vec();
                let mut then =
                    ["leader", "sync", "failover"].map(|key| Change::Delete(self.path(key))).to_vec();
                let put = || Change::Put(self.path("unfenced"), bytes(unfenced), 0);
                then.extend((!unfenced.is_empty()).then(put));
                (when, record, then)
            }
            GenerationWrite::Settle { term, over, record } => {
                let mut when = self.as_leader(*term, lease);
                when.push(Compare::Revision(path.clone(), *over));
                (when, record, Vec::new())
            }
        };
        let value = bytes(record);
        then.push(Change::Put(path.clone(), value.clone(), 0));
        let written = self.swap(when, then, path, |now| now.is_some_and(|key| key.value == value)).await?;
        if let (GenerationWrite::Begin { .. }, Cas::Done) = (write, written) {
            invariant::voided(&self.sim, self.member());
        }
        Ok(written)
    }

    pub(crate) async fn claim_timeline(
        &self,
        held: (Term, LeaseId),
        above: u32,
    ) -> Result<Option<u32>, Refusal> {
        let path = self.path("timeline");
        let read = self.shared.etcd.hedged(HEDGE_AFTER, WITHIN, Op::Get(path.clone())).await?;
        let Body::Key(now) = read.body else { return Err(Refusal::Unknown("not an answer to a read")) };
        let claimed = now.as_ref().and_then(|key| String::from_utf8_lossy(&key.value).parse().ok());
        let passed_over = above.max(claimed.unwrap_or(0));
        let value = (passed_over + 1).to_string().into_bytes();
        let mut when = self.as_leader(held.0, held.1);
        when.push(Compare::Revision(path.clone(), now.map_or(0, |key| key.mod_revision)));
        let then = vec![Change::Put(path.clone(), value.clone(), 0)];
        let swapped = self.swap(when, then, path, |now| now.is_some_and(|key| key.value == value)).await?;
        Ok((swapped == Cas::Done).then_some(passed_over))
    }

    pub(crate) async fn win_initialize(&self, lease: LeaseId) -> Result<Cas, Refusal> {
        let path = self.path("initialize");
        let then = vec![Change::Put(path.clone(), Vec::new(), lease.0)];
        let mine = |now: Option<&StoredKey>| now.is_some_and(|key| key.lease == lease.0);
        let forgets = {
            let world = self.sim.world();
            let led = world.etcd.store.keys.contains_key(&world.keys.path("status"));
            led && world.options.mutation == Some(Mutation::ForgetCluster)
        };
        let when = if forgets { Vec::new() } else { vec![Compare::Absent(path.clone())] };
        self.swap(when, then, path, mine).await
    }

    pub(crate) async fn finish_initialize(&self, lease: LeaseId, system_id: u64) -> Result<Cas, Refusal> {
        let (path, config) = (self.path("initialize"), self.path("config"));
        let value = system_id.to_string().into_bytes();
        let when = vec![Compare::Lease(path.clone(), lease.0)];
        let first = bytes(&written(&self.sim.world().options.settings, false));
        let then = vec![Change::Put(path.clone(), value.clone(), 0), Change::Put(config, first, 0)];
        self.swap(when, then, path, |now| now.is_some_and(|key| key.value == value)).await
    }

    pub(crate) async fn free_initialize(&self, lease: LeaseId) -> Result<Cas, Refusal> {
        let path = self.path("initialize");
        let when = vec![Compare::Lease(path.clone(), lease.0)];
        self.swap(when, vec![Change::Delete(path.clone())], path, |now| now.is_none()).await
    }

    pub(crate) async fn revoke_lease(&self, lease: LeaseId) {
        let within = Duration::from_secs(2);
        let _ = self.shared.etcd.hedged(within / 8, within, Op::Revoke(lease.0)).await;
    }
}
