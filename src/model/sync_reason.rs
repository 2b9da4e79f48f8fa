//! Reasons that concern synchronous replication.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::MemberName;

/// A part of [`super::Reason`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each variant is its own sentence, written out in Display")]
pub enum SyncReason {
    CrashedWithSuccessor,
    NotVouchedFor { leader: MemberName },
    Preparing,
    ClientsLockedOut { by: Vec<MemberName> },
}

impl fmt::Display for SyncReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyncReason::CrashedWithSuccessor => write!(
                f,
                "PostgreSQL crashed on this leader, and a synchronous standby has every acknowledged commit: releasing \
                 the leader key"
            ),
            SyncReason::NotVouchedFor { leader } => write!(
                f,
                "nobody leads, and the sync key, written while {leader} led, does not list this member: it may lack \
                 acknowledged commits (a manual failover promotes it anyway)"
            ),
            SyncReason::ClientsLockedOut { by } => {
                let by: Vec<&str> = by.iter().map(MemberName::as_str).collect();
                let by = if by.is_empty() { "a synchronous standby".to_owned() } else { by.join(", ") };
                write!(
                    f,
                    "clients are locked out: after a crash they must not read data that {by} has not confirmed \
                     (`edit-config -s synchronous_mode=off` admits clients now; data that they then read may be lost \
                     with this member)"
                )
            }
            SyncReason::Preparing => {
                write!(f, "preparing synchronous replication before the promotion")
            }
        }
    }
}
