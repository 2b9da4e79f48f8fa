//! Writes of more than one transaction: a failover request, and the end of a lease.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, DeleteOptions};

use super::EtcdError;
use super::endpoints::{Endpoint, Etcd};
use crate::core::store::{Cas, failover_key};
use crate::model::{FailoverRequest, LeaseId};

/// How long a revocation may take.
const REVOKE_WITHIN: Duration = Duration::from_secs(2);

impl Etcd {
    /// [`crate::core::store::Keys::write_failover`], where revision 0 means "only if there is no request yet".
    ///
    /// # Errors
    /// As [`Etcd::commit`].
    pub async fn write_failover(
        &self,
        request: Option<&FailoverRequest>,
        if_mod_revision: Option<i64>,
    ) -> Result<Cas, EtcdError> {
        let mut if_mod_revision = if_mod_revision;
        if let (Some(0), Some(now)) = (if_mod_revision, self.get(&self.keys().path("failover")).await?) {
            // An empty request counts as an absent key; a real one makes the comparison with 0 fail.
            let empty = failover_key(&String::from_utf8_lossy(&now.value), 0).is_none();
            if_mod_revision = Some(if empty { now.mod_revision } else { 0 });
        }
        self.commit(&self.keys().write_failover(request, if_mod_revision)).await
    }

    /// Deletes every key of the cluster; returns how many there were. A lost answer may hide a success.
    ///
    /// # Errors
    /// No endpoint confirmed it in time.
    pub async fn delete_all(&self, within: Duration) -> Result<i64, EtcdError> {
        let ask = |etcd: Etcd, endpoint: Arc<Endpoint>| async move {
            let prefix = etcd.keys().base();
            let request = |mut client: Client| async move {
                client.delete(prefix, Some(DeleteOptions::new().with_prefix())).await
            };
            etcd.call(&endpoint, request).await.map(|answer| answer.deleted())
        };
        self.hedged(within / 2, within, ask).await
    }

    /// Revokes a lease, and with it every key under it. A lease that is gone already is no error.
    ///
    /// # Errors
    /// When etcd did not confirm it; the lease then expires.
    pub async fn revoke_lease(&self, lease: LeaseId) -> Result<(), EtcdError> {
        let ask = |etcd: Etcd, endpoint: Arc<Endpoint>| async move {
            let request = |mut client: Client| async move { client.lease_revoke(lease.0).await };
            etcd.call(&endpoint, request).await.map(|_| ())
        };
        match self.hedged(REVOKE_WITHIN / 8, REVOKE_WITHIN, ask).await {
            Err(EtcdError::LeaseNotFound) => Ok(()),
            other => other,
        }
    }
}
