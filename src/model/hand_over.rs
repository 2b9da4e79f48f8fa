//! A planned hand-over: its progress, and the reasons why it does not happen.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Failure, Ineligible, Lsn, MemberName};

/// The progress of a hand-over, with the member that is to lead; `None` where no member can lead or none is chosen yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each variant is its own sentence, written out in Display")]
pub enum HandOverStep {
    Choosing,
    Checkpoint { to: Option<MemberName> },
    Stopping { to: Option<MemberName> },
    Proving { to: Option<MemberName>, checkpoint: Lsn },
    Moving { to: Option<MemberName> },
}

impl fmt::Display for HandOverStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name =
            |to: &Option<MemberName>| to.as_ref().map_or("a candidate".to_owned(), ToString::to_string);
        match self {
            HandOverStep::Choosing => write!(f, "asking the candidates"),
            HandOverStep::Checkpoint { to } => write!(f, "checkpoint before handing over to {}", name(to)),
            HandOverStep::Stopping { to } => write!(f, "stopping PostgreSQL to hand over to {}", name(to)),
            HandOverStep::Proving { to, checkpoint } => {
                write!(f, "waiting until {} has replayed {checkpoint}", name(to))
            }
            HandOverStep::Moving { to } => write!(f, "moving the leader key to {}", name(to)),
        }
    }
}

/// Why a hand-over does not happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each variant is its own sentence, written out in Display")]
pub enum HandOverRefusal {
    TimeHadPassed,
    NobodyNamedInPause,
    NotInTime,
    /// Each possible candidate with the reason against it.
    Unfit(Vec<(MemberName, Ineligible)>),
    WritesRefused {
        why: String,
    },
    NothingWritten,
    CheckpointTooSlow,
    DidNotStop,
    UncleanStop,
    WentDown,
    Silent,
    RunsAgain,
    CandidateSilent {
        to: MemberName,
        seconds: u64,
    },
    CandidateReceivesNothing {
        to: MemberName,
        checkpoint: Lsn,
    },
    NotReplayed {
        to: MemberName,
        checkpoint: Lsn,
    },
    /// With the last failure, if one is known.
    NotMoved(Option<Failure>),
}

impl fmt::Display for HandOverRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandOverRefusal::TimeHadPassed => write!(f, "its time had passed when it was seen"),
            HandOverRefusal::NobodyNamedInPause => {
                write!(f, "no candidate was named and the cluster is paused")
            }
            HandOverRefusal::NotInTime => write!(f, "it was not done in time"),
            HandOverRefusal::Unfit(members) if members.is_empty() => {
                write!(f, "there is no member that could take over")
            }
            HandOverRefusal::Unfit(members) => {
                let faults: Vec<String> = members.iter().map(|(name, why)| format!("{name} {why}")).collect();
                write!(f, "{}", faults.join("; "))
            }
            HandOverRefusal::WritesRefused { why } => write!(f, "etcd takes no writes: {why}"),
            HandOverRefusal::NothingWritten => write!(f, "etcd took no write since it began"),
            HandOverRefusal::CheckpointTooSlow => write!(f, "the checkpoint before it took too long"),
            HandOverRefusal::DidNotStop => write!(f, "PostgreSQL did not stop"),
            HandOverRefusal::UncleanStop => write!(f, "PostgreSQL did not stop cleanly in time"),
            HandOverRefusal::WentDown => write!(f, "PostgreSQL went down"),
            HandOverRefusal::Silent => write!(f, "PostgreSQL does not answer"),
            HandOverRefusal::RunsAgain => write!(f, "PostgreSQL runs again"),
            HandOverRefusal::CandidateSilent { to, seconds } => {
                write!(f, "{to} has not answered for {seconds} s since PostgreSQL stopped")
            }
            HandOverRefusal::CandidateReceivesNothing { to, checkpoint } => {
                write!(f, "{to} receives nothing and lacks the shutdown checkpoint at {checkpoint}")
            }
            HandOverRefusal::NotReplayed { to, checkpoint } => {
                write!(f, "{to} did not replay the shutdown checkpoint at {checkpoint} in time")
            }
            HandOverRefusal::NotMoved(Some(failure)) => failure.fmt(f),
            HandOverRefusal::NotMoved(None) => write!(f, "the leader key could not be moved"),
        }
    }
}
