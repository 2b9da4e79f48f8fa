//! Reasons of a member without data in a cluster without a leader.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::MemberName;

/// A part of [`super::Reason`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each variant is its own sentence, written out in Display")]
pub enum NoDataReason {
    NewCluster,
    AwaitingMembers { seconds: u64 },
    BootstrapElsewhere,
    NobodyToClone,
    ReplicaOfNobody,
    CloneInterrupted,
    DataElsewhere { member: MemberName },
    MayNotBootstrap,
}

impl fmt::Display for NoDataReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoDataReason::NewCluster => write!(f, "there is no cluster yet: creating it"),
            NoDataReason::AwaitingMembers { seconds } => write!(
                f,
                "there is no cluster yet: creating it when no other member has registered for {seconds} s \
                 (bootstrap.wait_for_members)"
            ),
            NoDataReason::BootstrapElsewhere => write!(
                f,
                "another member is creating the cluster (if none is, delete the key initialize in etcd to let another \
                 member create it)"
            ),
            NoDataReason::NobodyToClone => write!(
                f,
                "no data here, and nobody leads: waiting for a leader to clone from (`matriarch list` shows what keeps \
                 the others from leading; if no member has data any more, delete the keys of the cluster in etcd, and a \
                 new one is created)"
            ),
            NoDataReason::ReplicaOfNobody => write!(
                f,
                "no data here, and nobody leads: making a replica by the methods that need no leader"
            ),
            NoDataReason::CloneInterrupted => write!(
                f,
                "a clone was interrupted here, and nobody leads: after one ttl, what was here before the clone is put back"
            ),
            NoDataReason::DataElsewhere { member } => write!(
                f,
                "no data here, and etcd knows no cluster, but {member} registered with data: waiting until it leads \
                 (`matriarch list` shows why it does not; to discard its data, stop {member}, move its data directory \
                 away, and restart this member)"
            ),
            NoDataReason::MayNotBootstrap => write!(
                f,
                "there is no cluster yet, and this member may not create one: remove its tag nofailover, or give it a \
                 bootstrap section, and restart it"
            ),
        }
    }
}
