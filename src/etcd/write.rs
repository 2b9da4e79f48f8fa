//! Every change of a key, each a compare-and-swap with a name: the transactions of [`super::changes`], committed.
//!
//! Errors of all of them: [`EtcdError::LeaseNotFound`] and [`EtcdError::NoSpace`] are definite, everything else means
//! "read back".

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::Client;

use super::endpoints::{Endpoint, Etcd};
use super::keys::failover_key;
use super::{Cas, EtcdError};
use crate::model::{
    ClusterStatus, FailoverRequest, GenerationWrite, Grounds, HistoryLine, LeaseId, MemberName, MemberRecord,
    SyncRecord, Term, Timeline, UnfencedPrimary,
};

/// How long a revocation may take.
const REVOKE_WITHIN: Duration = Duration::from_secs(2);

impl Etcd {
    /// [`super::Keys::take_leadership`]; `Done` holds the number of the new [`Term`]. After `Lost` the whole cluster is
    /// read anew.
    pub async fn take_leadership(
        &self,
        name: &MemberName,
        lease: LeaseId,
        by: Grounds,
    ) -> Result<Cas, EtcdError> {
        let taken = self.commit(&self.keys().take_leadership(name, lease, by)).await;
        if taken == Ok(Cas::Lost) {
            self.look_again().notify_one();
        }
        taken
    }

    /// [`super::Keys::hand_over`]; `Done` holds the candidate's term. `Lost` also when the candidate's lease is gone.
    pub async fn hand_over(
        &self,
        term: Term,
        my_lease: LeaseId,
        to: &MemberName,
        to_lease: LeaseId,
        status: Option<&ClusterStatus>,
    ) -> Result<Cas, EtcdError> {
        match self.commit(&self.keys().hand_over((term, my_lease), to, to_lease, status)).await {
            Err(EtcdError::LeaseNotFound) => Ok(Cas::Lost),
            other => other,
        }
    }

    /// [`super::Keys::release_leadership`].
    pub async fn release_leadership(
        &self,
        term: Term,
        lease: LeaseId,
        status: Option<&ClusterStatus>,
    ) -> Result<Cas, EtcdError> {
        self.commit(&self.keys().release_leadership((term, lease), status)).await
    }

    /// [`super::Keys::move_leadership`] to the lease on which the key hangs: `Done` holds the new term.
    pub async fn reclaim_leadership(&self, term: Term, lease: LeaseId) -> Result<Cas, EtcdError> {
        self.commit(&self.keys().move_leadership((term, lease), lease)).await
    }

    /// [`super::Keys::publish_member`].
    ///
    /// # Errors
    /// [`EtcdError::LeaseNotFound`] when the lease is gone: wait for the next one.
    pub async fn publish_member(
        &self,
        name: &MemberName,
        lease: LeaseId,
        record: &MemberRecord,
    ) -> Result<Cas, EtcdError> {
        self.commit(&self.keys().publish_member(name, lease, record)).await
    }

    /// [`super::Keys::publish_status`].
    pub async fn publish_status(
        &self,
        term: Term,
        lease: LeaseId,
        status: &ClusterStatus,
    ) -> Result<Cas, EtcdError> {
        self.commit(&self.keys().publish_status((term, lease), status)).await
    }

    /// [`super::Keys::publish_history`].
    pub async fn publish_history(
        &self,
        term: Term,
        lease: LeaseId,
        lines: &[HistoryLine],
    ) -> Result<Cas, EtcdError> {
        self.commit(&self.keys().publish_history((term, lease), lines)).await
    }

    /// [`super::Keys::write_sync`].
    pub async fn write_sync(
        &self,
        term: Term,
        lease: LeaseId,
        record: Option<&SyncRecord>,
        if_mod_revision: i64,
    ) -> Result<Cas, EtcdError> {
        self.commit(&self.keys().write_sync((term, lease), record, if_mod_revision)).await
    }

    /// [`super::Keys::write_unfenced`]. The view is read anew.
    pub async fn write_unfenced(
        &self,
        held: Option<(Term, LeaseId)>,
        primaries: &BTreeMap<MemberName, UnfencedPrimary>,
        if_mod_revision: i64,
    ) -> Result<Cas, EtcdError> {
        let written = self.commit(&self.keys().write_unfenced(held, primaries, if_mod_revision)).await;
        self.look_again().notify_one();
        written
    }

    /// [`super::Keys::restore_initialize`].
    pub async fn restore_initialize(
        &self,
        term: Term,
        lease: LeaseId,
        system_id: u64,
    ) -> Result<Cas, EtcdError> {
        self.commit(&self.keys().restore_initialize((term, lease), system_id)).await
    }

    /// [`super::Keys::restore_config`]; `Lost` where the key holds a JSON object.
    pub async fn restore_config(&self, term: Term, lease: LeaseId, text: &str) -> Result<Cas, EtcdError> {
        let now = self.get(&self.keys().path("config")).await?;
        match self.keys().restore_config((term, lease), text, now.as_ref()) {
            Some(txn) => self.commit(&txn).await,
            None => Ok(Cas::Lost),
        }
    }

    /// [`super::Keys::claim_timeline`]. Gives the newest number that has to be passed over; `None` when another was
    /// faster, or leads.
    pub async fn claim_timeline(
        &self,
        term: Term,
        lease: LeaseId,
        above: Timeline,
    ) -> Result<Option<Timeline>, EtcdError> {
        let now = self.get(&self.keys().path("timeline")).await?;
        let (txn, passed_over) = self.keys().claim_timeline((term, lease), above, now.as_ref());
        Ok((self.commit(&txn).await? != Cas::Lost).then_some(passed_over))
    }

    /// [`super::Keys::win_initialize`].
    pub async fn win_initialize(&self, lease: LeaseId, seen: i64) -> Result<Cas, EtcdError> {
        self.commit(&self.keys().win_initialize(lease, seen)).await
    }

    /// [`super::Keys::finish_initialize`].
    pub async fn finish_initialize(
        &self,
        lease: LeaseId,
        system_id: u64,
        config_text: &str,
    ) -> Result<Cas, EtcdError> {
        self.commit(&self.keys().finish_initialize(lease, system_id, config_text)).await
    }

    /// [`super::Keys::free_initialize`].
    pub async fn free_initialize(&self, lease: LeaseId) -> Result<Cas, EtcdError> {
        self.commit(&self.keys().free_initialize(lease)).await
    }

    /// [`super::Keys::write_config`].
    pub async fn write_config(&self, text: &str, if_mod_revision: Option<i64>) -> Result<Cas, EtcdError> {
        self.commit(&self.keys().write_config(text, if_mod_revision)).await
    }

    /// [`super::Keys::write_failover`], where revision 0 means "only if nothing is asked for yet".
    pub async fn write_failover(
        &self,
        request: Option<&FailoverRequest>,
        if_mod_revision: Option<i64>,
    ) -> Result<Cas, EtcdError> {
        let mut if_mod_revision = if_mod_revision;
        if let (Some(0), Some(now)) = (if_mod_revision, self.get(&self.keys().path("failover")).await?) {
            // An empty request is as good as an absent key; a real one makes the comparison with 0 fail.
            let empty = failover_key(&String::from_utf8_lossy(&now.value), 0).is_none();
            if_mod_revision = Some(if empty { now.mod_revision } else { 0 });
        }
        self.commit(&self.keys().write_failover(request, if_mod_revision)).await
    }

    /// Cleans the request that was read at `mod_revision`.
    pub async fn clear_failover(&self, mod_revision: i64) -> Result<Cas, EtcdError> {
        self.write_failover(None, Some(mod_revision)).await
    }

    /// [`super::Keys::write_generation`]. `Lost` when what was read has changed since.
    pub async fn write_generation(&self, lease: LeaseId, write: &GenerationWrite) -> Result<Cas, EtcdError> {
        self.commit(&self.keys().write_generation(lease, write)).await
    }

    /// Ends a lease, and every key on it. One that is gone already is no error.
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
