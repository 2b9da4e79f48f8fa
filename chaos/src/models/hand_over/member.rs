//! One member: the real decisions, and what they are made from.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use matriarch::core::lease::{KeepAliveAnswer, LeaderRead, Renewal};
use matriarch::decide::{Memory, SlotLedger, decide};
use matriarch::model::{
    Action, ClusterStatus, ClusterView, ConfigKey, ControlState, DataDirectory, FailoverKey, FailoverRequest,
    Finished, Job, LeaderHearing, LeaderKey, LeaseFacts, LeaseId, Lsn, Me, MemberKey, MemberName, Moment,
    Observation, PeerAnswer, PeerIdentity, PostgresFacts, Process, Role, RunningJob, SessionId, Settings,
    SqlFacts, Standby, StoreMark, SyncFacts, SyncState, Tags, Term, Timeline, View, WalReceiver, WallTime,
    Walsender, WriteFacts,
};

use super::etcd::Keys;
use crate::models::control_file::{SYSTEM_ID, control_file};

const SCOPE: &str = "herd";

#[derive(Clone, Debug)]
pub(super) struct Member {
    memory: Memory,
    /// etcd as last seen, and who said to be primary then.
    pub(super) view: (Keys, [bool; 2]),
    pub(super) facts: LeaseFacts,
    pub(super) postgres: Postgres,
    /// In which it was last promoted.
    pub(super) term: Term,
    pub(super) timeline: u32,
    /// Records: [`EARLIER`], commits by number, [`SHUTDOWN`], and [`PROMOTION`].
    pub(super) wal: Vec<u8>,
    pub(super) job: Option<Job>,
    pub(super) writing: Option<Write>,
    pub(super) finished: Vec<Finished>,
    /// The other member was asked; and its answer.
    pub(super) asking: bool,
    pub(super) answer: Option<Answer>,
}

/// What was there before, with a checkpoint.
const EARLIER: u8 = 0;
pub(super) const SHUTDOWN: u8 = 100;
pub(super) const PROMOTION: u8 = 101;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Postgres {
    Standby,
    /// Told to promote.
    Promoting,
    /// Started as a primary, and not one yet.
    Starting,
    Primary,
    /// Down, with a shutdown checkpoint as its last record.
    Stopped,
    /// Down without one.
    Crashed,
}

/// A write to the leader key under way.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) job: Job,
    pub(super) lease: LeaseId,
    /// Once etcd has carried it out.
    pub(super) outcome: Option<matriarch::model::Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Answer {
    asked_at: Moment,
    reachable: bool,
    in_recovery: bool,
    end: Lsn,
    timeline: Timeline,
}

/// Hashes what is written to it.
struct Hashed(DefaultHasher);

impl std::fmt::Write for Hashed {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

impl Answer {
    /// As if everything had been replayed.
    pub(super) fn all(self) -> Answer {
        Answer { end: Member::lsn(50), ..self }
    }
}

impl Member {
    pub(super) fn new(keys: Keys, facts: LeaseFacts, postgres: Postgres) -> Member {
        Member {
            memory: Memory {
                checkpoint: Some(true),
                slots: SlotLedger { inherited: true, ..SlotLedger::default() },
                ..Memory::default()
            },
            view: (keys, [true, false]),
            facts,
            postgres,
            term: keys.leader.map_or(Term(0), |leader| leader.term),
            timeline: 1,
            wal: vec![EARLIER],
            job: None,
            writing: None,
            finished: Vec::new(),
            asking: false,
            answer: None,
        }
    }

    /// Of everything in it.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hashed = Hashed(DefaultHasher::new());
        // Hashing cannot fail.
        let _ = write!(hashed, "{self:?}");
        hashed.0.finish()
    }

    pub(super) fn may_be_primary(&self) -> bool {
        matches!(self.postgres, Postgres::Promoting | Postgres::Starting | Postgres::Primary)
    }

    pub(super) fn is_up(&self) -> bool {
        !matches!(self.postgres, Postgres::Stopped | Postgres::Crashed)
    }

    /// The supervisor is started again: it remembers nothing.
    pub(super) fn forget(&mut self, facts: LeaseFacts) {
        self.memory = Memory::default();
        self.facts = facts;
        (self.job, self.writing, self.answer) = (None, None, None);
        (self.asking, self.finished) = (false, Vec::new());
    }

    /// Leaves the worry about a write of unknown outcome behind.
    pub(super) fn forget_the_write(&mut self) {
        self.memory.released_term = None;
    }

    pub(super) fn was_refused(&self) -> bool {
        self.memory.hand_over_refused.is_some()
    }

    /// Where the record of this number begins; the last ends where the next would begin.
    fn lsn(records: usize) -> Lsn {
        Lsn(1000 + 100 * records as u64)
    }

    /// What this member answers when it is asked.
    pub(super) fn says(&self, asked_at: Moment) -> Answer {
        Answer {
            asked_at,
            reachable: self.is_up(),
            in_recovery: matches!(self.postgres, Postgres::Standby | Postgres::Promoting),
            end: Member::lsn(self.wal.len()),
            timeline: Timeline(self.timeline),
        }
    }

    /// One tick of the real decision; gives what is ordered.
    pub(super) fn tick(&mut self, index: usize, now: Moment, crash_looks_clean: bool) -> Vec<Action> {
        let seen = self.observe(index, now, crash_looks_clean);
        let decision = decide(&self.memory, &seen, now);
        self.finished.clear();
        self.memory = decision.memory;
        // What was published, and slots, matter to nobody here.
        (self.memory.published, self.memory.status, self.memory.failures.last) = (None, None, None);
        self.memory.slots.asked = None;
        self.memory.slots.wanted.clear();
        decision.actions
    }

    fn observe(&self, index: usize, now: Moment, crash_looks_clean: bool) -> Observation {
        let running = |job: &Job| RunningJob { job: job.clone(), since: now };
        Observation {
            me: Me {
                scope: SCOPE.to_owned(),
                name: name(index),
                session: SessionId(index as u64),
                tags: Tags::default(),
                conn_url: url(index),
                api_url: url(index),
                proxy_url: None,
                may_bootstrap: false,
                wait_for_members: Duration::ZERO,
                scripts: Default::default(),
            },
            settings: Settings::default(),
            view: Some(View { cluster: self.cluster(), seen_at: now }),
            hearing: LeaderHearing::default(),
            lease: self.facts.clone(),
            postgres: self.postgres(index, now, crash_looks_clean),
            peers: self
                .answer
                .iter()
                .map(|answer| (name(1 - index), told(answer, name(1 - index))))
                .collect(),
            leader_branch: None,
            leader_slots: None,
            job: self.job.as_ref().map(running),
            clone_progress: None,
            writing: self.writing.as_ref().map(|write| running(&write.job)),
            finished: self.finished.clone(),
            requests: Vec::new(),
            shutting_down: false,
            watchdog_failed: false,
            pod_end: None,
            pod_trouble: None,
            writes: WriteFacts { refused: None, done_at: Some(now) },
            wall: WallTime(0),
        }
    }

    fn cluster(&self) -> ClusterView {
        let (keys, primaries) = self.view;
        let leader = keys.leader.map(|leader| LeaderKey {
            name: name(leader.owner),
            lease: Some(leader.lease),
            term: leader.term,
        });
        let request = FailoverRequest {
            leader: Some(name(0)),
            candidate: Some(name(1)),
            scheduled_at: None,
            confirmed_down: Vec::new(),
            rebuild: false,
            requested_by: None,
        };
        let members = (0..2).filter(|member| keys.leases[*member].is_some());
        ClusterView {
            revision: keys.revision,
            listed: keys.revision,
            cluster_id: 0,
            generation: None,
            timeline_claim: None,
            leader,
            leader_created: None,
            failsafe: None,
            recruit: None,
            members: members.map(|member| (name(member), key(member, &keys, primaries[member]))).collect(),
            initialize: Some(SYSTEM_ID.to_string()),
            initialize_lease: None,
            config: Some(ConfigKey { text: "{}".to_owned(), mod_revision: 1 }),
            status: Some(ClusterStatus { optime: Some(Member::lsn(0)), ..ClusterStatus::default() }),
            history: Some(Vec::new()),
            sync: None,
            unfenced: None,
            failover: keys.failover.map(|mod_revision| FailoverKey { request, mod_revision }),
        }
    }

    fn postgres(&self, index: usize, now: Moment, crash_looks_clean: bool) -> PostgresFacts {
        let state = match self.postgres {
            Postgres::Standby | Postgres::Promoting => ControlState::InArchiveRecovery,
            Postgres::Primary => ControlState::InProduction,
            Postgres::Starting => ControlState::InCrashRecovery,
            Postgres::Stopped => ControlState::ShutDown,
            Postgres::Crashed if crash_looks_clean => ControlState::ShutDown,
            Postgres::Crashed => ControlState::InProduction,
        };
        let clean = self.wal.iter().rposition(|record| *record == SHUTDOWN).unwrap_or(0);
        let timeline = Timeline(self.timeline);
        let control = control_file(state, Member::lsn(clean), timeline);
        let process = match self.is_up() {
            true => Process::Up { pid: 42, since: now, standby_start: self.postgres == Postgres::Standby },
            false => Process::Down { exit: None },
        };
        PostgresFacts {
            data: DataDirectory::Ready(control),
            process,
            sql: (self.is_up() && self.postgres != Postgres::Starting).then(|| self.sql(index, now)),
            history_of: self.is_up().then_some(timeline),
            ..PostgresFacts::default()
        }
    }

    fn sql(&self, index: usize, now: Moment) -> SqlFacts {
        let end = Member::lsn(self.wal.len());
        let receiver = WalReceiver {
            status: "streaming".to_owned(),
            host: Some(name(1 - index).to_string()),
            port: Some(5432),
            slot: None,
            latest_end: end,
        };
        let standby = match self.postgres {
            Postgres::Primary => Standby::No,
            _ => Standby::Yes {
                received: end,
                replayed: end,
                replayed_timestamp: None,
                paused: false,
                receiver: Some(receiver),
                restores: false,
            },
        };
        SqlFacts {
            at: now,
            server_version: 170_000,
            postmaster_start_time: String::new(),
            timeline: Some(Timeline(self.timeline)),
            standby,
            flushed: end,
            slots: BTreeMap::new(),
            replication: Vec::new(),
            is_detached: false,
            sync: SyncFacts { walsenders: vec![walsender(1 - index, end)], ..SyncFacts::default() },
        }
    }
}

/// The stream to the other member: what is cut off of it shows in what that one answers.
fn walsender(to: usize, end: Lsn) -> Walsender {
    Walsender {
        name: name(to).to_string(),
        streams: true,
        sync: SyncState::Async,
        written: Some(end),
        flushed: Some(end),
        replayed: Some(end),
    }
}

fn told(answer: &Answer, by: MemberName) -> PeerAnswer {
    PeerAnswer {
        asked_at: answer.asked_at,
        identity: PeerIdentity { scope: Some(SCOPE.to_owned()), name: Some(by), ..PeerIdentity::default() },
        reachable: answer.reachable,
        in_recovery: answer.in_recovery,
        role: if answer.in_recovery { Role::Replica } else { Role::Primary },
        lsn: answer.end,
        exact: true,
        // The world's stream is from a to b; whether it is cut off decides nothing without a key `sync`.
        receives: answer.in_recovery,
        standbys: Vec::new(),
        replayed: answer.end,
        timeline: Some(answer.timeline),
        tags: Tags::default(),
        watchdog_failed: false,
        pod_ends: false,
        yields: false,
        promised: false,
        suspicion: Default::default(),
        recruited: None,
        no_data: false,
        store: StoreMark::default(),
        trouble: None,
    }
}

fn key(member: usize, keys: &Keys, primary: bool) -> MemberKey {
    let role = if primary { Role::Primary } else { Role::Replica };
    let record = serde_json::json!({
        "conn_url": url(member), "api_url": url(member), "state": "running", "role": role, "version": "4.1.5",
    });
    let record = serde_json::from_value(record).expect("a valid record");
    MemberKey { record, lease: keys.leases[member] }
}

fn name(index: usize) -> MemberName {
    MemberName::new(["a", "b"][index]).expect("a valid name")
}

fn url(index: usize) -> String {
    format!("http://{}", ["a", "b"][index])
}

/// A lease that was confirmed now; there is always one to confirm.
pub(super) fn confirmed(keys: &Keys, lease: Option<LeaseId>, now: Moment) -> LeaseFacts {
    let ttl = Duration::from_secs(10);
    let mut renewal = Renewal::default();
    let Some(lease) = lease else { return renewal.facts().clone() };
    renewal.granted(lease, ttl);
    let leader = keys.leader.map(|leader| (leader.lease, leader.term));
    let answer = KeepAliveAnswer { lease, sent_at: now, ttl, raft_term: 2 };
    renewal.confirm(&answer, &LeaderRead { raft_term: 2, leader });
    renewal.facts().clone()
}
