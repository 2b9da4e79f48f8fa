//! All facts of one tick. They are gathered before the decision.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Branch, CloneProgress, ClusterView, Job, JobKind, LeaseFacts, Lsn, MemberName, Moment, PeerAnswer,
    PeerIdentity, PodEnd, PostgresFacts, Request, SessionId, Settings, Tags, WallTime,
};

/// Everything one decision is made from. Nothing is read twice, and every fact carries its age.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Who I am.
    pub me: Me,
    /// The settings in force.
    pub settings: Settings,
    /// The cluster in etcd; `None` until the first list.
    pub view: Option<View>,
    /// My lease.
    pub lease: LeaseFacts,
    /// My Postgres.
    pub postgres: PostgresFacts,
    /// The newest answer of every member that was asked.
    pub peers: BTreeMap<MemberName, PeerAnswer>,
    /// The leader's line of history, as its Postgres last told it.
    pub leader_branch: Option<LeaderBranch>,
    /// The long action under way.
    pub job: Option<RunningJob>,
    /// How far it is, if it is a clone.
    pub clone_progress: Option<CloneProgress>,
    /// The write to the leader key under way.
    pub writing: Option<RunningJob>,
    /// What ended since the last tick.
    pub finished: Vec<Finished>,
    /// Requests that arrived since the last tick.
    pub requests: Vec<Request>,
    /// The supervisor was asked to end.
    pub shutting_down: bool,
    /// The watchdog is required and cannot be used.
    #[serde(default)]
    pub watchdog_failed: bool,
    /// The pod that this member runs in ends, or is gone.
    #[serde(default)]
    pub pod_end: Option<PodEnd>,
    /// What does not work with the Kubernetes API, where this member runs in a pod.
    #[serde(default)]
    pub pod_trouble: Option<String>,
    /// What etcd does with writes.
    #[serde(default)]
    pub writes: WriteFacts,
    /// For schedules only.
    pub wall: WallTime,
}

/// What etcd does with writes, as this member's own have shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteFacts {
    /// Why it takes none, while it answers reads and renews leases; `None` when it takes them, or none was tried.
    pub refused: Option<String>,
    /// When one was last done.
    pub done_at: Option<Moment>,
}

impl Observation {
    /// How the process that registered as `name` identifies itself; `None` before the first view.
    pub fn identity_of(&self, name: &MemberName) -> Option<PeerIdentity> {
        Some(self.view.as_ref()?.cluster.identity_of(&self.me.scope, name))
    }
}

/// What this member is by its own configuration, and which process of it this is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Me {
    /// The cluster's name.
    #[serde(default)]
    pub scope: String,
    /// My name.
    pub name: MemberName,
    /// The number of this process.
    #[serde(default)]
    pub session: SessionId,
    /// My tags.
    pub tags: Tags,
    /// My Postgres, as published.
    pub conn_url: String,
    /// My REST interface, as published.
    pub api_url: String,
    /// A pooler before me, as published.
    pub proxy_url: Option<String>,
    /// The local file has a `bootstrap` section: this member may create a cluster.
    pub may_bootstrap: bool,
    /// It does so when no other member has registered for so long.
    #[serde(default)]
    pub wait_for_members: Duration,
}

/// What the leader's Postgres said of its timelines, or why it did not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeaderBranch {
    /// Who was asked.
    pub name: MemberName,
    /// When.
    pub asked_at: Moment,
    /// Its branch, open-ended if it is a primary, or what stood in the way.
    pub answer: Result<Branch, String>,
    /// The slot that I would ask for is there.
    pub has_slot: bool,
    /// Where its oldest WAL begins: it has removed what is before; zero while unknown.
    #[serde(default)]
    pub oldest: Lsn,
}

/// The cluster as etcd showed it, with its age.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// What it holds.
    pub cluster: ClusterView,
    /// When the list, or the last sign of life of the watch after it, was asked for.
    pub seen_at: Moment,
}

/// A long action that has begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunningJob {
    /// Which.
    pub job: Job,
    /// Since when.
    pub since: Moment,
}

/// A long action that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// Which.
    pub job: JobKind,
    /// How.
    pub outcome: Outcome,
}

/// How a long action ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It did what it says.
    Done,
    /// A compare-and-swap found something else: somebody was faster.
    Lost,
    /// The answer never came: it may or may not have happened. Read back.
    Unknown(String),
    /// It failed, for the reason given.
    Failed(String),
    /// etcd takes no writes, for the reason given: it was not done, and nothing of it is on its way.
    Refused(String),
    /// The lease under which it was to be done is gone: it was not done, and nothing of it is on its way.
    LeaseGone,
    /// It was cancelled.
    Cancelled,
}
