//! Commits transactions in the simulated etcd, as `matriarch::etcd` does in a real one.

use std::time::Duration;

use matriarch::core::store::{Cas, Keys, StoredKey, Txn, WriteError};
use matriarch::model::LeaseId;

use super::Agent;
use crate::sim::etcd::{Answer, Body, Op, Refusal};
use crate::sim::mutation::Mutation;

pub(super) const HEDGE_AFTER: Duration = Duration::from_millis(500);
pub(super) const WITHIN: Duration = Duration::from_secs(3);

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
        if puts && matches!(answer.body, Body::Txn { done: true, .. }) {
            self.shared.etcd.note_write(Some(self.now()));
        }
        Ok(cas(&txn, answer))
    }

    pub(super) async fn read(&self, path: String) -> Result<Option<StoredKey>, Refusal> {
        match self.shared.etcd.hedged(HEDGE_AFTER, WITHIN, Op::Get(path)).await?.body {
            Body::Key(now) => Ok(now),
            _other => Err(Refusal::Unknown("not an answer to a read")),
        }
    }

    pub(super) fn takes_note_of_refusals(&self) -> bool {
        self.sim.world().options.mutation != Some(Mutation::GiveToNobody)
    }

    pub(super) fn look_again(&self) {
        self.shared.look_again.set(true);
        self.shared.view_bell.give(&self.sim.exec);
    }

    pub(crate) async fn revoke_lease(&self, lease: LeaseId) {
        let within = Duration::from_secs(2);
        let _ = self.shared.etcd.hedged(within / 8, within, Op::Revoke(lease.0)).await;
    }
}

/// How the transaction ended.
pub(super) fn cas(txn: &Txn, answer: Answer) -> Cas {
    match answer.body {
        Body::Txn { done: true, .. } => Cas::Done(answer.revision),
        Body::Txn { now, .. } if txn.evidence.is_shown_by(now.as_ref()) => {
            Cas::Done(now.map_or(answer.revision, |key| key.mod_revision))
        }
        _other => Cas::Lost,
    }
}

/// As the product's client reports it.
pub(super) fn reported(refusal: Refusal) -> WriteError {
    match refusal {
        Refusal::LeaseNotFound => WriteError::LeaseNotFound,
        Refusal::NoSpace => WriteError::NoSpace("database space exceeded".to_owned()),
        Refusal::Unknown(why) => WriteError::Unknown(why.to_owned()),
    }
}
