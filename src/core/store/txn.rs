//! A transaction of etcd as a value: its comparisons, its changes, and how to find out the outcome after a lost answer.
//! Pure.
//!
//! The failure branch of a transaction reads one key that the transaction changes. If the first answer is lost, that
//! key shows whether the transaction was done, so it may be sent to a second endpoint without harm. A transaction
//! without [`Evidence`] is repeated; at worst that publishes this member's own previous record again.

use super::StoredKey;
use crate::model::LeaseId;

/// A comparison. All comparisons of a transaction must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key was last written in this revision; 0: the key is absent.
    Revision(String, i64),
    /// The key has this lease.
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
    /// The key gets this value, with this lease or with none.
    Put(String, String, Option<LeaseId>),
    /// The key gets another lease and keeps its value.
    MoveToLease(String, LeaseId),
    /// The key is deleted.
    Delete(String),
}

/// The evidence in the key that is read that an earlier attempt of the same transaction succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// There is none: a transaction that fails the second time counts as lost.
    None,
    /// The key has this lease.
    OnLease(LeaseId),
    /// The key has this value.
    Holds(String),
    /// The key is absent.
    Absent,
}

/// All changes if all comparisons hold; otherwise a read of the key `path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    /// The comparisons.
    pub when: Vec<Compare>,
    /// The changes.
    pub then: Vec<KeyChange>,
    /// The key to read otherwise.
    pub path: String,
    /// The evidence in that key that an earlier attempt succeeded.
    pub evidence: Evidence,
}

impl Evidence {
    /// Whether the key in its state `now` shows it.
    pub fn is_shown_by(&self, now: Option<&StoredKey>) -> bool {
        match self {
            Evidence::None => false,
            Evidence::OnLease(lease) => now.is_some_and(|key| key.lease == lease.0),
            Evidence::Holds(text) => now.is_some_and(|key| key.value == text.as_bytes()),
            Evidence::Absent => now.is_none(),
        }
    }
}

/// The result of a compare-and-swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cas {
    /// Written, in this revision of the store.
    Done(i64),
    /// The comparison failed: another writer was faster, or leadership was lost. Nothing was written.
    Lost,
}

impl Cas {
    /// The revision of a write that succeeded.
    pub fn revision(self) -> Option<i64> {
        match self {
            Cas::Done(revision) => Some(revision),
            Cas::Lost => None,
        }
    }
}

/// Why a request to etcd gave no usable answer, as far as that is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Certain: a lease that the request names does not exist, and nothing was written.
    #[error("requested lease not found")]
    LeaseNotFound,
    /// Certain: etcd refuses writes, for this reason, and nothing was written.
    #[error("etcd refuses writes: {0}")]
    NoSpace(String),
    /// Uncertain: the request may or may not have been carried out; a read shows which.
    #[error("{0}")]
    Unknown(String),
}
