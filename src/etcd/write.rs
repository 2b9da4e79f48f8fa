//! Every change of a key, each a compare-and-swap with a name.
//!
//! A transaction carries in its failure branch a read of the key it changes. So a change whose first answer was lost
//! is recognized as done, and may be sent to a second endpoint without harm. The worst a straggler can do is to publish
//! my own record of a moment ago; every other one fails its comparison.
//! Errors of all of them: [`EtcdError::LeaseNotFound`] and [`EtcdError::NoSpace`] are definite, everything else means
//! "read back".

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, DeleteOptions, PutOptions, TxnOp};

use super::endpoints::{Endpoint, Etcd};
use super::keys::{ascii, compact, failover_key, failover_text, history_text, is_object, sync_text};
use super::swap::{delete, holds, put, unchanged};
use super::{Cas, EtcdError, StoredKey};
use crate::model::{
    ClusterStatus, FailoverRequest, GenerationWrite, Grounds, HistoryLine, LeaseId, MemberName, MemberRecord,
    SyncRecord, Term, Timeline, UnfencedPrimary,
};

/// How long a revocation may take.
const REVOKE_WITHIN: Duration = Duration::from_secs(2);

impl Etcd {
    /// Takes leadership if nobody has it and the grounds still hold. `Done` holds the number of the new [`Term`]; after
    /// `Lost` the whole cluster is read anew.
    pub async fn take_leadership(
        &self,
        name: &MemberName,
        lease: LeaseId,
        by: Grounds,
    ) -> Result<Cas, EtcdError> {
        let leader = self.keys().path("leader");
        let sync = unchanged(&self.keys().path("sync"), by.sync);
        let unfenced = unchanged(&self.keys().path("unfenced"), by.unfenced);
        let since = |key| Compare::mod_revision(self.keys().path(key), CompareOp::Less, by.unlocked + 1);
        let free = Compare::create_revision(leader.clone(), CompareOp::Equal, 0);
        let when = vec![free, sync, unfenced, since("status"), since("timeline"), since("generation")];
        let then = vec![put(&leader, name.as_str(), Some(lease))];
        let taken = self.swap(when, then, &leader, |now| now.is_some_and(|key| key.lease == lease.0)).await;
        if taken == Ok(Cas::Lost) {
            self.look_again().notify_one();
        }
        taken
    }

    /// Moves leadership from my lease to the candidate's, and publishes the final position, in one step. `Done` holds
    /// the candidate's term. `Lost` also when the candidate's member key no longer hangs on `to_lease`.
    pub async fn hand_over(
        &self,
        term: Term,
        my_lease: LeaseId,
        to: &MemberName,
        to_lease: LeaseId,
        status: Option<&ClusterStatus>,
    ) -> Result<Cas, EtcdError> {
        let leader = self.keys().path("leader");
        let mut when = self.as_leader(term, my_lease);
        when.push(Compare::lease(self.keys().member(to), CompareOp::Equal, to_lease.0));
        let mut then = vec![put(&leader, to.as_str(), Some(to_lease))];
        then.extend(self.put_status(status));
        let moved = |now: Option<&StoredKey>| now.is_some_and(|key| key.lease == to_lease.0);
        match self.swap(when, then, &leader, moved).await {
            Err(EtcdError::LeaseNotFound) => Ok(Cas::Lost),
            other => other,
        }
    }

    /// Gives leadership up to whoever is next, and publishes the final position.
    pub async fn release_leadership(
        &self,
        term: Term,
        lease: LeaseId,
        status: Option<&ClusterStatus>,
    ) -> Result<Cas, EtcdError> {
        let leader = self.keys().path("leader");
        let mut then = vec![delete(&leader)];
        then.extend(self.put_status(status));
        self.swap(self.as_leader(term, lease), then, &leader, |now| now.is_none()).await
    }

    /// Writes the leader key anew under the lease it hangs on: `Done` holds the new term, and whatever was sent in the
    /// old one and is still on its way is `Lost` from then on.
    pub async fn reclaim_leadership(&self, term: Term, lease: LeaseId) -> Result<Cas, EtcdError> {
        self.move_leadership(term, lease, lease).await
    }

    /// Moves the leader key to another lease of mine, its value as it is. `Done` holds the new term.
    pub(super) async fn move_leadership(
        &self,
        term: Term,
        from: LeaseId,
        to: LeaseId,
    ) -> Result<Cas, EtcdError> {
        let leader = self.keys().path("leader");
        let options = PutOptions::new().with_lease(to.0).with_ignore_value();
        let then = vec![TxnOp::put(leader.clone(), "", Some(options))];
        let moved = |now: Option<&StoredKey>| now.is_some_and(|key| key.lease == to.0);
        self.swap(self.as_leader(term, from), then, &leader, moved).await
    }

    /// Publishes my member record; gives the revision.
    ///
    /// # Errors
    /// [`EtcdError::LeaseNotFound`] when the lease is gone: wait for the next one.
    pub async fn publish_member(
        &self,
        name: &MemberName,
        lease: LeaseId,
        record: &MemberRecord,
    ) -> Result<Cas, EtcdError> {
        let member = self.keys().member(name);
        let then = vec![put(&member, &compact(record), Some(lease))];
        self.swap(Vec::new(), then, &member, |_| false).await
    }

    /// Publishes position and slots, as leader.
    pub async fn publish_status(
        &self,
        term: Term,
        lease: LeaseId,
        status: &ClusterStatus,
    ) -> Result<Cas, EtcdError> {
        self.put_as_leader(term, lease, "status", &compact(status)).await
    }

    /// Publishes the history of timelines, as leader.
    pub async fn publish_history(
        &self,
        term: Term,
        lease: LeaseId,
        lines: &[HistoryLine],
    ) -> Result<Cas, EtcdError> {
        self.put_as_leader(term, lease, "history", &history_text(lines)).await
    }

    /// Writes who may be promoted without losing an acknowledged commit, as leader, over the revision that was read;
    /// `None` deletes it.
    pub async fn write_sync(
        &self,
        term: Term,
        lease: LeaseId,
        record: Option<&SyncRecord>,
        if_mod_revision: i64,
    ) -> Result<Cas, EtcdError> {
        let sync = self.keys().path("sync");
        let mut when = self.as_leader(term, lease);
        when.push(unchanged(&sync, if_mod_revision));
        match record.map(sync_text) {
            Some(text) => self.swap(when, vec![put(&sync, &text, None)], &sync, holds(&text)).await,
            None => self.swap(when, vec![delete(&sync)], &sync, |now| now.is_none()).await,
        }
    }

    /// Writes which primaries run without a fence, over the revision that was read (0: there was no key), and only as
    /// leader where `held` is given; deletes the key where none is left. The view is read anew.
    pub async fn write_unfenced(
        &self,
        held: Option<(Term, LeaseId)>,
        primaries: &BTreeMap<MemberName, UnfencedPrimary>,
        if_mod_revision: i64,
    ) -> Result<Cas, EtcdError> {
        let path = self.keys().path("unfenced");
        let mut when = held.map(|(term, lease)| self.as_leader(term, lease)).unwrap_or_default();
        when.push(unchanged(&path, if_mod_revision));
        let text = compact(primaries);
        let written = match primaries.is_empty() {
            true => self.swap(when, vec![delete(&path)], &path, |now| now.is_none()).await,
            false => self.swap(when, vec![put(&path, &text, None)], &path, holds(&text)).await,
        };
        self.look_again().notify_one();
        written
    }

    /// Writes the system identifier again, as leader, whatever the key holds.
    pub async fn restore_initialize(
        &self,
        term: Term,
        lease: LeaseId,
        system_id: u64,
    ) -> Result<Cas, EtcdError> {
        self.put_as_leader(term, lease, "initialize", &system_id.to_string()).await
    }

    /// Writes the dynamic configuration again, as leader, where the key is absent or holds no JSON object; otherwise
    /// `Lost`.
    pub async fn restore_config(&self, term: Term, lease: LeaseId, text: &str) -> Result<Cas, EtcdError> {
        let config = self.keys().path("config");
        let now = self.get(&config).await?;
        if now.as_ref().is_some_and(|key| is_object(&String::from_utf8_lossy(&key.value))) {
            return Ok(Cas::Lost);
        }
        let mut when = self.as_leader(term, lease);
        when.push(unchanged(&config, now.map_or(0, |key| key.mod_revision)));
        let text = ascii(text);
        self.swap(when, vec![put(&config, &text, None)], &config, holds(&text)).await
    }

    /// Claims the number of a timeline that is about to begin, above `above` and above all that were ever claimed, as
    /// leader. Gives the newest number that has to be passed over; `None` when another was faster, or leads. A history
    /// whose leader died before anybody heard of it has its number for itself all the same.
    pub async fn claim_timeline(
        &self,
        term: Term,
        lease: LeaseId,
        above: Timeline,
    ) -> Result<Option<Timeline>, EtcdError> {
        let path = self.keys().path("timeline");
        let now = self.get(&path).await?;
        let claimed = now.as_ref().and_then(|key| String::from_utf8_lossy(&key.value).trim().parse().ok());
        let passed_over = above.max(Timeline(claimed.unwrap_or(0)));
        let text = passed_over.0.saturating_add(1).to_string();
        let mut when = self.as_leader(term, lease);
        when.push(unchanged(&path, now.map_or(0, |key| key.mod_revision)));
        let claimed = self.swap(when, vec![put(&path, &text, None)], &path, holds(&text)).await?;
        Ok((claimed != Cas::Lost).then_some(passed_over))
    }

    /// Claims the bootstrap of a cluster that never was: the key `initialize` becomes empty, on my lease, so that it
    /// goes away if I do.
    /// Not where a member has registered after the revision `seen`: it may have data.
    pub async fn win_initialize(&self, lease: LeaseId, seen: i64) -> Result<Cas, EtcdError> {
        let (initialize, members) = (self.keys().path("initialize"), self.keys().path("members/"));
        let when = vec![
            Compare::create_revision(initialize.clone(), CompareOp::Equal, 0),
            Compare::create_revision(members, CompareOp::Less, seen + 1).with_prefix(),
        ];
        let then = vec![put(&initialize, "", Some(lease))];
        self.swap(when, then, &initialize, |now| now.is_some_and(|key| key.lease == lease.0)).await
    }

    /// Ends my bootstrap: system identifier and dynamic configuration, both for good. `Lost` when it is no longer mine.
    pub async fn finish_initialize(
        &self,
        lease: LeaseId,
        system_id: u64,
        config_text: &str,
    ) -> Result<Cas, EtcdError> {
        let (initialize, config) = (self.keys().path("initialize"), self.keys().path("config"));
        let system_id = system_id.to_string();
        let when = vec![Compare::lease(initialize.clone(), CompareOp::Equal, lease.0)];
        let then = vec![put(&initialize, &system_id, None), put(&config, &ascii(config_text), None)];
        self.swap(when, then, &initialize, holds(&system_id)).await
    }

    /// Gives up my bootstrap, so that another member may try.
    pub async fn free_initialize(&self, lease: LeaseId) -> Result<Cas, EtcdError> {
        let initialize = self.keys().path("initialize");
        let when = vec![Compare::lease(initialize.clone(), CompareOp::Equal, lease.0)];
        self.swap(when, vec![delete(&initialize)], &initialize, |now| now.is_none()).await
    }

    /// Writes the dynamic configuration (the text of a JSON object), only over the revision that was read if one is
    /// given; 0 means "only if absent".
    pub async fn write_config(&self, text: &str, if_mod_revision: Option<i64>) -> Result<Cas, EtcdError> {
        let (config, text) = (self.keys().path("config"), ascii(text));
        let when = if_mod_revision.map(|revision| unchanged(&config, revision));
        let then = vec![put(&config, &text, None)];
        self.swap(when.into_iter().collect(), then, &config, holds(&text)).await
    }

    /// Asks for a switchover or failover, or with `None` takes it back; over the revision that was read if one is
    /// given, where 0 means "only if nothing is asked for yet".
    pub async fn write_failover(
        &self,
        request: Option<&FailoverRequest>,
        if_mod_revision: Option<i64>,
    ) -> Result<Cas, EtcdError> {
        let (failover, text) = (self.keys().path("failover"), failover_text(request));
        let mut if_mod_revision = if_mod_revision;
        if let (Some(0), Some(now)) = (if_mod_revision, self.get(&failover).await?) {
            // An empty request is as good as an absent key; a real one makes the comparison with 0 fail.
            let empty = failover_key(&String::from_utf8_lossy(&now.value), 0).is_none();
            if_mod_revision = Some(if empty { now.mod_revision } else { 0 });
        }
        let when = if_mod_revision.map(|revision| unchanged(&failover, revision));
        let then = vec![put(&failover, &text, None)];
        self.swap(when.into_iter().collect(), then, &failover, holds(&text)).await
    }

    /// Cleans the request that was read at `mod_revision`.
    pub async fn clear_failover(&self, mod_revision: i64) -> Result<Cas, EtcdError> {
        self.write_failover(None, Some(mod_revision)).await
    }

    /// Begins a generation of the store, or confirms it as leader. `Lost` when what was read has changed since.
    pub async fn write_generation(&self, lease: LeaseId, write: &GenerationWrite) -> Result<Cas, EtcdError> {
        let path = |key| self.keys().path(key);
        let generation = path("generation");
        let (when, record, deleted) = match write {
            GenerationWrite::Begin { over: [leader, sync, old, left], record, unfenced } => {
                let when = [("leader", leader), ("sync", sync), ("generation", old), ("unfenced", left)];
                let when = when.map(|(key, revision)| unchanged(&path(key), *revision)).to_vec();
                let mut then = ["leader", "sync", "failover"].map(|key| delete(&path(key))).to_vec();
                then.extend((!unfenced.is_empty()).then(|| put(&path("unfenced"), &compact(unfenced), None)));
                (when, record, then)
            }
            GenerationWrite::Settle { term, over, record } => {
                let mut when = self.as_leader(*term, lease);
                when.push(unchanged(&generation, *over));
                (when, record, Vec::new())
            }
        };
        let text = compact(record);
        let then = [vec![put(&generation, &text, None)], deleted].concat();
        self.swap(when, then, &generation, holds(&text)).await
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

    /// Deletes a member's key.
    pub async fn remove_member(&self, name: &MemberName) -> Result<Cas, EtcdError> {
        let member = self.keys().member(name);
        self.swap(Vec::new(), vec![delete(&member)], &member, |_| false).await
    }

    /// Deletes every key of the cluster (`matriarch remove`).
    pub async fn remove_cluster(&self) -> Result<Cas, EtcdError> {
        let base = self.keys().base().to_owned();
        let options = DeleteOptions::new().with_prefix();
        let then = vec![TxnOp::delete(base.clone(), Some(options))];
        self.swap(Vec::new(), then, &base, |_| false).await
    }

    /// I am the leader, of this term, by this lease; never by name.
    fn as_leader(&self, term: Term, lease: LeaseId) -> Vec<Compare> {
        let leader = self.keys().path("leader");
        vec![unchanged(&leader, term.0), Compare::lease(leader, CompareOp::Equal, lease.0)]
    }

    fn put_status(&self, status: Option<&ClusterStatus>) -> Option<TxnOp> {
        Some(put(&self.keys().path("status"), &compact(status?), None))
    }

    async fn put_as_leader(
        &self,
        term: Term,
        lease: LeaseId,
        name: &str,
        text: &str,
    ) -> Result<Cas, EtcdError> {
        let path = self.keys().path(name);
        let then = vec![put(&path, text, None)];
        self.swap(self.as_leader(term, lease), then, &path, |_| false).await
    }
}
