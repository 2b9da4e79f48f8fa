//! Everything that can wake the loop, on one list.

use crate::model::{Finished, LeaderBranch, MemberName, PeerAnswer};

/// What happened outside the loop. Changes of the lease, the view and the postmaster come through their own
/// watches, orders of the rim through theirs; all of them do the same thing: run a tick.
#[derive(Debug)]
pub(super) enum Event {
    /// A long action ended.
    JobFinished(Finished),
    /// A member answered, or failed to.
    PeerAnswered(MemberName, PeerAnswer),
    /// The leader told its history, or failed to.
    LeaderBranchTold(LeaderBranch),
    /// The status could not be written: write it again.
    StatusNotPublished,
    /// Whom the standby follows could not be written: compare and follow again.
    NotFollowed,
    /// A file that holds a secret holds another one.
    SecretsChanged,
    /// A rim's request wants a look into Postgres.
    LookWanted,
}
