//! One compare-and-swap, hedged. A lost answer does no harm.

use std::time::Duration;

use etcd_client::{CompareOp, GetResponse, PutOptions, TxnOp, TxnOpResponse};

use super::EtcdError;
use super::endpoints::Etcd;
use super::view::stored;
use crate::core::store::{Cas, Compare, KeyChange, StoredKey, Txn};

/// How long a write may take on one endpoint before it is sent to the next as well.
const HEDGE_AFTER: Duration = Duration::from_millis(500);
/// The limit of a whole write.
const WITHIN: Duration = Duration::from_secs(3);

impl Etcd {
    /// Commits a transaction. If a comparison fails, and the key that is read proves that an earlier attempt of the
    /// same transaction succeeded, it counts as done.
    ///
    /// # Errors
    /// [`EtcdError::LeaseNotFound`] and [`EtcdError::NoSpace`] are certain. After every other error a read has to show
    /// the result.
    pub async fn commit(&self, txn: &Txn) -> Result<Cas, EtcdError> {
        let otherwise = vec![TxnOp::get(txn.path.clone(), None)];
        let request = etcd_client::Txn::new()
            .when(txn.when.iter().map(compare).collect::<Vec<_>>())
            .and_then(txn.then.iter().map(change).collect::<Vec<_>>())
            .or_else(otherwise);
        let ask = |etcd: Etcd, endpoint: std::sync::Arc<super::endpoints::Endpoint>| {
            let request = request.clone();
            async move {
                let send = |mut client: etcd_client::Client| {
                    let request = request.clone();
                    async move { client.txn(request).await }
                };
                let answer = etcd.call(&endpoint, send).await?;
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
            // Deletions succeed even when etcd refuses writes.
            if answers.iter().any(|answer| matches!(answer, TxnOpResponse::Put(_))) {
                self.note_write(None);
            }
            return Ok(Cas::Done(revision));
        }
        let now = answers.into_iter().find_map(|answer| match answer {
            TxnOpResponse::Get(found) => first(&found),
            TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
        });
        if txn.evidence.is_shown_by(now.as_ref()) {
            return Ok(Cas::Done(now.map_or(revision, |key| key.mod_revision)));
        }
        Ok(Cas::Lost)
    }

    /// One key, linearizable.
    ///
    /// # Errors
    /// No endpoint answered in time.
    pub async fn get(&self, path: &str) -> Result<Option<StoredKey>, EtcdError> {
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

fn compare(compare: &Compare) -> etcd_client::Compare {
    use etcd_client::Compare as EtcdCompare;
    match compare {
        Compare::Revision(path, revision) => {
            EtcdCompare::mod_revision(path.as_str(), CompareOp::Equal, *revision)
        }
        Compare::Lease(path, lease) => EtcdCompare::lease(path.as_str(), CompareOp::Equal, lease.0),
        Compare::Absent(path) => EtcdCompare::create_revision(path.as_str(), CompareOp::Equal, 0),
        Compare::NotWrittenAfter(path, revision) => {
            EtcdCompare::mod_revision(path.as_str(), CompareOp::Less, revision + 1)
        }
        Compare::NoneCreatedAfter(prefix, revision) => {
            EtcdCompare::create_revision(prefix.as_str(), CompareOp::Less, revision + 1).with_prefix()
        }
    }
}

fn change(change: &KeyChange) -> TxnOp {
    match change {
        KeyChange::Put(path, text, lease) => {
            let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
            TxnOp::put(path.as_str(), text.as_str(), options)
        }
        KeyChange::MoveToLease(path, lease) => {
            let options = PutOptions::new().with_lease(lease.0).with_ignore_value();
            TxnOp::put(path.as_str(), "", Some(options))
        }
        KeyChange::Delete(path) => TxnOp::delete(path.as_str(), None),
    }
}
