//! The requests of an operator to this member, and the replies.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    FailsafeQuestion, FailsafeRefusal, HandOverRefusal, Ineligible, MemberName, PeerAnswer, Reason,
    ReinitializeRefusal, RestartRefusal, WallTime,
};

/// Identifies one request until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub u64);

/// A request that waits for its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Its identifier.
    pub id: RequestId,
    /// What is asked.
    pub ask: Ask,
}

/// What is asked. Switchovers and failovers are not here: they are a key in etcd, which every member reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Ask {
    /// Restart Postgres, now or at a time.
    Restart {
        /// `None`: at once, with the answer at the end.
        at: Option<WallTime>,
        /// The conditions under which it happens.
        filter: RestartFilter,
    },
    /// Forget a scheduled restart.
    CancelRestart,
    /// Judge the members that gave these answers as candidates of a switchover from this leader, and do nothing.
    JudgeCandidates {
        /// The answers.
        answers: Vec<(MemberName, PeerAnswer)>,
    },
    /// A leader that etcd does not answer: let it lead on.
    Failsafe(FailsafeQuestion),
    /// Remove the data and clone anew.
    Reinitialize {
        /// Whether to cancel a running long action.
        force: bool,
        /// Clone from the leader, whatever `clonefrom` says.
        from_leader: bool,
    },
}

/// A restart happens only if all of these hold when it is due.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RestartFilter {
    /// The member has this role (`primary`, `replica`, `standby_leader`).
    pub role: Option<String>,
    /// The running version is lower than this `server_version_num`.
    pub below_version: Option<u32>,
    /// A restart is pending.
    pub pending_only: bool,
    /// Overrides `primary_start_timeout`, in milliseconds.
    pub timeout_ms: Option<u64>,
}

/// The answer to a request. Its sentence is made where it leaves the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// PostgreSQL was restarted.
    Restarted,
    /// The restart waits for its time.
    RestartScheduled,
    /// The restart that waited for its time is forgotten.
    ScheduleDeleted,
    /// The data directory is being thrown away and cloned anew.
    Reinitializing,
    /// This member does not take the leader key for now.
    Promised,
    /// It does not promise that.
    NotPromised(FailsafeRefusal),
    /// Another restart waits for its time.
    AlreadyScheduled,
    /// No restart waits for its time.
    NotScheduled,
    /// The restart does not begin.
    RestartRefused(RestartRefusal),
    /// The data directory stays.
    ReinitializeRefused(ReinitializeRefusal),
    /// The restart was taken and did not begin in time: this is in its way.
    RestartNotBegun(Box<Reason>),
    /// The restart takes longer than it may; it goes on.
    RestartUnfinished,
    /// PostgreSQL was stopped and does not start again.
    StartFails {
        /// What it says.
        why: String,
    },
    /// The candidates were judged.
    CandidatesJudged {
        /// Those that cannot take over, with the reason.
        unfit: BTreeMap<MemberName, Ineligible>,
    },
    /// A switchover would not begin, whatever the candidate.
    SwitchoverRefused(HandOverRefusal),
    /// The supervisor ends, and gives no answer any more.
    Unanswered,
}
