//! What a standby observes.

use std::collections::BTreeMap;
use std::time::Duration;

use matriarch::model::{
    Branch, ControlState, DataDirectory, FailoverBy, Finished, Job, JobKind, LeaderBranch, Leading,
    LeaseFacts, LeaseId, Lsn, Me, Moment, Observation, PeerAnswer, PostgresFacts, Process, Role, RunningJob,
    SessionId, Settings, SqlFacts, Standby as Recovery, StoreMark, Suspicion, SyncFacts, SyncMode, SyncOwner,
    Tags, Term, Timeline, TimelineHistory, View, WalReceiver, WallTime, WriteFacts,
};

use super::Mutation;
use super::standby::{Answer, Postgres, Standby, name};
use super::state::Kind;
use crate::models::control_file::control_file;

const SCOPE: &str = "herd";
const TTL: Duration = Duration::from_secs(10);
/// Longer than every deadline of an attempt and every pause after it that a life sees.
const LONG: Duration = Duration::from_secs(8);

/// Time passes in steps.
pub(super) fn at(time: u8) -> Moment {
    Moment::from_millis(1_000_000) + LONG * u32::from(time)
}

fn lsn(wal: u8) -> Lsn {
    Lsn(1000 + 100 * u64::from(wal))
}

pub(super) fn observe(
    index: usize,
    time: u8,
    kind: Kind,
    mutation: Option<Mutation>,
    standby: &Standby,
) -> Observation {
    let now = at(time);
    let mut cluster = standby.view.cluster.clone();
    if let Some(key) = cluster.sync.as_mut().filter(|_| mutation == Some(Mutation::OneVoterTooFew)) {
        key.record.quorum = key.record.quorum.saturating_sub(1);
    }
    let attempt = cluster.recruit.as_ref().map(|key| key.attempt);
    let is_candidate = cluster.recruit.as_ref().is_some_and(|key| key.candidate == name(index));
    let seems_left = is_candidate && mutation == Some(Mutation::CandidateStays);
    let term = cluster.leader.as_ref().map(|leader| leader.term).unwrap_or_default();
    let running = |job: Job| RunningJob { job, since: now };
    let mut seen = Observation {
        me: me(index, kind),
        settings: settings(kind.is_quorum),
        view: Some(View { cluster, seen_at: now }),
        hearing: standby.hears(),
        lease: lease(standby, now),
        postgres: postgres(&standby.postgres, now, seems_left),
        peers: BTreeMap::new(),
        leader_branch: standby.told_at.map(history),
        leader_slots: None,
        job: None,
        clone_progress: None,
        writing: standby.writing.as_ref().map(|write| running(Job::TakeLeadership { by: *write.by })),
        finished: Vec::new(),
        requests: Vec::new(),
        shutting_down: false,
        watchdog_failed: false,
        pod_end: None,
        pod_trouble: None,
        writes: WriteFacts { refused: None, done_at: Some(now) },
        wall: WallTime(0),
    };
    let ended = standby.finished.iter();
    seen.finished.extend(ended.map(|it| Finished { job: JobKind::TakeLeadership, outcome: (**it).clone() }));
    for (other, answer) in standby.answers.iter().enumerate() {
        let Some(answer) = answer else { continue };
        let mut told = PeerAnswer { tags: tags(other, kind), ..told(answer, term) };
        told.identity = seen.identity_of(&name(other)).unwrap_or_default();
        match mutation {
            Some(Mutation::AnyAttemptCounts) => told.recruited = told.recruited.and(attempt),
            Some(Mutation::AheadCounts) => told.lsn = told.lsn.min(lsn(standby.postgres.wal)),
            _ => {}
        }
        seen.peers.insert(name(other), told);
    }
    seen
}

/// Its own tags also say whether it may lead.
fn tags(index: usize, kind: Kind) -> Tags {
    match kind.one_candidate && index == 2 {
        true => serde_json::from_str(r#"{"nofailover": true}"#).expect("valid tags"),
        false => Tags::default(),
    }
}

fn me(index: usize, kind: Kind) -> Me {
    let name = name(index);
    Me {
        scope: SCOPE.to_owned(),
        session: SessionId(index as u64),
        tags: tags(index, kind),
        conn_url: format!("postgres://{name}:5432/postgres"),
        api_url: format!("http://{name}"),
        name,
        proxy_url: None,
        may_bootstrap: false,
        wait_for_members: Duration::ZERO,
        scripts: Default::default(),
    }
}

fn settings(is_quorum: bool) -> Settings {
    let mut settings = Settings { failover: FailoverBy::Recruit, ..Settings::default() };
    settings.sync.mode = if is_quorum { SyncMode::Quorum } else { SyncMode::On };
    settings.sync.strict = true;
    settings
}

/// A lease that was confirmed now.
fn lease(standby: &Standby, now: Moment) -> LeaseFacts {
    LeaseFacts {
        lease: Some(LeaseId(standby.lease)),
        deadline: Some(now + TTL),
        leading: Leading::No,
        ttl: TTL,
        ..LeaseFacts::default()
    }
}

fn history(told_at: u8) -> LeaderBranch {
    let answer = Branch { history: TimelineHistory::default(), timeline: Timeline(1), end: None };
    LeaderBranch { name: name(0), asked_at: at(told_at), answer: Ok(answer), has_slot: true, oldest: Lsn(0) }
}

fn postgres(postgres: &Postgres, now: Moment, seems_left: bool) -> PostgresFacts {
    let control = control_file(ControlState::InArchiveRecovery, lsn(0), Timeline(1));
    let names = postgres.names.as_ref().and_then(|names| names.as_ref());
    PostgresFacts {
        data: DataDirectory::Ready(control),
        process: Process::Up { pid: 42, since: at(0), standby_start: true },
        sql: Some(sql(postgres, now, seems_left)),
        history_of: Some(Timeline(1)),
        sync_owner: names.map_or(SyncOwner::Undecided, |names| SyncOwner::Supervisor(names.clone())),
        ..PostgresFacts::default()
    }
}

fn sql(postgres: &Postgres, now: Moment, seems_left: bool) -> SqlFacts {
    let end = lsn(postgres.wal);
    let receiver = WalReceiver {
        status: "streaming".to_owned(),
        host: Some(name(0).to_string()),
        port: Some(5432),
        slot: None,
        latest_end: end,
    };
    SqlFacts {
        at: now,
        server_version: 170_000,
        postmaster_start_time: String::new(),
        timeline: Some(Timeline(1)),
        standby: Recovery::Yes {
            received: end,
            replayed: end,
            replayed_timestamp: None,
            paused: false,
            receiver: postgres.receives.then_some(receiver),
            restores: false,
        },
        flushed: Lsn(0),
        slots: BTreeMap::new(),
        replication: Vec::new(),
        is_detached: (!postgres.source && !postgres.receives) || seems_left,
        sync: SyncFacts {
            names: postgres.names.as_ref().and_then(|names| (**names).clone()).unwrap_or_default(),
            ..SyncFacts::default()
        },
    }
}

fn told(answer: &Answer, term: Term) -> PeerAnswer {
    if !answer.reachable {
        return PeerAnswer::unreachable(at(answer.at), "no answer".to_owned());
    }
    PeerAnswer {
        asked_at: at(answer.at),
        identity: Default::default(),
        reachable: true,
        in_recovery: !answer.is_primary,
        role: if answer.is_primary { Role::Primary } else { Role::Replica },
        lsn: lsn(answer.wal),
        exact: true,
        receives: answer.receives,
        standbys: Vec::new(),
        replayed: lsn(answer.wal),
        timeline: Some(Timeline(1)),
        tags: Tags::default(),
        watchdog_failed: false,
        pod_ends: false,
        yields: false,
        promised: false,
        suspicion: match answer.suspects {
            None => Suspicion::Unknown,
            Some(true) => Suspicion::Suspects(term),
            Some(false) => Suspicion::Hears(term),
        },
        recruited: answer.recruited,
        no_data: false,
        store: StoreMark::default(),
        trouble: None,
    }
}
