//! The journal's keys: one for each record, `journal/TERM/KIND`. Patroni and its tools pass over them.

use super::txn::{Compare, Evidence, KeyChange, Txn};
use super::{Keys, StoredKey};
use crate::model::JournalRecord;

/// So many records are kept, the newest.
const RECORDS_MAX: usize = 200;
/// So many are removed at once: etcd limits the changes of a transaction.
const REMOVED_AT_ONCE_MAX: usize = 100;

impl Keys {
    /// The prefix of the journal's keys.
    pub fn journal(&self) -> String {
        self.path("journal/")
    }

    /// Keeps a record, unless there is one of its name. It is no leader's privilege: a former leader records the end of
    /// its term.
    pub fn keep_record(&self, record: &JournalRecord) -> Txn {
        let (path, text) = (format!("{}{}", self.journal(), record.key()), record.text());
        let then = vec![KeyChange::Put(path.clone(), text.clone(), None)];
        Txn { when: vec![Compare::Absent(path.clone())], then, path, evidence: Evidence::Holds(text) }
    }

    /// Removes the oldest records, given the names of all, in order; `None` where there are not too many.
    pub fn prune_journal(&self, paths: &[String]) -> Option<Txn> {
        let surplus = paths.len().saturating_sub(RECORDS_MAX).min(REMOVED_AT_ONCE_MAX);
        let then: Vec<_> = paths[..surplus].iter().cloned().map(KeyChange::Delete).collect();
        let path = paths.first().filter(|_| !then.is_empty())?.clone();
        Some(Txn { when: Vec::new(), then, path, evidence: Evidence::None })
    }
}

impl StoredKey {
    /// The record that this key holds; `None`: another program, or a newer version, wrote it.
    pub fn journal_record(&self) -> Option<JournalRecord> {
        serde_json::from_slice(&self.value).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_records_are_removed_and_the_newest_stay() {
        let keys = Keys::new("/service/x");
        let paths: Vec<String> = (0..203).map(|term| format!("{}{term:019}/began", keys.journal())).collect();
        assert_eq!(keys.prune_journal(&paths[..200]), None);
        let removed = keys.prune_journal(&paths).expect("too many").then;
        assert_eq!(removed, paths[..3].iter().cloned().map(KeyChange::Delete).collect::<Vec<_>>());
    }
}
