//! The journal in etcd.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, GetOptions};

use super::EtcdError;
use super::endpoints::{Endpoint, Etcd};
use super::view::stored;
use crate::core::store::StoredKey;
use crate::model::JournalRecord;

/// The limit of one read.
const WITHIN: Duration = Duration::from_secs(3);

impl Etcd {
    /// Keeps a record, and removes the oldest where there are too many.
    ///
    /// # Errors
    /// As [`Etcd::commit`].
    pub async fn keep_record(&self, record: &JournalRecord) -> Result<(), EtcdError> {
        self.commit(&self.keys().keep_record(record)).await?;
        let names = self.journal_keys(true, WITHIN).await?.into_iter().map(|(path, _)| path);
        if let Some(prune) = self.keys().prune_journal(&names.collect::<Vec<_>>()) {
            self.commit(&prune).await?;
        }
        Ok(())
    }

    /// All records in the order of their terms, without those that cannot be read.
    ///
    /// # Errors
    /// No endpoint answered in time.
    pub async fn journal(&self, within: Duration) -> Result<Vec<JournalRecord>, EtcdError> {
        let keys = self.journal_keys(false, within).await?;
        Ok(keys.iter().filter_map(|(_, key)| key.journal_record()).collect())
    }

    async fn journal_keys(
        &self,
        names_only: bool,
        within: Duration,
    ) -> Result<Vec<(String, StoredKey)>, EtcdError> {
        let ask = |etcd: Etcd, endpoint: Arc<Endpoint>| async move {
            let options = GetOptions::new().with_prefix();
            let options = if names_only { options.with_keys_only() } else { options };
            let prefix = etcd.keys().journal();
            let request = |mut client: Client| {
                let (prefix, options) = (prefix.clone(), options.clone());
                async move { client.get(prefix, Some(options)).await }
            };
            let answer = etcd.call(&endpoint, request).await?;
            let named =
                |key: &etcd_client::KeyValue| (String::from_utf8_lossy(key.key()).into_owned(), stored(key));
            Ok(answer.kvs().iter().map(named).collect())
        };
        self.hedged(within / 4, within, ask).await
    }
}
