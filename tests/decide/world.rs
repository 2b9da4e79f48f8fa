//! The observations of a member, built by hand: every input of `decide`, with short ways to change it.

use std::collections::BTreeMap;
use std::time::Duration;

use matriarch::decide::{Decision, Memory, decide};
use matriarch::model::{
    ClusterStatus, ClusterView, ConfigKey, ControlFile, ControlState, DataDirectory, Death, Finished,
    JobKind, LeaderHearing, LeaderKey, Leading, LeaseFacts, LeaseId, LivenessFacts, LivenessVerdict, Lsn, Me,
    MemberKey, MemberName, MemberRecord, MemberState, Moment, Observation, Outcome, PeerAnswer, PeerIdentity,
    PostgresFacts, Process, Role, SessionId, Settings, SqlFacts, Standby, StoreMark, Suspicion, SyncFacts,
    SyncOwner, SyncState, Tags, Term, Timeline, TimelineHistory, View, WalReceiver, WallTime, Walsender,
    WriteFacts,
};

pub(super) const SYSTEM_ID: u64 = 7_000_000_000_000_000_001;
pub(super) const MY_LEASE: LeaseId = LeaseId(0xA);
pub(super) const THEIR_LEASE: LeaseId = LeaseId(0xB);
pub(super) const START: Moment = Moment::from_millis(1_000_000);

pub(super) fn name(text: &str) -> MemberName {
    MemberName::new(text).expect("a valid name")
}

/// Member `a` of the cluster `a`, `b`, `c`, at rest: b leads and a's Postgres streams from it.
pub(super) struct World {
    pub(super) seen: Observation,
    pub(super) memory: Memory,
    pub(super) now: Moment,
}

impl World {
    pub(super) fn new() -> World {
        let members = ["a", "b", "c"].map(|text| (name(text), member(text)));
        let cluster = ClusterView {
            revision: 100,
            listed: 100,
            cluster_id: 0xE7CD,
            generation: None,
            timeline_claim: None,
            leader: Some(leader("b", THEIR_LEASE)),
            leader_created: Some(leader("b", THEIR_LEASE).term.0),
            failsafe: None,
            recruit: None,
            members: BTreeMap::from(members),
            initialize: Some(SYSTEM_ID.to_string()),
            initialize_lease: None,
            config: Some(ConfigKey { text: "{}".to_owned(), mod_revision: 3 }),
            status: Some(ClusterStatus { optime: Some(Lsn(1000)), ..ClusterStatus::default() }),
            history: Some(Vec::new()),
            failover: None,
            sync: None,
            unfenced: None,
        };
        let seen = Observation {
            me: Me {
                scope: "herd".to_owned(),
                name: name("a"),
                session: SessionId(0xA),
                tags: Tags::default(),
                conn_url: "postgres://a:5432/postgres".to_owned(),
                api_url: "http://a:8008/patroni".to_owned(),
                proxy_url: None,
                may_bootstrap: true,
                wait_for_members: Duration::from_secs(10),
                scripts: Default::default(),
            },
            settings: Settings::default(),
            view: Some(View { cluster, seen_at: START }),
            hearing: LeaderHearing::default(),
            lease: LeaseFacts {
                lease: Some(MY_LEASE),
                moving_to: None,
                deadline: Some(START + Duration::from_secs(9)),
                promised_until: None,
                vanished: None,
                leading: Leading::No,
                ttl: Duration::from_secs(10),
                trouble: None,
            },
            postgres: up(standby(1000)),
            peers: BTreeMap::new(),
            leader_branch: None,
            leader_slots: None,
            job: None,
            clone_progress: None,
            writing: None,
            finished: Vec::new(),
            requests: Vec::new(),
            shutting_down: false,
            watchdog_failed: false,
            pod_end: None,
            pod_trouble: None,
            writes: WriteFacts { refused: None, done_at: Some(Moment::from_millis(u64::MAX / 2_000_000)) },
            wall: WallTime(1_795_384_347_000),
        };
        World { seen, memory: Memory::default(), now: START }
    }

    pub(super) fn cluster(&mut self) -> &mut ClusterView {
        &mut self.seen.view.as_mut().expect("the world always has a view").cluster
    }

    /// This member holds the leader key, confirmed.
    pub(super) fn i_lead(&mut self) -> &mut World {
        self.cluster().leader = Some(leader("a", MY_LEASE));
        self.seen.lease.leading = Leading::Yes(Term(50));
        self
    }

    pub(super) fn nobody_leads(&mut self) -> &mut World {
        self.cluster().leader = None;
        self
    }

    pub(super) fn postgres(&mut self, postgres: PostgresFacts) -> &mut World {
        self.seen.postgres = postgres;
        self
    }

    /// `member` itself answers with this position.
    pub(super) fn answers(&mut self, member: &str, lsn: u64) -> &mut World {
        let identity = self.seen.identity_of(&name(member)).expect("the world always has a view");
        self.seen.peers.insert(name(member), PeerAnswer { identity, ..answer(self.now, lsn) });
        self
    }

    pub(super) fn ends(&mut self, job: JobKind, outcome: Outcome) -> &mut World {
        self.seen.finished.push(Finished { job, outcome });
        self
    }

    /// One tick. The memory is carried over, and ended actions are consumed.
    pub(super) fn tick(&mut self) -> Decision {
        let decision = decide(&self.memory, &self.seen, self.now);
        self.memory = decision.memory.clone();
        self.seen.finished.clear();
        self.seen.requests.clear();
        decision
    }

    /// A standby without a receiver.
    pub(super) fn receives_nothing(&mut self) -> &mut World {
        if let Some(sql) = &mut self.seen.postgres.sql
            && let Standby::Yes { receiver, .. } = &mut sql.standby
        {
            *receiver = None;
        }
        self
    }

    pub(super) fn later(&mut self, millis: u64) -> &mut World {
        self.now = self.now + Duration::from_millis(millis);
        self.seen.lease.deadline = Some(self.now + Duration::from_secs(9));
        self
    }
}

pub(super) fn leader(text: &str, lease: LeaseId) -> LeaderKey {
    LeaderKey { name: name(text), lease: Some(lease), term: Term(50) }
}

fn member(text: &str) -> MemberKey {
    let role = if text == "b" { Role::Primary } else { Role::Replica };
    let record = serde_json::json!({
        "conn_url": format!("postgres://{text}:5432/postgres"), "api_url": format!("http://{text}:8008/patroni"),
        "state": MemberState::Running, "role": role, "version": "4.1.5", "xlog_location": 1000, "timeline": 1
    });
    let record: MemberRecord = serde_json::from_value(record).expect("a valid record");
    let lease = match text {
        "a" => MY_LEASE,
        "b" => THEIR_LEASE,
        _ => LeaseId(0xC),
    };
    MemberKey { record, lease: Some(lease) }
}

pub(super) fn answer(asked_at: Moment, lsn: u64) -> PeerAnswer {
    PeerAnswer {
        asked_at,
        identity: PeerIdentity::default(),
        reachable: true,
        in_recovery: true,
        role: Role::Replica,
        lsn: Lsn(lsn),
        exact: true,
        receives: false,
        standbys: Vec::new(),
        replayed: Lsn(lsn),
        timeline: Some(Timeline(1)),
        tags: Tags::default(),
        watchdog_failed: false,
        pod_ends: false,
        yields: false,
        promised: false,
        suspicion: Suspicion::Unknown,
        recruited: None,
        no_data: false,
        store: StoreMark::default(),
        trouble: None,
    }
}

pub(super) fn control(state: ControlState) -> ControlFile {
    ControlFile {
        system_id: SYSTEM_ID,
        state,
        checkpoint: Lsn(900),
        checkpoint_timeline: Timeline(1),
        min_recovery: Lsn(0),
        min_recovery_timeline: Timeline(0),
        checksums: true,
        wal_log_hints: true,
        minimal_wal: false,
        backup_label: false,
        backup_start: Lsn(0),
        segments: None,
        standby_minimums: BTreeMap::new(),
    }
}

fn facts(data: DataDirectory, process: Process, sql: Option<SqlFacts>) -> PostgresFacts {
    PostgresFacts {
        data,
        process,
        history_of: sql.as_ref().and_then(|sql| sql.timeline),
        sql,
        sql_trouble: None,
        turned_away_since: None,
        history: TimelineHistory::default(),
        pending_restart: BTreeMap::new(),
        liveness: LivenessFacts::default(),
        clients_locked_out: false,
        unsynchronous: Vec::new(),
        access: Default::default(),
        sync_owner: SyncOwner::Operator,
    }
}

pub(super) fn down(state: ControlState) -> PostgresFacts {
    facts(DataDirectory::Ready(control(state)), Process::Down { exit: Some("signal: 9".to_owned()) }, None)
}

pub(super) fn without(data: DataDirectory) -> PostgresFacts {
    facts(data, Process::Down { exit: None }, None)
}

pub(super) fn up(sql: SqlFacts) -> PostgresFacts {
    facts(DataDirectory::Ready(control(ControlState::InProduction)), process(), Some(sql))
}

/// A primary that does not work.
pub(super) fn dead(death: Death) -> PostgresFacts {
    PostgresFacts {
        liveness: LivenessFacts { verdict: LivenessVerdict::Dead(death), ..LivenessFacts::default() },
        ..promoted()
    }
}

/// A primary that was started as a standby and promoted.
fn promoted() -> PostgresFacts {
    PostgresFacts { process: promotion(), ..up(primary(1000)) }
}

/// A standby that was ordered to become primary, and has not yet.
pub(super) fn promoting(replayed: u64) -> PostgresFacts {
    PostgresFacts { process: promotion(), ..up(standby(replayed)) }
}

fn promotion() -> Process {
    Process::Up { pid: 42, since: START, standby_start: false }
}

pub(super) fn no_connection() -> Death {
    Death::NoConnection {
        within: Duration::from_secs(5),
        trouble: "connecting takes longer than 2.5 s".to_owned(),
    }
}

pub(super) fn no_write() -> Death {
    Death::NoWrite { within: Duration::from_secs(5), trouble: "No space left on device".to_owned() }
}

pub(super) fn silent() -> PostgresFacts {
    facts(DataDirectory::Ready(control(ControlState::InArchiveRecovery)), process(), None)
}

fn process() -> Process {
    Process::Up { pid: 42, since: START, standby_start: true }
}

pub(super) fn primary(lsn: u64) -> SqlFacts {
    let walsenders = ["b", "c"].map(|member| walsender(member, lsn)).into();
    let sync = SyncFacts { walsenders, ..SyncFacts::default() };
    SqlFacts { standby: Standby::No, flushed: Lsn(lsn), sync, ..standby(lsn) }
}

/// `member` streams and has flushed all of it.
fn walsender(member: &str, lsn: u64) -> Walsender {
    Walsender {
        name: member.to_owned(),
        streams: true,
        sync: SyncState::Async,
        written: Some(Lsn(lsn)),
        flushed: Some(Lsn(lsn)),
        replayed: Some(Lsn(lsn)),
    }
}

pub(super) fn standby(lsn: u64) -> SqlFacts {
    SqlFacts {
        at: START,
        server_version: 150_018,
        postmaster_start_time: "2026-11-22T21:50:10.915509+00:00".to_owned(),
        timeline: Some(Timeline(1)),
        standby: Standby::Yes {
            received: Lsn(lsn),
            replayed: Lsn(lsn),
            replayed_timestamp: None,
            paused: false,
            receiver: Some(WalReceiver {
                status: "streaming".to_owned(),
                host: Some("b".to_owned()),
                port: Some(5432),
                slot: Some("a".to_owned()),
                latest_end: Lsn(lsn),
            }),
            restores: false,
        },
        flushed: Lsn(0),
        slots: BTreeMap::new(),
        sync: SyncFacts::default(),
        replication: Vec::new(),
        is_detached: false,
    }
}
