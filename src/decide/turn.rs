//! One decision in the making.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Decision, Memory, peers};
use crate::model::{
    Action, ClusterView, FollowTarget, Job, JobKind, MemberKey, MemberName, Moment, Observation, PeerAnswer,
    PodEnd, PodRole, PrimaryRoute, Reason, WaitingOn, slot_name,
};

/// A renewal that was asked for is asked for again after this.
const LEASE_SOON: Duration = Duration::from_millis(200);

/// What a rule sees and fills in. Rules read `seen`, change `memory`, push `actions`, and return the reason.
pub(super) struct Turn<'a> {
    pub(super) seen: &'a Observation,
    pub(super) now: Moment,
    /// The newest answers of the members themselves; rules read these, never [`Observation::peers`].
    pub(super) peers: BTreeMap<MemberName, PeerAnswer>,
    pub(super) memory: Memory,
    pub(super) actions: Vec<Action>,
    wake: (Moment, WaitingOn),
}

impl<'a> Turn<'a> {
    pub(super) fn new(memory: &Memory, seen: &'a Observation, now: Moment) -> Turn<'a> {
        let wake = (now + seen.settings.loop_wait, WaitingOn::NextLook);
        Turn { seen, now, peers: peers::answers(seen), memory: memory.clone(), actions: Vec::new(), wake }
    }

    /// The cluster as last seen; an empty one before the first list (no rule reaches here then but demotion).
    pub(super) fn cluster(&self) -> Option<&'a ClusterView> {
        self.seen.view.as_ref().map(|view| &view.cluster)
    }

    /// Why etcd takes no writes, while it does not.
    pub(super) fn writes_refused(&self) -> Option<&'a str> {
        self.seen.writes.refused.as_deref()
    }

    /// What has become of my pod; in pause it is no reason for anything.
    pub(super) fn pod_end(&self) -> Option<PodEnd> {
        self.seen.pod_end.filter(|_| !self.seen.settings.pause)
    }

    /// The supervisor is to end: it was asked to, or a member of my name is to run in the pod that has taken the place
    /// of mine.
    pub(super) fn ends(&self) -> bool {
        self.seen.shutting_down || self.pod_end() == Some(PodEnd::Replaced)
    }

    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Whether there is a lease under which something can be asked for. One that etcd does not know any more is none:
    /// the next renewal brings another.
    pub(super) fn has_lease(&mut self) -> bool {
        let lease = self.seen.lease.lease;
        if lease.is_some() && lease == self.memory.lease_gone {
            self.act(Action::RenewLease);
            self.wake_in(LEASE_SOON, WaitingOn::Lease);
            return false;
        }
        self.memory.asked_under = lease;
        lease.is_some()
    }

    /// Starts a long action, unless its last failure asks for a pause.
    pub(super) fn start(&mut self, job: Job) {
        if !self.waits(job.kind()) {
            self.act(Action::Start(job));
        }
    }

    /// Whether a failure of this kind of action asks for a pause; looks again after it.
    pub(super) fn waits(&mut self, kind: JobKind) -> bool {
        let until = self.memory.retry_at.get(&kind).copied().filter(|at| self.now < *at);
        if let Some(at) = until {
            self.wake_at(at, WaitingOn::Retry);
        }
        until.is_some()
    }

    /// Looks again at `at` at the latest.
    pub(super) fn wake_at(&mut self, at: Moment, waiting_on: WaitingOn) {
        if at < self.wake.0 {
            self.wake = (at, waiting_on);
        }
    }

    /// Looks again within `span`.
    pub(super) fn wake_in(&mut self, span: Duration, waiting_on: WaitingOn) {
        self.wake_at(self.now + span, waiting_on);
    }

    /// Every member but me.
    pub(super) fn others(&self) -> impl Iterator<Item = (&'a MemberName, &'a MemberKey)> {
        let me = &self.seen.me.name;
        self.cluster().into_iter().flat_map(|cluster| &cluster.members).filter(move |(name, _)| *name != me)
    }

    /// Whom to stream from when `leader` leads: the `replicatefrom` member if it is there, else the leader;
    /// nobody with `nostream`.
    pub(super) fn follow_target(&self, leader: &MemberName) -> Option<FollowTarget> {
        if self.seen.me.tags.nostream() {
            return None;
        }
        let cascade = self.seen.me.tags.replicatefrom().filter(|name| {
            name != &self.seen.me.name
                && self.others().any(|(other, key)| other == name && key.record.conn_url.is_some())
        });
        self.target(cascade.as_ref().unwrap_or(leader))
    }

    /// A member as a source of WAL.
    pub(super) fn target(&self, name: &MemberName) -> Option<FollowTarget> {
        let conn_url = self.cluster()?.members.get(name)?.record.conn_url.clone()?;
        let me = &self.seen.me.name;
        let mine = self.seen.settings.use_slots && self.cluster()?.slot_holder(me) == me;
        let slot = mine.then(|| slot_name(me));
        Some(FollowTarget { name: name.clone(), conn_url, slot })
    }

    pub(super) fn decide(self, pod: Option<PodRole>, route: PrimaryRoute, because: Reason) -> Decision {
        Decision { memory: self.memory, actions: self.actions, pod, route, because, wake: self.wake }
    }
}
