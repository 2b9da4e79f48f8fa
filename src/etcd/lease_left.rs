//! How long a lease lasts yet, for whoever asks from outside.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::Client;

use super::EtcdError;
use super::endpoints::{Endpoint, Etcd};
use crate::model::LeaseId;

impl Etcd {
    /// How long etcd keeps a lease yet, and its TTL; `None`: it does not know it.
    ///
    /// # Errors
    /// No endpoint answered in time.
    pub async fn lease_left(
        &self,
        lease: LeaseId,
        within: Duration,
    ) -> Result<Option<(Duration, Duration)>, EtcdError> {
        let ask = |etcd: Etcd, endpoint: Arc<Endpoint>| async move {
            let request = |mut client: Client| async move { client.lease_time_to_live(lease.0, None).await };
            let answer = etcd.call(&endpoint, request).await?;
            let seconds = |number: i64| u64::try_from(number).ok().map(Duration::from_secs);
            Ok(seconds(answer.ttl()).zip(seconds(answer.granted_ttl())))
        };
        self.hedged(within / 4, within, ask).await
    }
}
