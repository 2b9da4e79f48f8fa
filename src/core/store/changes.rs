//! Every change of the cluster's keys as a transaction, with the comparisons that it rests on. Pure.

use std::collections::BTreeMap;

use super::keys::{
    ascii, compact, failover_text, history_text, is_object, recruit_text, sync_text, timeline_claim,
};
use super::txn::{Compare, Evidence, KeyChange, Txn};
use super::{Keys, StoredKey};
use crate::model::{
    ClusterStatus, Deposal, FailoverRequest, FailsafeMembers, GenerationWrite, HistoryLine, LeaseId,
    MemberName, MemberRecord, RecruitWrite, SyncRecord, TakeLeadershipPreconditions, Term, Timeline,
    UnfencedPrimary,
};

impl Keys {
    /// Takes leadership if the key is vacant, or held by the leader that `by` deposes, and the preconditions still
    /// hold. The revision of the transaction is the new [`Term`].
    ///
    /// A leader is deposed only while its attempt is the one in the key `recruit`, so that no promise for it has ended,
    /// and only over the revision of `sync` by which the promises were counted.
    pub fn take_leadership(&self, name: &MemberName, lease: LeaseId, by: TakeLeadershipPreconditions) -> Txn {
        let leader = self.path("leader");
        let since = |key| Compare::NotWrittenAfter(self.path(key), by.unlocked);
        let mut when = vec![
            Compare::Revision(self.path("sync"), by.sync),
            Compare::Revision(self.path("unfenced"), by.unfenced),
            // A leader without etcd has asked those in it, and nobody else.
            Compare::Revision(self.path("failsafe"), by.failsafe),
            since("timeline"),
            since("generation"),
            // Another member has made a new cluster since.
            since("initialize"),
        ];
        let recruit = self.path("recruit");
        let then = vec![
            KeyChange::Put(leader.clone(), name.as_str().to_owned(), Some(lease)),
            KeyChange::Delete(recruit.clone()),
        ];
        match by.deposes {
            None => when.extend([Compare::Absent(leader.clone()), since("status")]),
            Some(Deposal { term, attempt }) => {
                when.push(Compare::Revision(leader.clone(), term.0));
                when.push(Compare::Revision(recruit, attempt));
                // An operator has not asked for anything since, nor for a pause.
                let asked =
                    ["failover", "config"].map(|key| Compare::NotWrittenAfter(self.path(key), attempt));
                when.extend(asked);
            }
        }
        Txn { when, then, path: leader, evidence: Evidence::OnLease(lease) }
    }

    /// Begins or ends an attempt to replace the leader. The key is under the candidate's lease, and goes with it.
    pub fn write_recruit(&self, name: &MemberName, lease: LeaseId, write: &RecruitWrite) -> Txn {
        let path = self.path("recruit");
        match write {
            RecruitWrite::Begin { term, sync, over } => Txn {
                when: vec![
                    Compare::Revision(self.path("leader"), term.0),
                    Compare::Revision(self.path("sync"), *sync),
                    Compare::Revision(path.clone(), *over),
                ],
                then: vec![KeyChange::Put(path.clone(), recruit_text(name, *term), Some(lease))],
                path,
                evidence: Evidence::OnLease(lease),
            },
            RecruitWrite::Withdraw { attempt } => {
                replace(vec![Compare::Revision(path.clone(), *attempt)], path, None)
            }
        }
    }

    /// Moves leadership from my lease to the candidate's, and publishes the final position, in one transaction. Its
    /// revision is the candidate's term. It fails unless the candidate's member key has the lease `to_lease`.
    pub fn hand_over(
        &self,
        held: (Term, LeaseId),
        to: &MemberName,
        to_lease: LeaseId,
        status: Option<&ClusterStatus>,
    ) -> Txn {
        let leader = self.path("leader");
        let mut when = self.as_leader(held);
        when.push(Compare::Lease(self.member(to), to_lease));
        let mut then = vec![KeyChange::Put(leader.clone(), to.as_str().to_owned(), Some(to_lease))];
        then.extend(self.put_status(status));
        Txn { when, then, path: leader, evidence: Evidence::OnLease(to_lease) }
    }

    /// Gives leadership up, and publishes the final position.
    pub fn release_leadership(&self, held: (Term, LeaseId), status: Option<&ClusterStatus>) -> Txn {
        let leader = self.path("leader");
        let mut then = vec![KeyChange::Delete(leader.clone())];
        then.extend(self.put_status(status));
        Txn { when: self.as_leader(held), then, path: leader, evidence: Evidence::Absent }
    }

    /// Writes the leader key anew, under the same lease or another one of mine. The revision of the transaction is the
    /// new term; writes of the old term that are still in flight fail from then on.
    pub fn move_leadership(&self, held: (Term, LeaseId), to: LeaseId) -> Txn {
        let leader = self.path("leader");
        let then = vec![KeyChange::MoveToLease(leader.clone(), to)];
        Txn { when: self.as_leader(held), then, path: leader, evidence: Evidence::OnLease(to) }
    }

    /// Publishes my member record.
    pub fn publish_member(&self, name: &MemberName, lease: LeaseId, record: &MemberRecord) -> Txn {
        let path = self.member(name);
        let then = vec![KeyChange::Put(path.clone(), compact(record), Some(lease))];
        Txn { when: Vec::new(), then, path, evidence: Evidence::None }
    }

    /// Publishes position and slots, as leader.
    pub fn publish_status(&self, held: (Term, LeaseId), status: &ClusterStatus) -> Txn {
        self.put_as_leader(held, "status", compact(status))
    }

    /// Publishes the history of timelines, as leader.
    pub fn publish_history(&self, held: (Term, LeaseId), lines: &[HistoryLine]) -> Txn {
        self.put_as_leader(held, "history", history_text(lines))
    }

    /// Writes the system identifier again, as leader, whatever the value of the key.
    pub fn restore_initialize(&self, held: (Term, LeaseId), system_id: u64) -> Txn {
        self.put_as_leader(held, "initialize", system_id.to_string())
    }

    /// Writes, as leader, the members that can be promoted without losing an acknowledged commit, over the revision
    /// that was read; `None` deletes the key.
    pub fn write_sync(&self, held: (Term, LeaseId), record: Option<&SyncRecord>, over: i64) -> Txn {
        let path = self.path("sync");
        let mut when = self.as_leader(held);
        when.push(Compare::Revision(path.clone(), over));
        replace(when, path, record.map(sync_text))
    }

    /// Writes, as leader, the members that may take the leader key, over the revision that was read; deletes the key
    /// where any member may.
    pub fn write_failsafe(&self, held: (Term, LeaseId), members: &FailsafeMembers, over: i64) -> Txn {
        let path = self.path("failsafe");
        let mut when = self.as_leader(held);
        when.push(Compare::Revision(path.clone(), over));
        replace(when, path, (!members.is_empty()).then(|| compact(members)))
    }

    /// Writes the unfenced primaries over the revision that was read (0: there was no key), and only as leader where
    /// `held` is given. Deletes the key when none is left.
    pub fn write_unfenced(
        &self,
        held: Option<(Term, LeaseId)>,
        primaries: &BTreeMap<MemberName, UnfencedPrimary>,
        over: i64,
    ) -> Txn {
        let path = self.path("unfenced");
        let mut when = held.map(|held| self.as_leader(held)).unwrap_or_default();
        when.push(Compare::Revision(path.clone(), over));
        replace(when, path, (!primaries.is_empty()).then(|| compact(primaries)))
    }

    /// Restores the dynamic configuration, as leader, if the key in its state `now` is absent or has no JSON object;
    /// `None` otherwise.
    pub fn restore_config(&self, held: (Term, LeaseId), text: &str, now: Option<&StoredKey>) -> Option<Txn> {
        if now.is_some_and(|key| is_object(&String::from_utf8_lossy(&key.value))) {
            return None;
        }
        let path = self.path("config");
        let mut when = self.as_leader(held);
        when.push(Compare::Revision(path.clone(), revision(now)));
        Some(replace(when, path, Some(ascii(text))))
    }

    /// Claims the number of a timeline that is about to begin, as leader. It is above `above` and above all claims in
    /// the key `timeline` in its state `now`. Also returns the newest number that is skipped. The number stays claimed
    /// even if the leader dies before any member learns of the timeline.
    pub fn claim_timeline(
        &self,
        held: (Term, LeaseId),
        above: Timeline,
        now: Option<&StoredKey>,
    ) -> (Txn, Timeline) {
        let path = self.path("timeline");
        let claimed = now.and_then(|key| timeline_claim(&String::from_utf8_lossy(&key.value), 0));
        let passed_over = above.max(claimed.map_or(Timeline(0), |claim| claim.timeline));
        let mut when = self.as_leader(held);
        when.push(Compare::Revision(path.clone(), revision(now)));
        let text = passed_over.0.saturating_add(1).to_string();
        (replace(when, path, Some(text)), passed_over)
    }

    /// Claims the bootstrap of a new cluster: the key `initialize` becomes empty, under my lease, so that it goes away
    /// if I do. Fails if a member has registered after the revision `seen`, because that member may have data.
    pub fn win_initialize(&self, lease: LeaseId, seen: i64) -> Txn {
        let path = self.path("initialize");
        let when =
            vec![Compare::Absent(path.clone()), Compare::NoneCreatedAfter(self.path("members/"), seen)];
        let then = vec![KeyChange::Put(path.clone(), String::new(), Some(lease))];
        Txn { when, then, path, evidence: Evidence::OnLease(lease) }
    }

    /// Ends my bootstrap: writes system identifier and dynamic configuration, both without a lease. Fails if the
    /// bootstrap is no longer mine, or a member with data leads. Keys of a former cluster under the prefix are deleted,
    /// except for its unfenced primaries.
    pub fn finish_initialize(&self, lease: LeaseId, system_id: u64, config_text: &str) -> Txn {
        let path = self.path("initialize");
        let when = vec![Compare::Lease(path.clone(), lease), Compare::Absent(self.path("leader"))];
        let mut txn = replace(when, path, Some(system_id.to_string()));
        txn.then.push(KeyChange::Put(self.path("config"), ascii(config_text), None));
        let former = ["sync", "status", "history", "failover", "failsafe", "generation"];
        txn.then.extend(former.map(|key| KeyChange::Delete(self.path(key))));
        txn
    }

    /// Gives up my bootstrap, so that another member may try.
    pub fn free_initialize(&self, lease: LeaseId) -> Txn {
        let path = self.path("initialize");
        replace(vec![Compare::Lease(path.clone(), lease)], path, None)
    }

    /// Writes the dynamic configuration (the text of a JSON object), only over the revision that was read if one is
    /// given; 0 means "only if absent".
    pub fn write_config(&self, text: &str, over: Option<i64>) -> Txn {
        let path = self.path("config");
        let when = over.map(|revision| Compare::Revision(path.clone(), revision));
        replace(when.into_iter().collect(), path, Some(ascii(text)))
    }

    /// Requests a switchover or failover, or with `None` withdraws it; over the revision that was read if one is given.
    pub fn write_failover(&self, request: Option<&FailoverRequest>, over: Option<i64>) -> Txn {
        let path = self.path("failover");
        let when = over.map(|revision| Compare::Revision(path.clone(), revision));
        replace(when.into_iter().collect(), path, Some(failover_text(request)))
    }

    /// Begins a generation of the store over the revisions that were read, or confirms it as leader.
    pub fn write_generation(&self, lease: LeaseId, write: &GenerationWrite) -> Txn {
        let path = self.path("generation");
        match write {
            GenerationWrite::Begin { over: [leader, sync, old, left], record, unfenced } => {
                let when = [("leader", leader), ("sync", sync), ("generation", old), ("unfenced", left)];
                let when = when.map(|(key, revision)| Compare::Revision(self.path(key), *revision));
                let mut txn = replace(when.to_vec(), path, Some(compact(record)));
                let void = ["leader", "sync", "failover", "failsafe"];
                txn.then.extend(void.map(|key| KeyChange::Delete(self.path(key))));
                let left = || KeyChange::Put(self.path("unfenced"), compact(unfenced), None);
                txn.then.extend((!unfenced.is_empty()).then(left));
                txn
            }
            GenerationWrite::Settle { term, over, record } => {
                let mut when = self.as_leader((*term, lease));
                when.push(Compare::Revision(path.clone(), *over));
                replace(when, path, Some(compact(record)))
            }
        }
    }

    /// I am the leader in this term by this lease; never by name.
    fn as_leader(&self, (term, lease): (Term, LeaseId)) -> Vec<Compare> {
        let leader = self.path("leader");
        vec![Compare::Revision(leader.clone(), term.0), Compare::Lease(leader, lease)]
    }

    fn put_status(&self, status: Option<&ClusterStatus>) -> Option<KeyChange> {
        Some(KeyChange::Put(self.path("status"), compact(status?), None))
    }

    fn put_as_leader(&self, held: (Term, LeaseId), name: &str, text: String) -> Txn {
        let path = self.path(name);
        let then = vec![KeyChange::Put(path.clone(), text, None)];
        Txn { when: self.as_leader(held), then, path, evidence: Evidence::None }
    }
}

/// The key has the value `text` from then on, or is gone.
fn replace(when: Vec<Compare>, path: String, text: Option<String>) -> Txn {
    let (change, evidence) = match text {
        Some(text) => (KeyChange::Put(path.clone(), text.clone(), None), Evidence::Holds(text)),
        None => (KeyChange::Delete(path.clone()), Evidence::Absent),
    };
    Txn { when, then: vec![change], path, evidence }
}

fn revision(now: Option<&StoredKey>) -> i64 {
    now.map_or(0, |key| key.mod_revision)
}
