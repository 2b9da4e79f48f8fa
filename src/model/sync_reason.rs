//! Why, where synchronous replication is what it is about.

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
    Gated { by: Vec<MemberName> },
}

impl fmt::Display for SyncReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyncReason::CrashedWithSuccessor => write!(
                f,
                "PostgreSQL went down while I led, and a synchronous standby holds all that was acknowledged: giving \
                 the key away"
            ),
            SyncReason::NotVouchedFor { leader } => write!(
                f,
                "nobody leads, and the key sync, written when {leader} led, does not vouch for me: I may lack what was \
                 acknowledged (a failover by hand takes me all the same)"
            ),
            SyncReason::Gated { by } => {
                let by: Vec<&str> = by.iter().map(MemberName::as_str).collect();
                let by = if by.is_empty() { "a synchronous standby".to_owned() } else { by.join(", ") };
                write!(
                    f,
                    "clients are kept out: after a crash nothing may be read that {by} did not confirm yet \
                     (`edit-config -s synchronous_mode=off` lets them in now; what they then read may be lost with \
                     this member)"
                )
            }
            SyncReason::Preparing => {
                write!(f, "putting synchronous replication in order before the promotion")
            }
        }
    }
}
