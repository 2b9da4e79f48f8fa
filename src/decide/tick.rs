//! One decision while it is made.

use std::collections::BTreeMap;
use std::time::Duration;

use super::decision::Decision;
use super::memory::Memory;
use crate::model::{
    Action, CloneMethods, ClusterView, FollowTarget, Job, JobKind, LeaderKey, MemberKey, MemberName, Moment,
    Observation, PeerAnswer, PodEnd, PodRole, PrimaryRoute, Process, Reason, RecruitPromise, SyncMode,
    SyncRecord, Term, WaitingOn, slot_name,
};

/// An answer to a question older than this is asked for again. It is longer than the deadline of a member's answer, so
/// that the slowest answer, or its absence, is still fresh when it is known.
const ANSWER_FRESH: Duration = Duration::from_millis(2500);
/// The term of the remote primary of a standby cluster: etcd has none for it.
pub(super) const REMOTE_TERM: Term = Term(-1);
/// The term of a leader that etcd does not show, and that goes on by the members' promises.
pub(super) const PROMISED_TERM: Term = Term(-2);
/// The pause before a requested renewal is requested again.
const LEASE_SOON: Duration = Duration::from_millis(200);

/// The input and output of a rule. Rules read `seen`, change `memory`, push `actions`, and return the reason.
pub(super) struct Tick<'a> {
    pub(super) seen: &'a Observation,
    pub(super) now: Moment,
    /// The newest answers of the members themselves. Rules read these, never [`Observation::peers`].
    pub(super) peers: BTreeMap<MemberName, PeerAnswer>,
    pub(super) memory: Memory,
    pub(super) actions: Vec<Action>,
    wake: (Moment, WaitingOn),
}

impl<'a> Tick<'a> {
    pub(super) fn new(memory: &Memory, seen: &'a Observation, now: Moment) -> Tick<'a> {
        let wake = (now + seen.settings.loop_wait, WaitingOn::NextLook);
        Tick { seen, now, peers: answers(seen), memory: memory.clone(), actions: Vec::new(), wake }
    }

    /// The cluster as last seen; `None` before the first list.
    pub(super) fn cluster(&self) -> Option<&'a ClusterView> {
        self.seen.view.as_ref().map(|view| &view.cluster)
    }

    /// When the next tick comes at the latest, if the loop is not frozen.
    pub(super) fn next_tick_by(&self) -> Moment {
        self.now + self.seen.settings.loop_wait + self.seen.settings.ttl
    }

    /// Why etcd refuses writes, while it does.
    pub(super) fn writes_refused(&self) -> Option<&'a str> {
        self.seen.writes.refused.as_deref()
    }

    /// The end of my pod; in pause it has no consequences.
    pub(super) fn pod_end(&self) -> Option<PodEnd> {
        self.seen.pod_end.filter(|_| !self.seen.settings.pause)
    }

    /// Whether the supervisor is to end: it was asked to, or a member with my name is to run in the pod that replaced
    /// mine.
    pub(super) fn ends(&self) -> bool {
        self.seen.shutting_down || self.pod_end() == Some(PodEnd::Replaced)
    }

    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Whether there is a lease for a request. A lease that etcd does not know any more does not count: the next
    /// renewal brings another.
    pub(super) fn has_lease(&mut self) -> bool {
        let lease = self.seen.lease.lease;
        if lease.is_some() && lease == self.memory.lease.gone {
            self.act(Action::RenewLease);
            self.wake_in(LEASE_SOON, WaitingOn::Lease);
            return false;
        }
        self.memory.lease.asked_under = lease;
        lease.is_some()
    }

    /// Starts a long action, unless its last failure requires a pause.
    pub(super) fn start(&mut self, job: Job) {
        if !self.waits(job.kind()) {
            self.act(Action::Start(job));
        }
    }

    /// Whether a failure of this kind of action requires a pause; schedules a tick at its end.
    pub(super) fn waits(&mut self, kind: JobKind) -> bool {
        let until = self.memory.failures.retry_at.get(&kind).copied().filter(|at| self.now < *at);
        if let Some(at) = until {
            self.wake_at(at, WaitingOn::Retry);
        }
        until.is_some()
    }

    /// Schedules the next tick at `at` at the latest.
    pub(super) fn wake_at(&mut self, at: Moment, waiting_on: WaitingOn) {
        if at < self.wake.0 {
            self.wake = (at, waiting_on);
        }
    }

    /// Schedules the next tick within `span`.
    pub(super) fn wake_in(&mut self, span: Duration, waiting_on: WaitingOn) {
        self.wake_at(self.now + span, waiting_on);
    }

    /// All members except me.
    pub(super) fn others(&self) -> impl Iterator<Item = (&'a MemberName, &'a MemberKey)> {
        let me = &self.seen.me.name;
        self.cluster().into_iter().flat_map(|cluster| &cluster.members).filter(move |(name, _)| *name != me)
    }

    /// The remote primary of a standby cluster, in the place of a leader.
    pub(super) fn remote(&self) -> Option<LeaderKey> {
        let remote = self.seen.settings.standby_cluster.as_ref()?.remote.as_ref()?;
        Some(LeaderKey { name: remote.name.clone(), lease: None, term: REMOTE_TERM })
    }

    /// Whether this is the name of the remote primary.
    pub(super) fn is_remote(&self, name: &MemberName) -> bool {
        self.remote().is_some_and(|remote| remote.name == *name)
    }

    /// Whether this cluster follows a remote primary, or its archive.
    pub(super) fn in_standby_cluster(&self) -> bool {
        self.seen.settings.standby_cluster.is_some()
    }

    /// From where the data of a standby cluster can be copied without a member that leads, and how.
    pub(super) fn remote_source(&self) -> Option<(Option<FollowTarget>, CloneMethods)> {
        let standby_cluster = self.seen.settings.standby_cluster.as_ref()?;
        let methods = match standby_cluster.methods.is_empty() {
            true => CloneMethods::BasebackupOnly,
            false => CloneMethods::Named(standby_cluster.methods.clone()),
        };
        Some((standby_cluster.remote.clone(), methods))
    }

    /// The source to stream from when `leader` leads: the `replicatefrom` member if it exists, else the leader; none
    /// with `nostream`.
    pub(super) fn follow_target(&self, leader: &MemberName) -> Option<FollowTarget> {
        if self.seen.me.tags.nostream() {
            return None;
        }
        if self.is_remote(leader) {
            return self.target(leader);
        }
        let cascade = self.seen.me.tags.replicatefrom().filter(|name| {
            name != &self.seen.me.name
                && self.others().any(|(other, key)| other == name && key.record.conn_url.is_some())
        });
        self.target(cascade.as_ref().unwrap_or(leader))
    }

    /// A member, or the remote primary, as a source of WAL.
    pub(super) fn target(&self, name: &MemberName) -> Option<FollowTarget> {
        if self.is_remote(name) {
            return self.seen.settings.standby_cluster.as_ref()?.remote.clone();
        }
        let known = self.cluster()?.members.get(name).and_then(|member| member.record.conn_url.clone());
        let conn_url = known.or_else(|| self.promised_url(name))?;
        let me = &self.seen.me.name;
        let mine = self.seen.settings.use_slots && self.cluster()?.slot_holder(me) == me;
        let slot = mine.then(|| slot_name(me));
        Some(FollowTarget { name: name.clone(), conn_url, slot })
    }

    /// The address that a leader has named when it was promised to lead on.
    fn promised_url(&self, name: &MemberName) -> Option<String> {
        let promise = self.memory.failsafe.standing(self.now)?;
        let counts = promise.leader == *name && !promise.conn_url.is_empty();
        counts.then(|| promise.conn_url.clone())
    }

    /// The recent answer of a member since the leader key is vacant. The spelling of its name does not matter.
    pub(super) fn answer_of(&self, member: &MemberName) -> Option<&PeerAnswer> {
        let answer = self.peers.iter().find(|(name, _)| name.is_same(member)).map(|(_, answer)| answer);
        answer.filter(|answer| self.is_answer_of_now(answer))
    }

    /// Whether the question was asked recently, and since [`Tick::answers_since`].
    pub(super) fn is_answer_of_now(&self, answer: &PeerAnswer) -> bool {
        self.answers_since().max(self.now - ANSWER_FRESH) <= answer.asked_at
    }

    /// Since when answers count: since the leader key is vacant, and since this leader's PostgreSQL crashed.
    pub(super) fn answers_since(&self) -> Moment {
        let crashed_at = self.memory.failures.crashes.last().copied();
        self.memory.answers_since.max(crashed_at).unwrap_or_default()
    }

    /// Whether `asked_at` is recent enough for an answer that shows the present.
    pub(super) fn is_recent(&self, asked_at: Moment) -> bool {
        self.now < asked_at + Duration::from_secs(3)
    }

    /// When the running postmaster was started or adopted; now, when none runs.
    pub(super) fn started_at(&self) -> Moment {
        match &self.seen.postgres.process {
            Process::Up { since, .. } => *since,
            Process::Down { .. } => self.now,
        }
    }

    /// True when this kind of long action just ended.
    pub(super) fn just_finished(&self, kind: JobKind) -> bool {
        self.seen.finished.iter().any(|finished| finished.job == kind)
    }

    /// The promise to a candidate that keeps me from receiving anything from the leader.
    pub(super) fn bound_by(&self) -> Option<&RecruitPromise> {
        self.memory.recruit.bound_by(self.cluster())
    }

    /// Whether the store went back in time and no leader has confirmed its new generation.
    pub(super) fn is_unsettled(&self) -> bool {
        self.cluster().is_some_and(|cluster| cluster.unsettled().is_some())
    }

    /// The key `sync`, where it is in force and not switched off.
    pub(super) fn sync_record(&self) -> Option<&'a SyncRecord> {
        match self.seen.settings.sync.mode {
            // The section of a standby cluster switches the mode off; what was promised before stays promised.
            SyncMode::Off if !self.in_standby_cluster() => None,
            SyncMode::Off | SyncMode::On | SyncMode::Quorum => self.cluster()?.sync_record(),
        }
    }

    /// The revision of the key `sync`; zero when there is none.
    pub(super) fn sync_revision(&self) -> i64 {
        let key = self.cluster().and_then(|cluster| cluster.sync.as_ref());
        key.map_or(0, |key| key.mod_revision)
    }

    pub(super) fn decide(self, pod: Option<PodRole>, route: PrimaryRoute, because: Reason) -> Decision {
        Decision { memory: self.memory, actions: self.actions, pod, route, because, wake: self.wake }
    }
}

/// The answers that come from the asked processes themselves; other answers count as none.
fn answers(seen: &Observation) -> BTreeMap<MemberName, PeerAnswer> {
    let answer = |(name, answer): (&MemberName, &PeerAnswer)| {
        let asked = seen.identity_of(name);
        (name.clone(), asked.map_or_else(|| answer.clone(), |asked| answer.clone().of(&asked)))
    };
    seen.peers.iter().map(answer).collect()
}
