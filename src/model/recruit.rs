//! Recruiting: a standby collects promises to receive nothing more from the leader, and takes its place before the
//! lease ends.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{MemberName, Term};

/// The key `recruit`: an attempt to replace the leader of `term`. Its modification revision identifies it: as long as
/// the key has that revision, the attempt may succeed, and never again afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecruitKey {
    /// The member that is to lead.
    pub candidate: MemberName,
    /// The term of the leader that it replaces.
    pub term: Term,
    /// The revision of the key.
    pub attempt: i64,
}

/// A standby's promise: while the attempt may succeed, it receives nothing from the leader of `term`. What makes it
/// durable is the key itself: a supervisor that starts and sees the attempt has promised, as far as it can know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecruitPromise {
    /// The attempt.
    pub attempt: i64,
    /// The term of the leader that it left.
    pub term: Term,
    /// The member that is to lead.
    pub candidate: MemberName,
}

/// A write to the key `recruit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecruitWrite {
    /// Begin an attempt, if the leader still leads in `term`, and the keys `sync` and `recruit` have not changed.
    Begin {
        /// The leader's term.
        term: Term,
        /// The revision of `sync`.
        sync: i64,
        /// The revision of `recruit`, of an attempt to replace an earlier leader; zero: absent.
        over: i64,
    },
    /// End an attempt: it cannot succeed any more.
    Withdraw {
        /// The attempt.
        attempt: i64,
    },
}

/// What a member says of the leader's heartbeats to other members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Suspicion {
    /// It cannot tell.
    #[default]
    Unknown,
    /// It hears the leader of this term, or receives its WAL.
    Hears(Term),
    /// It neither hears the leader of this term nor receives its WAL.
    Suspects(Term),
}

/// The leader is replaced in this transaction although its lease has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deposal {
    /// Its term.
    pub term: Term,
    /// The attempt that has enough promises.
    pub attempt: i64,
}

/// A part of [`super::Reason`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each variant is its own sentence, written out in Display")]
pub enum RecruitReason {
    Begins { leader: MemberName },
    Promised { leader: MemberName, candidate: MemberName },
    Gathers { leader: MemberName },
    Deposes { leader: MemberName },
    Withdraws { leader: MemberName },
    CutOff,
}

impl fmt::Display for RecruitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecruitReason::Begins { leader } => {
                write!(
                    f,
                    "{leader} leads and no member hears it: asking the synchronous standbys to leave it"
                )
            }
            RecruitReason::Promised { leader, candidate } => write!(
                f,
                "promised {candidate} to receive nothing more from {leader}, whose heartbeats are missing"
            ),
            RecruitReason::Gathers { leader } => {
                write!(f, "waiting until enough synchronous standbys have left {leader}")
            }
            RecruitReason::Deposes { leader } => write!(
                f,
                "enough synchronous standbys have left {leader}, so nothing more can be acknowledged there: taking its \
                 place"
            ),
            RecruitReason::Withdraws { leader } => {
                write!(f, "the attempt to replace {leader} failed: following it again")
            }
            RecruitReason::CutOff => f.write_str(
                "cut off from etcd, from all members and from the synchronous standbys: another member may lead by \
                 now, so clients are not let in",
            ),
        }
    }
}
