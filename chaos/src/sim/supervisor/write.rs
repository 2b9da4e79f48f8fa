//! Commits the product's transactions (`matriarch::etcd::Keys`) in the simulated etcd.

use std::collections::BTreeMap;
use std::time::Duration;

use matriarch::etcd::{Compare, Keys, StoredKey, Txn};
use matriarch::model::{
    ClusterStatus, GenerationWrite, Grounds, LeaseId, MemberName, PodEnd, Term, Timeline, UnfencedPrimary,
};

use super::configured::written;
use super::{Agent, Event};
use crate::invariant;
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

impl Agent {
    pub(super) fn path(&self, name: &str) -> String {
        self.sim.world().keys.path(name)
    }

    pub(super) fn keys(&self) -> Keys {
        self.sim.world().keys.clone()
    }

    pub(super) async fn commit(&self, txn: Txn) -> Result<Cas, Refusal> {
        let op = Op::Txn(txn.clone());
        let puts = op.puts();
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
            Body::Txn { now, .. } if txn.evidence.is_shown_by(now.as_ref()) => Ok(Cas::Done),
            _other => Ok(Cas::Lost),
        }
    }

    async fn read(&self, name: &str) -> Result<Option<StoredKey>, Refusal> {
        match self.shared.etcd.hedged(HEDGE_AFTER, WITHIN, Op::Get(self.path(name))).await?.body {
            Body::Key(now) => Ok(now),
            _other => Err(Refusal::Unknown("not an answer to a read")),
        }
    }

    fn takes_note_of_refusals(&self) -> bool {
        self.sim.world().options.mutation != Some(Mutation::GiveToNobody)
    }

    fn look_again(&self) {
        self.shared.look_again.set(true);
        self.shared.view_bell.give(&self.sim.exec);
    }

    pub(crate) async fn take_leadership(&self, lease: LeaseId, by: Grounds) -> Result<Cas, Refusal> {
        let (name, mutation) = {
            let world = self.sim.world();
            (world.machines[self.member()].name.clone(), world.options.mutation)
        };
        let mut txn = self.keys().take_leadership(&name, lease, by);
        let unfenced = Compare::Revision(self.path("unfenced"), by.unfenced);
        match mutation {
            Some(Mutation::TakeFromAnybody) => txn.when.clear(),
            Some(Mutation::IgnoreUnfenced) => txn.when.retain(|compare| *compare != unfenced),
            _sound => {}
        }
        let taken = self.commit(txn).await;
        if let Ok(Cas::Lost) = taken {
            self.look_again();
        }
        taken
    }

    pub(crate) async fn hand_over(
        &self,
        held: (Term, LeaseId),
        to: &MemberName,
        to_lease: LeaseId,
        status: &ClusterStatus,
    ) -> Result<Cas, Refusal> {
        match self.commit(self.keys().hand_over(held, to, to_lease, Some(status))).await {
            Err(Refusal::LeaseNotFound) => Ok(Cas::Lost),
            other => other,
        }
    }

    pub(crate) async fn release_leadership(
        &self,
        held: (Term, LeaseId),
        status: Option<&ClusterStatus>,
    ) -> Result<Cas, Refusal> {
        let status = status.filter(|_| self.takes_note_of_refusals());
        // An answer may come late: what etcd did it did before.
        let full = self.sim.world().etcd.no_space;
        let released = self.commit(self.keys().release_leadership(held, status)).await;
        if full && released == Ok(Cas::Done) {
            let replaced = self.sim.world().machines[self.member()].pod_end == Some(PodEnd::Replaced);
            invariant::released(&self.sim, self.member(), self.shared.shutting_down.get() || replaced);
        }
        released
    }

    pub(crate) async fn write_unfenced(
        &self,
        held: Option<(Term, LeaseId)>,
        primaries: &BTreeMap<MemberName, UnfencedPrimary>,
        over: i64,
    ) -> Result<Cas, Refusal> {
        let written = self.commit(self.keys().write_unfenced(held, primaries, over)).await;
        self.look_again();
        written
    }

    pub(crate) async fn restore_config(&self, held: (Term, LeaseId), text: &str) -> Result<Cas, Refusal> {
        let now = self.read("config").await?;
        match self.keys().restore_config(held, text, now.as_ref()) {
            Some(txn) => self.commit(txn).await,
            None => Ok(Cas::Lost),
        }
    }

    pub(crate) fn write_generation_aside(&self, lease: Option<LeaseId>, write: GenerationWrite) {
        self.aside(lease, Event::LookWanted, move |own, lease| async move {
            own.write_generation(lease, &write).await
        });
    }

    async fn write_generation(&self, lease: LeaseId, write: &GenerationWrite) -> Result<Cas, Refusal> {
        let written = self.commit(self.keys().write_generation(lease, write)).await?;
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
        let now = self.read("timeline").await?;
        let (txn, passed_over) = self.keys().claim_timeline(held, Timeline(above), now.as_ref());
        Ok((self.commit(txn).await? == Cas::Done).then_some(passed_over.0))
    }

    pub(crate) async fn win_initialize(&self, lease: LeaseId, seen: i64) -> Result<Cas, Refusal> {
        let forgets = {
            let world = self.sim.world();
            let led = world.etcd.store.keys.contains_key(&world.keys.path("status"));
            led && world.options.mutation == Some(Mutation::ForgetCluster)
        };
        let mut txn = self.keys().win_initialize(lease, seen);
        if forgets {
            txn.when.clear();
        }
        self.commit(txn).await
    }

    pub(crate) async fn finish_initialize(&self, lease: LeaseId, system_id: u64) -> Result<Cas, Refusal> {
        let first = written(&self.sim.world().options.settings, false).to_string();
        self.commit(self.keys().finish_initialize(lease, system_id, &first)).await
    }

    pub(crate) async fn revoke_lease(&self, lease: LeaseId) {
        let within = Duration::from_secs(2);
        let _ = self.shared.etcd.hedged(within / 8, within, Op::Revoke(lease.0)).await;
    }
}
