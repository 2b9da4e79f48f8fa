//! All facts of one tick. They are gathered before the decision.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Branch, CloneProgress, ClusterView, Job, JobKind, LeaderHearing, LeaderSlots, LeaseFacts, Lsn,
    MemberName, Moment, PeerAnswer, PeerIdentity, PodEnd, PostgresFacts, Process, Request, ScriptsInUse,
    SessionId, Settings, Tags, WallTime,
};

/// The input of one decision. No fact is read twice, and each carries its age.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// This member.
    pub me: Me,
    /// The settings in force.
    pub settings: Settings,
    /// The cluster in etcd; `None` until the first list.
    pub view: Option<View>,
    /// My lease.
    pub lease: LeaseFacts,
    /// What I hear of the leader.
    #[serde(default)]
    pub hearing: LeaderHearing,
    /// My Postgres.
    pub postgres: PostgresFacts,
    /// The newest answer of every member that was asked.
    pub peers: BTreeMap<MemberName, PeerAnswer>,
    /// The leader's branch of history, as its Postgres last reported it.
    pub leader_branch: Option<LeaderBranch>,
    /// What the leader's Postgres last said about its logical slots.
    #[serde(default)]
    pub leader_slots: Option<LeaderSlots>,
    /// The long action under way.
    pub job: Option<RunningJob>,
    /// Its progress, if it is a clone.
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
    /// The pod of this member is being deleted, or is gone.
    #[serde(default)]
    pub pod_end: Option<PodEnd>,
    /// What fails with the Kubernetes API, where this member runs in a pod.
    #[serde(default)]
    pub pod_trouble: Option<String>,
    /// Whether etcd accepts writes.
    #[serde(default)]
    pub writes: WriteFacts,
    /// Wall-clock time, for schedules only.
    pub wall: WallTime,
}

/// Whether etcd accepts writes, as this member's own writes have shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteFacts {
    /// Why etcd refuses writes while it answers reads and renews leases; `None` when it accepts them, or none was
    /// tried.
    pub refused: Option<String>,
    /// When a write last succeeded.
    pub done_at: Option<Moment>,
}

impl Observation {
    /// The postmaster here, if it leads a standby cluster and has answered.
    pub fn standby_leader(&self, now: Moment) -> Option<i32> {
        self.settings.standby_cluster.as_ref()?;
        self.lease.leading_at(now)?;
        match (&self.postgres.process, &self.postgres.sql) {
            (Process::Up { pid, standby_start: true, .. }, Some(_)) => Some(*pid),
            (Process::Up { .. } | Process::Down { .. }, _) => None,
        }
    }

    /// How the process that registered as `name` identifies itself; `None` before the first view.
    pub fn identity_of(&self, name: &MemberName) -> Option<PeerIdentity> {
        Some(self.view.as_ref()?.cluster.identity_of(&self.me.scope, name))
    }
}

/// This member by its own configuration, and the number of its process.
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
    /// A connection pooler in front of this member, as published.
    pub proxy_url: Option<String>,
    /// The local file has a `bootstrap` section: this member may create a cluster.
    pub may_bootstrap: bool,
    /// How long it waits for other members to register before it creates a cluster.
    #[serde(default)]
    pub wait_for_members: Duration,
    /// The scripts that its operator has configured.
    #[serde(default)]
    pub scripts: ScriptsInUse,
}

/// The timelines that the leader's Postgres reported, or why it did not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeaderBranch {
    /// The leader.
    pub name: MemberName,
    /// When it was asked.
    pub asked_at: Moment,
    /// Its branch, open-ended if it is a primary; or the error.
    pub answer: Result<Branch, String>,
    /// The slot of this member exists there.
    pub has_slot: bool,
    /// Where its oldest WAL begins, since it has removed everything before; zero while unknown.
    #[serde(default)]
    pub oldest: Lsn,
}

/// The cluster as etcd showed it, with its age.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// The cluster's keys.
    pub cluster: ClusterView,
    /// When etcd was asked for the list, or for the last sign of life of the watch that followed it.
    pub seen_at: Moment,
}

/// A long action that has begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunningJob {
    /// The action.
    pub job: Job,
    /// Its start.
    pub since: Moment,
}

/// A long action that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// The kind of action.
    pub job: JobKind,
    /// Its result.
    pub outcome: Outcome,
}

/// How a long action ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It succeeded.
    Done,
    /// A compare-and-swap found another value: another writer was faster.
    Lost,
    /// No answer came. The action may or may not have happened; a read shows which.
    Unknown(String),
    /// It failed, for the reason given.
    Failed(String),
    /// etcd refused the write, for the reason given: it was not done, and no write is in flight.
    Refused(String),
    /// The lease of the write is gone: it was not done, and no write is in flight.
    LeaseGone,
    /// It was cancelled.
    Cancelled,
}
