//! The replicated state of etcd: keys with their revisions, leases, and every change as an event.

use std::collections::BTreeMap;
use std::time::Duration;

use matriarch::core::list_watch::KeyEvent;
use matriarch::core::store::{Compare, KeyChange, StoredKey, Txn};

use crate::sim::clock::At;

#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) ttl: Duration,
    /// Not before that is it taken away.
    pub(crate) expires: At,
}

/// The request names a lease that does not exist; nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseNotFound;

#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    pub(crate) revision: i64,
    pub(crate) keys: BTreeMap<String, StoredKey>,
    pub(crate) leases: BTreeMap<i64, Lease>,
    pub(crate) events: Vec<KeyEvent>,
    /// Watches that begin before this revision are refused.
    pub(crate) compacted: i64,
    next_lease: i64,
}

impl Store {
    /// The revision since which a key has been there without a break.
    pub(crate) fn there_since(&self, path: &str) -> Option<i64> {
        let of_it = self.events.iter().filter(|event| event.path == path);
        of_it.fold(None, |since, event| event.now.as_ref().and(since.or(Some(event.revision))))
    }

    fn holds(&self, compare: &Compare) -> bool {
        let key = |path: &String| self.keys.get(path);
        match compare {
            Compare::Revision(path, revision) => key(path).map_or(0, |key| key.mod_revision) == *revision,
            Compare::Lease(path, lease) => key(path).is_some_and(|key| key.lease == lease.0),
            Compare::Absent(path) => key(path).is_none(),
            Compare::NotWrittenAfter(path, revision) => {
                key(path).is_none_or(|key| key.mod_revision <= *revision)
            }
            Compare::NoneCreatedAfter(prefix, revision) => {
                let mut created = self.keys.keys().filter(|path| path.starts_with(prefix));
                created.all(|path| self.there_since(path).is_none_or(|since| since <= *revision))
            }
        }
    }

    /// True with the new revision when it was done; else what is read.
    pub(crate) fn txn(&mut self, txn: &Txn) -> Result<(bool, Option<StoredKey>), LeaseNotFound> {
        if !txn.when.iter().all(|compare| self.holds(compare)) {
            return Ok((false, self.keys.get(&txn.path).cloned()));
        }
        let named = txn.then.iter().filter_map(|change| match change {
            KeyChange::Put(_, _, lease) => *lease,
            KeyChange::MoveToLease(_, lease) => Some(*lease),
            KeyChange::Delete(_) => None,
        });
        for lease in named {
            if !self.leases.contains_key(&lease.0) {
                return Err(LeaseNotFound);
            }
        }
        self.revision += 1;
        for change in &txn.then {
            self.change(change);
        }
        Ok((true, self.keys.get(&txn.path).cloned()))
    }

    fn change(&mut self, change: &KeyChange) {
        let revision = self.revision;
        let (path, now) = match change {
            KeyChange::Put(path, text, lease) => {
                let (value, lease) = (text.clone().into_bytes(), lease.map_or(0, |lease| lease.0));
                let create_revision = self.keys.get(path).map_or(revision, |old| old.create_revision);
                (path, Some(StoredKey { value, lease, mod_revision: revision, create_revision }))
            }
            KeyChange::MoveToLease(path, lease) => {
                let Some(old) = self.keys.get(path) else { return };
                (path, Some(StoredKey { lease: lease.0, mod_revision: revision, ..old.clone() }))
            }
            KeyChange::Delete(path) if !self.keys.contains_key(path) => return,
            KeyChange::Delete(path) => (path, None),
        };
        match &now {
            Some(key) => drop(self.keys.insert(path.clone(), key.clone())),
            None => drop(self.keys.remove(path)),
        }
        self.events.push(KeyEvent { revision, path: path.clone(), now });
    }

    pub(crate) fn grant(&mut self, ttl: Duration, expires: At) -> i64 {
        self.next_lease += 1;
        self.leases.insert(self.next_lease, Lease { ttl, expires });
        self.next_lease
    }

    /// Takes a lease away with every key on it; false if there is none.
    pub(crate) fn revoke(&mut self, lease: i64) -> bool {
        if self.leases.remove(&lease).is_none() {
            return false;
        }
        let hanging: Vec<String> =
            self.keys.iter().filter(|(_, key)| key.lease == lease).map(|(path, _)| path.clone()).collect();
        if !hanging.is_empty() {
            self.revision += 1;
            for path in hanging {
                self.change(&KeyChange::Delete(path));
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use matriarch::core::store::Evidence;
    use matriarch::model::LeaseId;

    use super::*;

    #[test]
    fn a_lease_takes_its_keys_along_and_a_comparison_guards() {
        let mut store = Store::default();
        let lease = store.grant(Duration::from_secs(1), At(0));
        let put = KeyChange::Put("leader".to_owned(), "a".to_owned(), Some(LeaseId(lease)));
        let take = |put: &KeyChange| Txn {
            when: vec![Compare::Absent("leader".to_owned())],
            then: vec![put.clone()],
            path: "leader".to_owned(),
            evidence: Evidence::None,
        };
        assert!(store.txn(&take(&put)).expect("the lease is there").0);
        assert!(!store.txn(&take(&put)).expect("the lease is there").0);
        assert!(store.revoke(lease) && store.keys.is_empty() && !store.revoke(lease));
        assert_eq!(store.txn(&take(&put)), Err(LeaseNotFound));
        assert_eq!(store.events.len(), 2);
    }
}
