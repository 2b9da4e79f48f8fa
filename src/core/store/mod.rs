//! etcd's keys and transactions as values: what each key holds, and each change with the comparisons it rests on. Pure.

mod changes;
mod journal;
mod keys;
mod txn;

pub use keys::{CorruptKey, Keys, StoredKey, failover_key};
pub use txn::{Cas, Compare, Evidence, KeyChange, Txn, WriteError};
