//! What Postgres proves, what is said of it without the proofs, and for operators why it should not lead.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Moment;

/// A property that Postgres has to prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proof {
    /// The postmaster forks, and the new process answers.
    Connection,
    /// A write reaches the disk.
    Write,
}

/// What is stopped of a Postgres, of what a primary needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoppedPart {
    /// This process, as operators call it.
    Process(String),
    /// All processes.
    Whole,
}

/// The verdict that follows from the proofs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LivenessVerdict {
    /// Both proofs are recent, or no proof is needed: no Postgres that may be primary runs here.
    #[default]
    Alive,
    /// One proof is late. It has no consequences yet.
    Doubtful {
        /// The time of the last proof.
        since: Moment,
    },
    /// Postgres does not work.
    Dead(Death),
}

impl LivenessVerdict {
    /// Whether all of its processes have been stopped for too long.
    pub fn is_stopped_whole(&self) -> bool {
        matches!(self, LivenessVerdict::Dead(Death::StoppedWhole { .. }))
    }
}

/// The proof that a dead Postgres fails to give.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Death {
    /// It accepted no new connection.
    NoConnection {
        /// For this long.
        within: Duration,
        /// The error of the last attempt.
        trouble: String,
    },
    /// It flushed no write.
    NoWrite {
        /// For this long.
        within: Duration,
        /// The error of the last attempt.
        trouble: String,
    },
    /// One of its processes is stopped.
    Stopped {
        /// The process, as operators call it.
        process: String,
        /// For this long.
        within: Duration,
    },
    /// All of its processes are stopped.
    StoppedWhole {
        /// For this long.
        within: Duration,
    },
}

impl Death {
    /// Whether a restart may help where no other member can take over. It replaces a frozen process. It does not repair
    /// a disk, and the running Postgres can still be read from.
    pub fn may_be_mended_by_a_restart(&self) -> bool {
        match self {
            Death::NoConnection { .. } | Death::Stopped { .. } | Death::StoppedWhole { .. } => true,
            Death::NoWrite { .. } => false,
        }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Death::NoConnection { within, trouble } => {
                write!(f, "no new connection for {:.1} s: {trouble}", within.as_secs_f64())
            }
            Death::NoWrite { within, trouble } => {
                write!(f, "no flushed write for {:.1} s: {trouble}", within.as_secs_f64())
            }
            Death::Stopped { process, within } => {
                write!(f, "the {process} is stopped, for {:.1} s", within.as_secs_f64())
            }
            Death::StoppedWhole { within } => {
                write!(f, "all of its processes are stopped, for {:.1} s", within.as_secs_f64())
            }
        }
    }
}

/// Why this Postgres should not lead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unfit {
    /// It is dead, and is being stopped.
    Dead(Death),
    /// It is dead, and is kept running because no other member can lead.
    DeadAndAlone(Death),
    /// Its promotion does not finish.
    PromotionStuck,
    /// It runs, and ends every new connection with an error.
    TurnsAway,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::Dead(death) => write!(f, "PostgreSQL is unhealthy: {death}"),
            Unfit::DeadAndAlone(death) => {
                write!(
                    f,
                    "PostgreSQL is unhealthy, and it keeps serving because no other member can lead: {death}"
                )
            }
            Unfit::TurnsAway => write!(
                f,
                "PostgreSQL runs but rejects every connection, and another member can lead: releasing the leader key"
            ),
            Unfit::PromotionStuck => {
                write!(
                    f,
                    "the promotion makes no progress and another member can lead: releasing the leader key"
                )
            }
        }
    }
}

/// The verdict at one moment with the last proofs, as a tick sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LivenessFacts {
    /// The verdict.
    pub verdict: LivenessVerdict,
    /// When a new connection last answered.
    pub connected_at: Option<Moment>,
    /// When a write was last flushed.
    pub wrote_at: Option<Moment>,
}

impl LivenessFacts {
    /// The cause, if the verdict is dead.
    pub fn death(&self) -> Option<&Death> {
        match &self.verdict {
            LivenessVerdict::Dead(death) => Some(death),
            LivenessVerdict::Alive | LivenessVerdict::Doubtful { .. } => None,
        }
    }
}
