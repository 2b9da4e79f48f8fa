//! Reasons that concern standby clusters.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::MemberName;

/// A part of [`super::Reason`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each variant is its own sentence, written out in Display")]
pub enum StandbyClusterReason {
    StoppingPrimary,
    Starting,
    Leads { remote: MemberName },
    LeadsBehindArchive,
    CopyingRemote,
}

impl fmt::Display for StandbyClusterReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StandbyClusterReason::StoppingPrimary => write!(
                f,
                "this is a standby cluster now (standby_cluster): stopping the primary here, to start it as a standby"
            ),
            StandbyClusterReason::Starting => {
                write!(f, "starting PostgreSQL as a standby of the archive (standby_cluster)")
            }
            StandbyClusterReason::Leads { remote } => {
                write!(f, "leading a standby cluster: PostgreSQL follows {remote}")
            }
            StandbyClusterReason::LeadsBehindArchive => {
                write!(f, "leading a standby cluster: PostgreSQL reads the archive")
            }
            StandbyClusterReason::CopyingRemote => {
                write!(f, "no data here, and nobody leads: copying the remote primary")
            }
        }
    }
}
