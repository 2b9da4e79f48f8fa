//! What each standby would decide if nobody led: the very decisions of a member, over what it says of itself.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::decide::{Memory, decide};
use crate::model::{
    Action, ClusterView, ControlFile, ControlState, DataDirectory, JobKind, LeaderHearing, Leading,
    LeaseFacts, LeaseId, Lsn, Me, MemberName, Moment, Observation, PeerAnswer, PostgresFacts, Process,
    Settings, SqlFacts, Standby, SyncFacts, Timeline, View, WallTime, WriteFacts,
};

/// The interval between the decisions that are thought through.
const STEP: Duration = Duration::from_millis(100);
/// After so long beyond a TTL nothing that only waits for time is left.
const BEYOND_TTL: Duration = Duration::from_secs(5);
const START: Moment = Moment::from_millis(1_000_000_000);
/// Whatever the leases are called.
const LEASE: LeaseId = LeaseId(i64::MAX);

/// The cluster as it is seen from outside.
pub(super) struct OutsideView {
    pub(super) scope: String,
    pub(super) view: ClusterView,
    pub(super) answers: BTreeMap<MemberName, PeerAnswer>,
    pub(super) settings: Settings,
    pub(super) wall: WallTime,
}

/// The decision of one standby.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Foresight {
    /// It would take the leader key.
    pub(super) leads: bool,
    /// Why, or why not.
    pub(super) because: String,
}

impl OutsideView {
    /// The decisions of all members but the leader, once its key is gone and it does not answer.
    pub(super) fn without_leader(&self) -> BTreeMap<MemberName, Foresight> {
        let leader = self.view.leader.as_ref().map(|key| &key.name);
        let standbys = self.view.members.keys().filter(|name| Some(*name) != leader);
        standbys.map(|name| (name.clone(), self.decision_of(name))).collect()
    }

    fn decision_of(&self, name: &MemberName) -> Foresight {
        let answer = self.answers.get(name).filter(|answer| answer.reachable);
        let Some(answer) = answer else {
            return Foresight { leads: false, because: "its PostgreSQL does not answer".to_owned() };
        };
        if !answer.in_recovery {
            return Foresight { leads: false, because: "it is a primary".to_owned() };
        }
        let mut seen = self.observation(name, answer);
        let mut memory = decide(&Memory::default(), &seen, START).memory;
        self.lose_leader(&mut seen);
        let (mut now, end) = (START, START + self.settings.ttl + BEYOND_TTL);
        loop {
            now = now + STEP;
            refresh(&mut seen, now);
            let decision = decide(&memory, &seen, now);
            let takes = |action: &Action| matches!(action, Action::Start(job) if job.kind() == JobKind::TakeLeadership);
            let leads = decision.actions.iter().any(takes);
            if leads || end <= now {
                return Foresight { leads, because: decision.because.to_string() };
            }
            memory = decision.memory;
        }
    }

    fn lose_leader(&self, seen: &mut Observation) {
        if let Some(view) = &mut seen.view
            && let Some(gone) = view.cluster.leader.take()
        {
            seen.peers.insert(gone.name, PeerAnswer::unreachable(START, "it is gone".to_owned()));
        }
        for answer in seen.peers.values_mut() {
            answer.receives = false;
        }
    }

    fn observation(&self, name: &MemberName, answer: &PeerAnswer) -> Observation {
        let others = self.answers.iter().filter(|(other, _)| *other != name);
        let record = self.view.members.get(name).map(|key| &key.record);
        Observation {
            me: Me {
                scope: self.scope.clone(),
                name: name.clone(),
                session: Default::default(),
                tags: answer.tags.clone(),
                conn_url: record.and_then(|record| record.conn_url.clone()).unwrap_or_default(),
                api_url: record.and_then(|record| record.api_url.clone()).unwrap_or_default(),
                proxy_url: None,
                may_bootstrap: false,
                wait_for_members: Duration::ZERO,
                scripts: Default::default(),
            },
            settings: self.settings.clone(),
            view: Some(View { cluster: self.view.clone(), seen_at: START }),
            lease: LeaseFacts {
                lease: Some(LEASE),
                leading: Leading::No,
                ttl: self.settings.ttl,
                ..LeaseFacts::default()
            },
            hearing: LeaderHearing::default(),
            postgres: standby(answer, self.view.system_id()),
            peers: others.map(|(other, answer)| (other.clone(), answer.clone())).collect(),
            leader_branch: None,
            leader_slots: None,
            job: None,
            clone_progress: None,
            writing: None,
            finished: Vec::new(),
            requests: Vec::new(),
            shutting_down: false,
            watchdog_failed: answer.watchdog_failed,
            pod_end: None,
            pod_trouble: None,
            writes: WriteFacts::default(),
            wall: self.wall,
        }
    }
}

/// The same facts, seen `now`.
fn refresh(seen: &mut Observation, now: Moment) {
    seen.lease.deadline = Some(now + seen.settings.ttl);
    seen.peers.values_mut().for_each(|answer| answer.asked_at = now);
    seen.postgres.sql.iter_mut().for_each(|sql| sql.at = now);
    seen.view.iter_mut().for_each(|view| view.seen_at = now);
}

/// A standby that has lost its source.
fn standby(answer: &PeerAnswer, system_id: Option<u64>) -> PostgresFacts {
    let control = ControlFile {
        system_id: answer.identity.system_id.or(system_id).unwrap_or_default(),
        state: ControlState::InArchiveRecovery,
        checkpoint: Lsn(0),
        checkpoint_timeline: answer.timeline.unwrap_or(Timeline::FIRST),
        min_recovery: Lsn(0),
        min_recovery_timeline: Timeline(0),
        checksums: false,
        wal_log_hints: false,
        minimal_wal: false,
        backup_label: false,
        backup_start: Lsn(0),
        segments: None,
        standby_minimums: BTreeMap::new(),
    };
    let sql = SqlFacts {
        at: START,
        server_version: 0,
        postmaster_start_time: String::new(),
        timeline: answer.timeline,
        standby: Standby::Yes {
            received: answer.lsn,
            replayed: answer.replayed,
            replayed_timestamp: None,
            paused: false,
            receiver: None,
            restores: false,
        },
        flushed: Lsn(0),
        slots: BTreeMap::new(),
        sync: SyncFacts::default(),
        replication: Vec::new(),
        is_detached: true,
    };
    PostgresFacts {
        data: DataDirectory::Ready(control),
        process: Process::Up { pid: 1, since: START, standby_start: true },
        history_of: answer.timeline,
        sql: Some(sql),
        ..PostgresFacts::default()
    }
}

#[cfg(test)]
mod tests;
