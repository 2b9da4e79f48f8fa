//! One compare-and-swap, hedged, whose lost answers do no harm.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, GetResponse, PutOptions, Txn, TxnOp, TxnOpResponse};

use super::endpoints::Etcd;
use super::view::stored;
use super::{EtcdError, StoredKey};
use crate::model::LeaseId;

/// How long a write may take on one endpoint before it is sent to the next as well.
const HEDGE_AFTER: Duration = Duration::from_millis(500);
/// How long a write may take in all.
const WITHIN: Duration = Duration::from_secs(3);

/// How a compare-and-swap ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cas {
    /// Written, in this revision of the store.
    Done(i64),
    /// The comparison failed: somebody else was faster, or we are not who we were. Nothing was written.
    Lost,
}

impl Cas {
    /// The revision of a change that was done.
    pub fn revision(self) -> Option<i64> {
        match self {
            Cas::Done(revision) => Some(revision),
            Cas::Lost => None,
        }
    }
}

impl Etcd {
    /// One transaction. Where the comparison fails, `mine` says of the key `path` as it is now whether an earlier try
    /// of this very change has made it so.
    pub(super) async fn swap(
        &self,
        when: Vec<Compare>,
        then: Vec<TxnOp>,
        path: &str,
        mine: impl Fn(Option<&StoredKey>) -> bool,
    ) -> Result<Cas, EtcdError> {
        let otherwise = vec![TxnOp::get(path, None)];
        let txn = Txn::new().when(when).and_then(then).or_else(otherwise);
        let ask = |etcd: Etcd, endpoint: std::sync::Arc<super::endpoints::Endpoint>| {
            let txn = txn.clone();
            async move {
                let request = |mut client: etcd_client::Client| {
                    let txn = txn.clone();
                    async move { client.txn(txn).await }
                };
                let answer = etcd.call(&endpoint, request).await?;
                etcd.fresh(&endpoint, answer.header())?;
                Ok(answer)
            }
        };
        let answer = match self.hedged(HEDGE_AFTER, WITHIN, ask).await {
            Ok(answer) => answer,
            Err(error) => {
                if let EtcdError::NoSpace(why) = &error {
                    self.note_write(Some(why));
                }
                return Err(error);
            }
        };
        let revision = answer.header().map_or(0, |header| header.revision());
        let answers = answer.op_responses();
        if answer.succeeded() {
            // Deletions are done also where nothing can be written.
            if answers.iter().any(|answer| matches!(answer, TxnOpResponse::Put(_))) {
                self.note_write(None);
            }
            return Ok(Cas::Done(revision));
        }
        let now = answers.into_iter().find_map(|answer| match answer {
            TxnOpResponse::Get(found) => first(&found),
            TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
        });
        if mine(now.as_ref()) {
            return Ok(Cas::Done(now.map_or(revision, |key| key.mod_revision)));
        }
        Ok(Cas::Lost)
    }

    /// One key, linearizable.
    pub(super) async fn get(&self, path: &str) -> Result<Option<StoredKey>, EtcdError> {
        let ask = |etcd: Etcd, endpoint: std::sync::Arc<super::endpoints::Endpoint>| async move {
            let request = |mut client: etcd_client::Client| async move { client.get(path, None).await };
            let answer = etcd.call(&endpoint, request).await?;
            etcd.fresh(&endpoint, answer.header())?;
            Ok(first(&answer))
        };
        self.hedged(HEDGE_AFTER, WITHIN, ask).await
    }
}

fn first(answer: &GetResponse) -> Option<StoredKey> {
    answer.kvs().first().map(stored)
}

pub(super) fn holds(text: &str) -> impl Fn(Option<&StoredKey>) -> bool {
    let text = text.to_owned();
    move |now| now.is_some_and(|key| key.value == text.as_bytes())
}

pub(super) fn put(path: &str, value: &str, lease: Option<LeaseId>) -> TxnOp {
    let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
    TxnOp::put(path, value, options)
}

pub(super) fn delete(path: &str) -> TxnOp {
    TxnOp::delete(path, None)
}

/// The key was last written in this revision; 0 means that it is absent.
pub(super) fn unchanged(path: &str, mod_revision: i64) -> Compare {
    Compare::mod_revision(path, CompareOp::Equal, mod_revision)
}
