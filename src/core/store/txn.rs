//! A transaction of etcd as a value: what is compared, what is changed, and how a lost answer is read. Pure.
//!
//! A transaction carries in its failure branch a read of one key that it changes. A transaction whose first answer was
//! lost is recognized by that key as done, and may be sent to a second endpoint without harm. A transaction without
//! [`Evidence`] is done again; that publishes my own record of a moment ago in the worst case.

use super::StoredKey;
use crate::model::LeaseId;

/// A comparison. All comparisons of a transaction must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key was last written in this revision; 0: the key is absent.
    Revision(String, i64),
    /// The key hangs on this lease.
    Lease(String, LeaseId),
    /// The key is absent.
    Absent(String),
    /// The key was not written after this revision.
    NotWrittenAfter(String, i64),
    /// No key that begins with this prefix was created after this revision.
    NoneCreatedAfter(String, i64),
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyChange {
    /// The key holds this text, on this lease or on none.
    Put(String, String, Option<LeaseId>),
    /// The key moves to another lease and keeps its value.
    MoveToLease(String, LeaseId),
    /// The key goes away.
    Delete(String),
}

/// What the key that is read shows if an earlier try of the same transaction was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Nothing shows it: a transaction that is lost the second time counts as lost.
    None,
    /// The key hangs on this lease.
    OnLease(LeaseId),
    /// The key holds this text.
    Holds(String),
    /// The key is absent.
    Absent,
}

/// All changes if all comparisons hold; otherwise a read of the key `path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    /// What must hold.
    pub when: Vec<Compare>,
    /// What is done then.
    pub then: Vec<KeyChange>,
    /// The key that is read otherwise.
    pub path: String,
    /// How that key shows that an earlier try was done.
    pub evidence: Evidence,
}

impl Evidence {
    /// Whether the key as it is `now` shows it.
    pub fn is_shown_by(&self, now: Option<&StoredKey>) -> bool {
        match self {
            Evidence::None => false,
            Evidence::OnLease(lease) => now.is_some_and(|key| key.lease == lease.0),
            Evidence::Holds(text) => now.is_some_and(|key| key.value == text.as_bytes()),
            Evidence::Absent => now.is_none(),
        }
    }
}

/// How a compare-and-swap ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cas {
    /// Written, in this revision of the store.
    Done(i64),
    /// The comparison failed: another writer was faster, or leadership was lost. Nothing was written.
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

/// Why a request gave no answer that counts, as far as anybody may conclude something from it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Definite: a lease that the request names does not exist, and nothing was written.
    #[error("requested lease not found")]
    LeaseNotFound,
    /// Definite: etcd takes no writes, for this reason, and nothing was written.
    #[error("etcd refuses writes: {0}")]
    NoSpace(String),
    /// The request may or may not have been done: read back.
    #[error("{0}")]
    Unknown(String),
}
