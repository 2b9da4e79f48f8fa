//! A real server over a fake loop, and the statuses that all tests of this module start from.

mod crowds;
mod grpc;
mod http2;
mod operations;
mod peer;
mod preflight;
mod routes;
mod sockets;
mod switchover;
mod world;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use self::world::{World, carry_out};
use super::{ApiSetup, bind, serve};
use crate::agent::{Handle, Orders, PeerChannel, Status, handle};
use crate::model::*;
use crate::peer::{Call, Peers};

pub(super) fn name(text: &str) -> MemberName {
    MemberName::new(text).expect("a valid name")
}

/// A view with leader `n1` at 1000 and replica `n2` at 900.
pub(super) fn view() -> ClusterView {
    let member = |record: Value| MemberKey {
        record: serde_json::from_value(record).expect("a valid record"),
        lease: None,
    };
    let n1 = json!({"conn_url": "postgres://10.0.0.1:5432/postgres", "api_url": "http://127.0.0.1:1/patroni",
        "state": "running", "role": "primary", "timeline": 2, "xlog_location": 1000});
    let n2 = json!({"conn_url": "postgres://[fd00::2]:5433/postgres", "api_url": "http://127.0.0.1:2/patroni",
        "state": "running", "role": "replica", "timeline": 2, "xlog_location": 900, "receive_lsn": 900,
        "replay_lsn": 800, "replication_state": "streaming", "tags": {"dc": "b"}});
    ClusterView {
        revision: 7,
        cluster_id: 0,
        listed: 7,
        generation: None,
        timeline_claim: None,
        leader: Some(LeaderKey { name: name("n1"), lease: None, term: Term(3) }),
        leader_created: Some(3),
        failsafe: None,
        recruit: None,
        members: BTreeMap::from([(name("n1"), member(n1)), (name("n2"), member(n2))]),
        initialize: Some("7711116464809554881".to_owned()),
        initialize_lease: None,
        config: Some(ConfigKey { text: r#"{"ttl":30,"postgresql":{}}"#.to_owned(), mod_revision: 5 }),
        status: Some(ClusterStatus { optime: Some(Lsn(1000)), ..ClusterStatus::default() }),
        history: Some(vec![HistoryLine {
            parent: Timeline(1),
            lsn: Lsn(500),
            reason: "no recovery target specified".to_owned(),
            at: Some("2026-11-22T21:52:27+00:00".to_owned()),
            promoted: Some("n1".to_owned()),
        }]),
        failover: None,
        sync: None,
        unfenced: None,
    }
}

fn sql(now: Moment, standby: Standby) -> SqlFacts {
    SqlFacts {
        at: now,
        server_version: 150_018,
        postmaster_start_time: "2026-11-22T21:50:10.915509Z".to_owned(),
        timeline: Some(Timeline(2)),
        flushed: if matches!(standby, Standby::No) { Lsn(1000) } else { Lsn(0) },
        standby,
        slots: BTreeMap::new(),
        sync: SyncFacts::default(),
        replication: Vec::new(),
        is_detached: false,
    }
}

fn member(me: &str, role: Role, now: Moment, standby: Standby) -> Status {
    let record = view().members[&name(me)].record.clone();
    Status {
        me: Me {
            scope: "c".to_owned(),
            name: name(me),
            session: SessionId(0xC0FFEE),
            tags: record.tags.clone(),
            conn_url: record.conn_url.clone().expect("set"),
            api_url: record.api_url.clone().expect("set"),
            proxy_url: None,
            may_bootstrap: true,
            wait_for_members: Duration::ZERO,
            scripts: Default::default(),
        },
        scope: "c".to_owned(),
        settings: Settings::default(),
        config: None,
        view: Some(Arc::new(view())),
        last_view: Some(Arc::new(view())),
        etcd_last_seen: 1_795_384_262,
        store: StoreMark { cluster_id: 3, revision: 80 },
        lease: LeaseFacts::default(),
        hearing: HearingFacts::default(),
        postgres: PostgresFacts {
            process: Process::Up { pid: 1, since: now, standby_start: true },
            sql: Some(sql(now, standby)),
            ..PostgresFacts::default()
        },
        streamed_at: None,
        state: MemberState::Running,
        role,
        record,
        job: None,
        because: "all is well".to_owned(),
        hand_over: None,
        operation: None,
        scheduled_restart: None,
        watchdog_failed: false,
        writes_refused: None,
        failsafe_active: false,
        suspicion: Suspicion::Unknown,
        recruited: None,
        restart_begins_as_standby: false,
        yields: false,
        lacks_removed_wal: false,
        guard: None,
        kubernetes: None,
        recovered_at: None,
        clone_progress: None,
        ticked_at: now,
        next_tick_by: now + Duration::from_secs(10),
        counters: BTreeMap::from([("ticks_total", 42)]),
        tally: Tally::default(),
    }
}

/// A pod whose labels have been refused since `since`, with one failed watch, which is no trouble.
pub(super) fn pod_in_trouble(since: Moment) -> PodFacts {
    let trouble = |kind, count, text: &str| PodTrouble { kind, since, count, text: text.to_owned() };
    PodFacts {
        end: None,
        role: Some("primary".to_owned()),
        trouble: BTreeMap::from([
            (PodTask::Label, trouble(PodFailure::Forbidden, 2, "pods is forbidden")),
            (PodTask::Watch, trouble(PodFailure::Server, 1, "")),
        ]),
        failures: BTreeMap::from([((PodTask::Label, PodFailure::Forbidden), 2)]),
    }
}

/// `n1`, leading, its Postgres read-write.
pub(super) fn primary(now: Moment) -> Status {
    let lease = LeaseFacts {
        deadline: Some(now + Duration::from_secs(10)),
        leading: Leading::Yes(Term(3)),
        ..LeaseFacts::default()
    };
    let mut status = Status { lease, ..member("n1", Role::Primary, now, Standby::No) };
    let walsender = Walsender {
        name: "n2".to_owned(),
        streams: true,
        sync: SyncState::Async,
        written: Some(Lsn(900)),
        flushed: Some(Lsn(900)),
        replayed: Some(Lsn(800)),
    };
    status.postgres.sql.as_mut().expect("set").sync.walsenders.push(walsender);
    status
}

/// `n2`, streaming, 200 bytes behind.
pub(super) fn replica(now: Moment) -> Status {
    let receiver = WalReceiver {
        status: "streaming".to_owned(),
        host: None,
        port: None,
        slot: None,
        latest_end: Lsn(1000),
    };
    let standby = Standby::Yes {
        received: Lsn(900),
        replayed: Lsn(800),
        replayed_timestamp: Some("2026-11-22T21:51:41.062250Z".to_owned()),
        paused: false,
        receiver: Some(receiver),
        restores: false,
    };
    member("n2", Role::Replica, now, standby)
}

/// Puts the cluster into a synchronous mode with this key `sync`; every reader sees it at once.
pub(super) fn synchronous(view: &mut ClusterView, mode: &str, leader: &str, quorum: usize, voters: &[&str]) {
    let config = json!({"ttl": 30, "synchronous_mode": mode});
    view.config = Some(ConfigKey { text: config.to_string(), mod_revision: 5 });
    let voters = voters.iter().map(|voter| name(voter)).collect();
    let record = SyncRecord { leader: Some(name(leader)), quorum, voters };
    view.sync = Some(SyncKey { record, mod_revision: 6 });
}

/// The same for a member's status.
pub(super) fn synchronous_member(status: &mut Status, mode: SyncMode, quorum: usize, voters: &[&str]) {
    status.settings.sync.mode = mode;
    let mut view = view();
    let word = match mode {
        SyncMode::Off => "off",
        SyncMode::On => "on",
        SyncMode::Quorum => "quorum",
    };
    synchronous(&mut view, word, "n1", quorum, voters);
    status.view = Some(Arc::new(view));
}

/// A server on a port of its own.
pub(super) struct Rig {
    pub(super) address: SocketAddr,
    pub(super) world: Arc<Mutex<World>>,
    pub(super) status: watch::Sender<Arc<Status>>,
    pub(super) channel: Arc<PeerChannel>,
    _setup: watch::Sender<Arc<ApiSetup>>,
}

pub(super) async fn rig(first: Status) -> Rig {
    rig_with(first, ApiSetup::default()).await
}

pub(super) async fn rig_with(first: Status, setup: ApiSetup) -> Rig {
    let world = World {
        cluster: Some(view()),
        reply: Reply::Restarted,
        peer_reachable: true,
        leader_standbys: vec!["n2".to_owned()],
        peer_identity: view().identity_of("c", &name("n2")),
        writes_succeed: true,
        facts: Ok(PreflightFacts::default()),
        peer_bodies: BTreeMap::new(),
        journal: Vec::new(),
        asked: Vec::new(),
        looks: 0,
        loop_has_ended: false,
        reloads: 0,
        failover: Vec::new(),
        held_reads: None,
    };
    let world = Arc::new(Mutex::new(world));
    let (handle, orders): (Handle, Orders) = handle(first);
    let Orders { mut orders, status } = orders;
    let theirs = world.clone();
    tokio::spawn(async move {
        while let Some(order) = orders.recv().await {
            carry_out(order, &mut theirs.lock().expect("no test panics with it"));
        }
    });
    let channel = handle.channel().clone();
    let setup = ApiSetup { listen: ("127.0.0.1".to_owned(), 0), ..setup };
    let listener = bind(&setup).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (setup_sender, setup) = watch::channel(Arc::new(setup));
    tokio::spawn(serve(listener, setup, handle, tokio::runtime::Handle::current(), std::future::pending()));
    Rig { address, world, status, channel, _setup: setup_sender }
}

impl Rig {
    pub(super) fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.world.lock().expect("no test panics with it")
    }

    pub(super) async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, String) {
        self.call_as(method, path, body, None).await
    }

    pub(super) async fn call_as(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
        credentials: Option<(String, String)>,
    ) -> (u16, String) {
        let call = Call {
            method: method.to_owned(),
            url: format!("http://{}{path}", self.address),
            body,
            credentials,
            within: Duration::from_secs(30),
        };
        Peers::default().call(call).await.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Sends bytes, reads to the end.
    pub(super) async fn raw(&self, request: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(self.address).await.expect("a listening server");
        stream.write_all(request.as_bytes()).await.expect("an open connection");
        let mut answer = String::new();
        let reading = stream.read_to_string(&mut answer);
        tokio::time::timeout(Duration::from_secs(20), reading).await.expect("an answer").expect("text");
        answer
    }
}
